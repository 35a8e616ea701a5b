"""Values of inputs and weights, and numbers as text. test/src/recorded/values.ts says the same in TypeScript, bit for bit."""
import math

import numpy as np
import torch

SAMPLES = 64  # of a longer result only so many elements are stored


def prng(seed):
    """mulberry32: uniform numbers k / 2^32."""
    state = seed & 0xFFFFFFFF

    def imul(a, b):
        return (a * b) & 0xFFFFFFFF

    def draw():
        nonlocal state
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        x = imul(state ^ (state >> 15), state | 1)
        x ^= (x + imul(x ^ (x >> 7), x | 61)) & 0xFFFFFFFF
        return (x ^ (x >> 14)) / 2**32

    return draw


def f32(x):
    with np.errstate(over="ignore"):
        return float(np.float32(x))


def fraction(draw):
    """A multiple of 2^-24 in [0, 1)."""
    return math.floor(draw() * 2**24) / 2**24


def uniform(dtype, n, low, high, seed):
    draw = prng(seed)
    if dtype == "bool":
        return [1 if draw() < 0.5 else 0 for _ in range(n)]
    if dtype in ("i32", "u32"):
        return [low + math.floor(draw() * (high - low)) for _ in range(n)]
    return [f32(low + (high - low) * fraction(draw)) for _ in range(n)]


def exponential(n, low, high, seed):
    """Either sign, a power of two from 2^low to 2^(high - 1), times a number in [1, 2)."""
    draw = prng(seed)
    out = []
    for _ in range(n):
        sign = -1 if draw() < 0.5 else 1
        power = low + math.floor(draw() * (high - low))
        out.append(f32(sign * 2.0**power * (1 + fraction(draw))))
    return out


def round_to(values, dtype):
    """Values as the type stores them."""
    if dtype in ("f16", "bf16"):
        half = torch.float16 if dtype == "f16" else torch.bfloat16
        return torch.tensor(values, dtype=torch.float32).to(half).to(torch.float64).tolist()
    if dtype == "f32":
        return [f32(v) for v in values]
    return list(values)


def text(v):
    """One number, with nine digits, which is all that f32 has."""
    if isinstance(v, (bool, int)):
        return str(int(v))
    if math.isnan(v):
        return "nan"
    if math.isinf(v):
        return "inf" if v > 0 else "-inf"
    s = f"{v:.9g}"
    return s.replace("e+", "e").replace("e-0", "e-").replace("e0", "e")


def positions(n):
    """Which elements of a result are stored: all, or evenly spread ones."""
    return list(range(n)) if n <= SAMPLES else [i * n // SAMPLES for i in range(SAMPLES - 1)] + [n - 1]


def weights(n, seed):
    """What elements of a result are weighted with in the loss that is differentiated."""
    return [f32(0.5 + v) for v in uniform("f32", n, 0, 1, seed)]
