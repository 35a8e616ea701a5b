"""What only moves elements: each operation in every type and with gradients, chains of them, and what is made of numbers."""
import math

from record import Case

DTYPES = ("f32", "i32", "u32", "bool", "f16", "bf16")


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def random_shape(r, low=0, high=4, most=5):
    return [r.randint(1, most) for _ in range(r.randint(low, high))]


def reshape(c, x):
    shape, r, out = c.shape(x), c.random, []
    rest = math.prod(shape)
    if rest == 0:
        return c.op("reshape", x, list(reversed(shape)))
    for _ in range(r.randint(0, 3)):
        d = r.choice(divisors(rest))
        out.append(d)
        rest //= d
    out.insert(r.randint(0, len(out)), r.choice((-1, rest)))
    return c.op("reshape", x, out)


def permute(c, x):
    order = list(range(len(c.shape(x))))
    c.random.shuffle(order)
    return c.op("permute", x, [o - len(order) if c.random.random() < 0.2 else o for o in order])


def transpose(c, x):
    n = len(c.shape(x))
    if n < 2:
        return c.op("unsqueeze", x, 0)
    return c.op("transpose", x, *([c.random.randrange(-n, n), c.random.randrange(n)] if c.random.random() < 0.7 else []))


def expand(c, x):
    shape = [c.random.randint(1, 3) if n == 1 else n for n in c.shape(x)]
    if c.random.random() < 0.5 or shape == c.shape(x):
        shape.insert(0, c.random.randint(1, 3))
    return c.op("expand", x, shape)


def squeeze(c, x):
    ones = [i for i, n in enumerate(c.shape(x)) if n == 1]
    if not ones:
        at = c.random.randint(0, len(c.shape(x)))
        return c.op("squeeze", c.op("unsqueeze", x, at), at)
    return c.op("squeeze", x, c.random.choice(ones))


def unsqueeze(c, x):
    n = len(c.shape(x)) + 1
    return c.op("unsqueeze", x, c.random.randrange(-n, n))


def slice_(c, x):
    ranges, r = [], c.random
    for n in c.shape(x)[: r.randint(0, len(c.shape(x)))]:
        kind = r.random()
        if kind < 0.25 or n == 0:
            ranges.append(None)
            continue
        start = r.randrange(n)
        stop = r.randint(start + 1, n)
        one = [start - n if r.random() < 0.3 else start, stop - n if stop < n and r.random() < 0.3 else stop]
        ranges.append(one if r.random() < 0.4 else [*one, r.randint(1, 3)])
    return c.op("slice", x, *ranges)


def narrow(c, x):
    shape, r = c.shape(x), c.random
    if not shape:
        return c.op("unsqueeze", x, 0)
    at = r.randrange(len(shape))
    start = r.randint(0, shape[at])
    length = r.randint(0 if r.random() < 0.1 else min(1, shape[at] - start), shape[at] - start)
    return c.op("narrow", x, at - len(shape) if r.random() < 0.3 else at, start, length)


def pad(c, x):
    return c.op("pad", x, [[c.random.randint(0, 2), c.random.randint(0, 2)] for _ in c.shape(x)])


def flip(c, x):
    n = len(c.shape(x))
    return c.op("flip", x, sorted(c.random.sample(range(n), c.random.randint(0, n))))


def split(c, x):
    shape = c.shape(x)
    if not shape:
        return c.op("unsqueeze", x, 0)
    at = c.random.randrange(len(shape))
    if c.random.random() < 0.5 and shape[at] > 0:
        parts = c.op("split", x, c.random.randint(1, max(1, shape[at])), at)
    else:
        first = c.random.randint(0, shape[at])
        parts = c.op("split", x, [first, shape[at] - first], at)
    return c.random.choice(parts) if parts else x


def triangle(name):
    def apply(c, x):
        if len(c.shape(x)) < 2:
            return c.op("unsqueeze", x, 0)
        return c.op(name, x, *([c.random.randint(-3, 3)] if c.random.random() < 0.8 else []))

    return apply


MOVES = {
    "reshape": reshape, "permute": permute, "transpose": transpose, "expand": expand, "squeeze": squeeze, "unsqueeze": unsqueeze, "slice": slice_,
    "narrow": narrow, "pad": pad, "flip": flip, "split": split, "tril": triangle("tril"), "triu": triangle("triu"),
}  # fmt: skip


def shape_for(name, r):
    low = 2 if name in ("tril", "triu", "transpose") else 1 if name in ("narrow", "split") else 0
    return random_shape(r, low)


def single_cases():
    for name, move in MOVES.items():
        for k, dtype in enumerate([*DTYPES, "f32", "f32", "f32", "f32", "f32"]):
            if dtype == "bool" and name in ("tril", "triu"):
                continue
            c = Case(f"{name}/{k}-{dtype}")
            x = c.uniform(shape_for(name, c.random), 0 if dtype in ("u32",) else -9, 9, dtype)
            y = move(c, x)
            floats = dtype in ("f32", "f16", "bf16")
            if k >= 8:
                y = c.op("square", y)
            yield c.line(y, orders=(2 if k >= 8 else 1) if floats else 0)
        c = Case(f"{name}/empty")
        move(c, c.uniform([2, 0, 3]))
        yield c.line(orders=1)
        c = Case(f"{name}/special")
        y = move(c, c.literal([2, 3], [math.nan, math.inf, -math.inf, -0.0, 3e38, 1]))
        yield c.line(y, orders=0)


