"""Random graphs: some ten operations over a few inputs, with values used more than once, in first and second order."""
import math

import torch

from cases.movement import MOVES
from record import Case, IllConditioned

SMOOTH = ["sin", "cos", "tanh", "sigmoid", "silu", "gelu", "softplus", "erf", "square", "neg", "exp"]
BOUND = 30


def value(c, x):
    return c.peek(x).t


def tame(c, x):
    """Keeps values where functions are interesting."""
    largest = float(value(c, x).abs().max()) if value(c, x).numel() else 0
    return c.op("tanh", x) if largest > BOUND else x


def positive(c, x):
    return c.op("add", c.op("square", x), 0.5)


def unary(c, pool):
    x = pick(c, pool)
    name = c.random.choice(SMOOTH)
    if name in ("exp", "square"):
        x = c.op("tanh", x)
    return c.op(name, x)


def guarded(c, pool):
    return c.op(c.random.choice(["log", "sqrt", "rsqrt", "reciprocal"]), positive(c, pick(c, pool)))


def pick(c, pool):
    return c.random.choice(pool[-4:] if c.random.random() < 0.6 else pool)


def partner(c, pool, x):
    """A value that broadcasts with x; x itself, if there is none."""
    fits = []
    for y in pool:
        try:
            shape = torch.broadcast_shapes(c.shape(x), c.shape(y))
        except RuntimeError:
            continue
        if math.prod(shape) <= 150:
            fits.append(y)
    return c.random.choice(fits or [x])


def binary(c, pool):
    x = pick(c, pool)
    y = partner(c, pool, x)
    name = c.random.choice(["add", "sub", "mul", "mul", "div", "maximum", "minimum", "where", "pow"])
    if name == "div":
        return c.op("div", x, positive(c, y))
    if name == "pow":
        return c.op("pow", positive(c, c.op("tanh", x)), c.op("tanh", y))
    if name == "where":
        return c.op("where", c.op("lt", x, y), c.op("sin", x), y)
    return c.op(name, x, y)


def number(c, pool):
    x = pick(c, pool)
    name = c.random.choice(["add", "mul", "sub", "clamp", "pow", "div"])
    if name == "clamp":
        return c.op("clamp", x, -0.8123, 0.9321)
    if name == "pow":
        return c.op("pow", c.op("tanh", x), c.random.choice([2, 3]))
    return c.op(name, x, c.random.choice([0.3, -1.7, 2.25]))


def reduction(c, pool):
    x = pick(c, [p for p in pool if c.shape(p)] or pool)
    shape = c.shape(x)
    if not shape:
        return c.op("sin", x)
    axis = c.random.randrange(len(shape))
    name = c.random.choice(["sum", "mean", "max", "min", "logSumExp", "variance", "softmax", "logSoftmax", "cumsum"])
    if name in ("softmax", "logSoftmax", "cumsum"):
        return c.op(name, x, axis)
    if name == "variance" and shape[axis] < 2:
        name = "mean"
    return c.op(name, x, axis, {"keepdims": True} if c.random.random() < 0.6 else {})


def matmul(c, pool):
    x = pick(c, [p for p in pool if len(c.shape(p)) >= 2] or pool)
    if len(c.shape(x)) < 2:
        return c.op("sin", x)
    return c.op("matmul", x, c.op("transpose", c.op("sin", x)))


def move(c, pool):
    x = pick(c, pool)
    if math.prod(c.shape(x)) > 60 or len(c.shape(x)) > 3:
        return c.op("neg", x)
    return MOVES[c.random.choice(list(MOVES))](c, x)


def join(c, pool):
    x = pick(c, pool)
    return c.op("concat", [x, c.op("sin", x)], 0) if c.shape(x) else c.op("stack", [x, c.op("cos", x)], 0)


def lookup(c, pool):
    x = pick(c, pool)
    if not c.shape(x) or c.shape(x)[0] == 0:
        return c.op("sin", x)
    index = c.op("iota", [4], 0)
    safe = c.op("minimum", index, c.shape(x)[0] - 1)
    return c.op("take", x, safe)


def kind(c, pool):
    r = c.random.random()
    for share, make in ((0.26, unary), (0.34, guarded), (0.54, binary), (0.62, number), (0.74, reduction), (0.80, matmul), (0.92, move), (0.96, join), (1.1, lookup)):
        if r < share:
            return make(c, pool)
    raise AssertionError


def build(name, orders):
    c = Case(name)
    r = c.random
    base = [r.randint(1, 4) for _ in range(r.randint(1, 3))]
    pool = []
    for _ in range(r.randint(1, 3)):
        shape = [1 if r.random() < 0.25 else n for n in base]
        pool.append(c.uniform(shape[r.randint(0, 1) if r.random() < 0.3 else 0 :]))
    for _ in range(r.randint(4, 11)):
        y = kind(c, pool)
        if value(c, y).numel() == 0 or value(c, y).numel() > 150:
            continue
        pool.append(tame(c, y))
    return c.line(pool[-1], orders=orders, most=2e-3)


def cases():
    made = 0
    attempt = 0
    while made < 620:
        attempt += 1
        try:
            yield build(f"graph-{made % 20}/{attempt}", 2 if attempt % 2 else 1)
            made += 1
        except IllConditioned:
            continue