def join_cases():
    for name in ("concat", "stack"):
        for k, dtype in enumerate([*DTYPES, "f32", "f32", "f32", "f32", "f32"]):
            c = Case(f"{name}/{k}-{dtype}")
            shape = random_shape(c.random, 1, 3, 4)
            at = c.random.randrange(len(shape))
            parts = []
            for _ in range(c.random.randint(1, 4)):
                one = list(shape)
                if name == "concat":
                    one[at] = c.random.randint(0, 4)
                parts.append(c.uniform(one, 0 if dtype == "u32" else -9, 9, dtype))
            y = c.op(name, parts, at - (len(shape) + (name == "stack")) if k % 3 == 2 else at)
            floats = dtype in ("f32", "f16", "bf16")
            if k >= 8:
                y = c.op("mul", y, c.op("sin", y))
            yield c.line(y, orders=(2 if k >= 8 else 1) if floats else 0)
        c = Case(f"{name}/itself")
        x = c.uniform([2, 3])
        c.op(name, [x, c.op("flip", x, [1]), c.op("mul", x, 2), x], 0)
        yield c.line(orders=2)
        # a NaN or infinity in one part must not spread to the others
        c = Case(f"{name}/special")
        c.op(name, [c.literal([3], [math.nan, math.inf, -0.0]), c.literal([3], [1, 2, 3]), c.literal([3], [-math.inf, 5, math.nan])], 0)
        yield c.line(orders=1)
        c = Case(f"{name}/many")
        c.op(name, [c.uniform([3]) for _ in range(17)], 0)
        yield c.line(orders=1)
    c = Case("split/all")
    c.op("split", c.uniform([7, 2]), 3, 0)
    yield c.line(orders=1)
    c = Case("split/sizes")
    c.op("split", c.uniform([2, 7]), [2, 0, 5], 1)
    yield c.line(orders=1)


def slice_scatter_cases():
    for k, dtype in enumerate([*DTYPES, "f32", "f32", "f32", "f32", "f32", "f32", "f32"]):
        c = Case(f"sliceScatter/{k}-{dtype}")
        shape = random_shape(c.random, 1, 3, 4)
        at = c.random.randrange(len(shape))
        part = list(shape)
        part[at] = c.random.randint(min(1, shape[at]), shape[at])
        low = 0 if dtype == "u32" else -9
        x, values = c.uniform(shape, low, 9, dtype), c.uniform(part, low, 9, dtype)
        y = c.op("sliceScatter", x, at, c.random.randint(0, shape[at] - part[at]), values)
        floats = dtype in ("f32", "f16", "bf16")
        if k >= 8:
            y = c.op("mul", y, c.op("sin", y))
        yield c.line(y, orders=(2 if k >= 8 else 1) if floats else 0)


def chain_cases():
    for k in range(150):
        c = Case(f"chain/{k}")
        x = c.uniform(random_shape(c.random, 1, 4, 4))
        y = x
        for _ in range(c.random.randint(2, 6)):
            if math.prod(c.shape(y)) > 200 or len(c.shape(y)) > 5:
                break
            y = MOVES[c.random.choice(list(MOVES))](c, y)
        ends = c.random.random()
        if ends < 0.3 and c.shape(y):
            y = c.op("sum", y, c.random.randrange(len(c.shape(y))))
        elif ends < 0.6:
            y = c.op("mul", y, c.op("sin", y))
        elif ends < 0.75:
            y = c.op("add", y, c.op("flip", y, list(range(len(c.shape(y))))))
        yield c.line(y, orders=2 if ends > 0.3 and math.prod(c.shape(y)) < 100 else 1)


def made_cases():
    values = {"f32": [0, 1, -2.5, 0.1, "#inf", "#nan", "#-0"], "i32": [0, -7, 2**31 - 1], "u32": [3, 2**32 - 1], "bool": [0, 1]}
    n = 0
    for dtype, list_ in values.items():
        for v in list_:
            c = Case(f"full/{n}-{dtype}")
            n += 1
            c.op("full", [[2, 3], [], [4], [0, 2]][n % 4], v, dtype)
            yield c.line(orders=0)
    for name in ("zeros", "ones"):
        for k, dtype in enumerate(("f32", "i32", "u32", "bool")):
            for j, shape in enumerate(([2, 3], [], [5])):
                c = Case(f"{name}/{k}-{j}-{dtype}")
                c.op(name, shape, dtype)
                yield c.line(orders=0)
    for k, (shape, axis) in enumerate((([4], 0), ([2, 3], 0), ([2, 3], 1), ([2, 3, 4], 1), ([1], 0), ([70], 0), ([0], 0), ([3, 0], 0), ([2, 2, 2, 2], 3), ([5, 1], 1))):
        c = Case(f"iota/{k}")
        c.op("iota", shape, axis)
        yield c.line(orders=0)
        c = Case(f"iota/{k}-used")
        x = c.uniform([1])
        c.op("mul", c.op("cast", c.op("iota", shape, axis), "f32"), x)
        yield c.line(orders=1)
    for k, n in enumerate((0, 1, 2, 5, 17, 64, 65, 100, 3, 4, 9, 33)):
        c = Case(f"arange/{k}")
        c.op("arange", n)
        yield c.line(orders=0)


def cases():
    yield from single_cases()
    yield from join_cases()
    yield from slice_scatter_cases()
    yield from chain_cases()
    yield from made_cases()
