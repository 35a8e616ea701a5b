"""Elementwise operations: ranges, awkward shapes, views as operands, every type, special values, casts."""
import math

from record import F64, Case, last_results
from values import positions

INF, NAN = math.inf, math.nan
TINY = [1e-45, -1e-45, 1e-40, -1e-40, 1.1754942e-38]
SPECIAL = [
    0.0, -0.0, 1, -1, 0.5, -0.5, 2, -2, INF, -INF, NAN, 1.17549435e-38, -1.17549435e-38, 3.4028235e38, -3.4028235e38,
    1e-8, -1e-8, 1e-4, -1e-4, 16777217, -16777217, 17, -17, 30, -30, 88.7, -87.3, 89, -89, 100, -104, 1000, -1000, 1e4, -1e4,
]  # fmt: skip

# name: (range, range of the wide case or None)
UNARY = {
    "neg": (-2, 2), "exp": (-3, 3), "log": (0.01, 4), "log1p": (-0.9, 4), "expm1": (-2, 3), "sqrt": (0.01, 4), "rsqrt": (0.05, 4),
    "reciprocal": (0.2, 4), "sin": (-7, 7), "cos": (-7, 7), "tanh": (-4, 4), "erf": (-3, 3), "floor": (-9, 9), "abs": (-2, 2),
    "square": (-3, 3), "sign": (-2, 2), "sigmoid": (-6, 6), "relu": (-2, 2), "silu": (-6, 6), "softplus": (-6, 6),
    "gelu": (-4, 4),
}  # fmt: skip
POSITIVE = ("log", "sqrt", "rsqrt")
SMOOTH_EVERYWHERE = ("tanh", "sigmoid", "silu", "softplus", "relu", "gelu", "erf", "abs")
ON_INTEGERS = ("neg", "abs", "square", "sign")
SHAPES = [[7], [2, 3], [], [3, 1, 4], [1], [33], [2, 2, 2, 3]]

BINARY = {"add": (-2, 2), "sub": (-2, 2), "mul": (-2, 2), "div": (0.3, 2), "mod": (0.4, 3), "maximum": (-2, 2), "minimum": (-2, 2), "pow": (0.3, 2), "logAddExp": (-2, 2)}
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
BROADCASTS = [([2, 3], [2, 3]), ([2, 3], [3]), ([4, 1], [1, 5]), ([], [3, 2]), ([2, 1, 3], [4, 1]), ([1], [2, 2]), ([3, 1, 2], [])]


def view(c, x, kind):
    """Another way to look at the same elements."""
    shape = c.shape(x)
    if kind == "flipped":
        return c.op("flip", x, [len(shape) - 1])
    if kind == "transposed":
        return c.op("transpose", x)
    if kind == "strided":
        return c.op("slice", x, *[[0, n, 2] for n in shape])
    if kind == "narrowed":
        return c.op("narrow", x, 0, 1, shape[0] - 1)
    if kind == "padded":
        return c.op("pad", x, [[1, 2]] + [[0, 1]] * (len(shape) - 1))
    return c.op("expand", c.op("unsqueeze", x, 0), [3, *shape])


VIEWS = ("flipped", "transposed", "strided", "narrowed", "padded", "expanded")


def unary_cases():
    for name, (low, high) in UNARY.items():
        for how in ("none", "tanh") if name == "gelu" else (None,):
            args = [how] if how else []
            group = f"{name}-tanh" if how == "tanh" else name
            make = lambda label: Case(f"{group}/{label}", "element")
            for k, shape in enumerate(SHAPES):
                c = make(f"shape-{k}")
                c.op(name, c.uniform(shape, low, high), *args)
                yield c.line(orders=2)
            for kind in VIEWS:
                c = make(kind)
                x = c.uniform([4, 3], low, high)
                padding_is_pole = kind == "padded" and name in (*POSITIVE, "reciprocal")
                c.op(name, view(c, x, "flipped" if padding_is_pole else kind), *args)
                yield c.line(orders=1)
            for dtype in ("f16", "bf16"):
                c = make(dtype)
                c.op(name, c.uniform([3, 5], low, high, dtype), *args)
                yield c.line(orders=1)
            if name in ON_INTEGERS:
                for dtype in ("i32", "u32"):
                    if dtype == "u32" and name in ("neg", "abs"):
                        continue
                    c = make(dtype)
                    top = [2**31 - 1, -(2**31), -(2**31) + 1] if dtype == "i32" else [2**32 - 1, 2**31]
                    c.op(name, c.literal([8], [0, 1, 5, 77, 46341] + top + ([] if dtype == "i32" else [3])[:1], dtype))
                    yield c.line(orders=0)
            yield from ranges(name, args, make, low)
            c = make("empty")
            c.op(name, c.uniform([2, 0, 3], low, high), *args)
            yield c.line(orders=1)


def ranges(name, args, make, low):
    c = make("wide")
    x = c.wide([24])
    if name in POSITIVE:
        x = c.op("abs", x)
    c.op(name, x, *args)
    yield c.line(orders=1)
    if name in SMOOTH_EVERYWHERE:
        for k, (a, b) in enumerate([(-20, -6), (6, 20), (-95, -80), (80, 95), (-1e4, 1e4), (-0.01, 0.01)]):
            c = make(f"range-{k}")
            c.op(name, c.uniform([20], a, b), *args)
            yield c.line(orders=1)
    if name in ("sin", "cos"):
        c = make("far")
        c.op(name, c.literal([8], [1e3, -1e4, 1e5, 123456.78, 1e6, -1e7, 1e10, 3e38]))
        yield c.line(orders=1)
    if name in ("log", "log1p", "expm1"):
        near = [1e-7, -6e-8, 1e-6, -1e-6, 1e-5, -1e-5, 1e-4, -1e-3, 1e-3, 0.01]
        c = make("near")
        c.op(name, c.literal([len(near)], [1 + v if name == "log" else v for v in near]))
        yield c.line(orders=1)
    c = make("special")
    c.op(name, c.literal([len(SPECIAL)], SPECIAL), *args)
    yield special(c, c.inputs[0][2])
    c = make("subnormal")
    c.op(name, c.literal([len(TINY)], TINY), *args)
    yield special(c, c.inputs[0][2])


def special(c, values):
    """With gradients, but where PyTorch's is one of its formula and not of the function."""
    outputs = last_results(c)
    grad = c.run(F64, outputs, 1)[1][0].t.tolist()
    odd = [i for i, (x, g) in enumerate(zip(values, grad)) if math.isnan(x) != math.isnan(g)]
    return c.line(orders=1, any_at={(1, 0): odd})


def binary_cases():
    for name, (low, high) in BINARY.items():
        left = low if name == "pow" else -2
        for k, (a, b) in enumerate(BROADCASTS):
            c = Case(f"{name}/broadcast-{k}", "element")
            x, y = c.uniform(a, left, 2), c.uniform(b, low, high)
            c.op(name, x, y)
            yield c.line(orders=0)
            c = Case(f"{name}/gradient-{k}")
            x, y = c.uniform(a, left, 2), c.uniform(b, low, high)
            c.op(name, x, y)
            yield c.line(orders=2)
        for value in (0.75, 2, -1.5, 1, 0, 3, -2, 0.5, -0.5, 5) if name == "pow" else (1.25, 0.1, -3) if name in ("div", "mod") else (0, 1, -0.7, 2.5):
            c = Case(f"{name}/number-{text_id(value)}", "element")
            c.op(name, c.uniform([2, 5], 0.3 if name == "pow" and not float(value).is_integer() else -2, 2), value)
            yield c.line(orders=2)
        for a, b in (("f16", "f32"), ("bf16", "bf16"), ("f16", "bf16")):
            c = Case(f"{name}/{a}-{b}", "element")
            c.op(name, c.uniform([2, 4], left, 2, a), c.uniform([4], low, high, b))
            yield c.line(orders=0)
        for k, kind in enumerate(VIEWS):
            c = Case(f"{name}/{kind}")
            x, y = c.uniform([4, 3], left, 2), c.uniform([4, 3], low, high)
            a = view(c, x, kind if kind != "padded" or name != "pow" else "flipped")
            b = view(c, y, kind if kind != "padded" else "flipped")
            if c.shape(a) != c.shape(b):
                b = c.op("slice", b, [0, 1])
                a = c.op("narrow", a, 1, 0, c.shape(b)[1])
            c.op(name, a, b)
            yield c.line(orders=1)
        c = Case(f"{name}/empty", "element")
        c.op(name, c.uniform([0, 3], left, 2), c.uniform([3], low, high))
        yield c.line(orders=1)
        values = [0.0, -0.0, 1, -1, INF, -INF, NAN, 0.5, -2, 3.4028235e38, 1.17549435e-38, 7]
        if name == "pow":
            values[9] = 3e38  # exp(y log x) is not exact, and must not overflow for that
        c = Case(f"{name}/special", "element")
        n = len(values)
        c.op(name, c.literal([n, 1], values), c.literal([n], values))
        # C has (-inf)^0.5 = inf; ours is NaN, as of any x < 0 to what is not whole
        odd = [i * n + j for i, x in enumerate(values) for j, y in enumerate(values) if x == -INF and math.isfinite(y) and y != int(y)]
        yield c.line(orders=0, any_at={(0, 0): sampled(odd, n * n)} if name == "pow" else None)
        yield from integers(name)


def sampled(at, n):
    """Where stored elements are among all."""
    return [i for i, position in enumerate(positions(n)) if position in at]


def text_id(v):
    return str(v).replace("-", "minus-").replace(".", "p")


I32 = [0, 1, -1, 2, -3, 7, 46341, -46341, 2**31 - 1, -(2**31)]
U32 = [0, 1, 2, 3, 7, 65536, 2**31, 2**32 - 1]


def integers(name):
    if name == "logAddExp":
        return
    for dtype, values in (("i32", I32), ("u32", U32)):
        if name != "pow":
            c = Case(f"{name}/{dtype}")
            c.op(name, c.literal([len(values), 1], values, dtype), c.literal([len(values)], values, dtype))
            yield c.line(orders=0)
        c = Case(f"{name}/{dtype}-number")
        c.op(name, c.literal([len(values)], values, dtype), 3)
        yield c.line(orders=0)


def nan_cases():
    """NaN that is given, and NaN that comes about. (x - x is 0 to compilers that believe in no infinities, as WGSL lets them.)"""
    values = [0.0, -0.0, 1, INF, -INF, NAN, 3e38, -3e38, 1e-40]
    for k, dtype in enumerate(("f32", "f16", "bf16")):
        c = Case(f"isNaN/{dtype}")
        c.op("isNaN", c.literal([9], values, dtype))
        yield c.line(orders=0)
    for name in ("log", "sqrt", "sin", "reciprocal", "tanh"):
        c = Case(f"isNaN/of-{name}")
        c.op("isNaN", c.op(name, c.literal([8], [0.0, -0.0, 1, INF, -INF, NAN, 2, -2])))
        yield c.line(orders=0)
    for name in ("sub", "mul", "div", "mod", "maximum"):
        c = Case(f"isNaN/of-{name}")
        x, y = c.literal([7], [INF, -INF, 0, NAN, 1, INF, 2]), c.literal([7], [INF, -INF, 0, 1, NAN, 0, 2])
        c.op("isNaN", c.op(name, x, y))
        yield c.line(orders=0)
    for kind in VIEWS:
        c = Case(f"isNaN/{kind}")
        c.op("isNaN", view(c, c.literal([3, 3], values[:6] + [NAN, 1, NAN]), kind))
        yield c.line(orders=0)
    c = Case("isNaN/chooses")
    x = c.literal([4], [NAN, 1, 2, NAN])
    c.op("where", c.op("isNaN", x), 0, c.op("square", x))
    yield c.line(orders=1)


def comparison_cases():
    values = [0.0, -0.0, 1, -1, INF, -INF, NAN, 0.5, 3.4028235e38, 1e-8]
    for name in COMPARE:
        c = Case(f"{name}/special")
        c.op(name, c.literal([len(values), 1], values), c.literal([len(values)], values))
        yield c.line(orders=0)
        for dtype, edge in (("i32", I32), ("u32", U32)):
            c = Case(f"{name}/{dtype}")
            c.op(name, c.literal([len(edge), 1], edge, dtype), c.literal([len(edge)], edge, dtype))
            yield c.line(orders=0)
        for k, (a, b) in enumerate(BROADCASTS[:4]):
            c = Case(f"{name}/broadcast-{k}")
            x, y = c.uniform(a, 0, 4, "i32"), c.uniform(b, 0, 4, "i32")
            c.op(name, c.op("cast", x, "f32"), c.op("cast", y, "f32"))
            yield c.line(orders=0)
        for number in (0, 1, -0.5):
            c = Case(f"{name}/number-{text_id(number)}")
            c.op(name, c.literal([6], [0, 1, -0.5, NAN, 2, -3]), number)
            yield c.line(orders=0)
        c = Case(f"{name}/half")
        c.op(name, c.uniform([3, 4], -1, 1, "f16"), c.uniform([4], -1, 1, "bf16"))
        yield c.line(orders=0)
        c = Case(f"{name}/empty")
        c.op(name, c.uniform([3, 0]), c.uniform([1]))
        yield c.line(orders=0)
        c = Case(f"{name}/selects")
        x, y = c.uniform([3, 4]), c.uniform([4])
        c.op("where", c.op(name, x, y), c.op("mul", x, y), c.op("sin", y))
        yield c.line(orders=2)
    for dtype in ("bool",):
        for name in ("eq", "ne"):
            c = Case(f"{name}/bool")
            c.op(name, c.literal([2, 1], [0, 1], dtype), c.literal([2], [0, 1], dtype))
            yield c.line(orders=0)


def logic_cases():
    for name in ("and", "or", "xor"):
        for k, (a, b) in enumerate(BROADCASTS):
            c = Case(f"{name}/bool-{k}")
            c.op(name, c.uniform(a, 0, 2, "bool"), c.uniform(b, 0, 2, "bool"))
            yield c.line(orders=0)
        for dtype, edge in (("i32", I32), ("u32", U32)):
            c = Case(f"{name}/{dtype}")
            c.op(name, c.literal([len(edge), 1], edge, dtype), c.literal([len(edge)], edge, dtype))
            yield c.line(orders=0)
            c = Case(f"{name}/{dtype}-number")
            c.op(name, c.literal([len(edge)], edge, dtype), 6)
            yield c.line(orders=0)
        c = Case(f"{name}/view")
        x = c.uniform([3, 4], 0, 2, "bool")
        c.op(name, c.op("flip", x, [0, 1]), x)
        yield c.line(orders=0)
        c = Case(f"{name}/empty")
        c.op(name, c.uniform([0], 0, 2, "bool"), c.uniform([1], 0, 2, "bool"))
        yield c.line(orders=0)
    for k, shape in enumerate(SHAPES + [[0], [2, 0], [65]]):
        c = Case(f"not/{k}")
        c.op("not", c.uniform(shape, 0, 2, "bool"))
        yield c.line(orders=0)
    for k, kind in enumerate(VIEWS):
        c = Case(f"not/{kind}")
        c.op("not", view(c, c.uniform([4, 3], 0, 2, "bool"), kind))
        yield c.line(orders=0)


def choice_cases():
    triples = [([2, 3], [2, 3], [2, 3]), ([3], [2, 3], []), ([2, 1], [3], [1, 1]), ([], [4], [4]), ([4, 1, 2], [3, 1], [2]), ([0, 2], [2], [])]
    for k, (s, a, b) in enumerate(triples):
        c = Case(f"where/broadcast-{k}", "element")
        c.op("where", c.uniform(s, 0, 2, "bool"), c.uniform(a), c.uniform(b))
        yield c.line(orders=2)
    for k, (a, b) in enumerate(((1.5, None), (None, -0.25), (None, 0))):
        c = Case(f"where/number-{k}", "element")
        s, x = c.uniform([2, 3], 0, 2, "bool"), c.uniform([3])
        c.op("where", s, x if a is None else a, x if b is None else b)
        yield c.line(orders=1)
    for dtype, edge in (("i32", I32), ("u32", U32), ("f16", [0, 1, INF, NAN, -2]), ("bf16", [0, 1, INF, NAN, -2])):
        c = Case(f"where/{dtype}")
        n = len(edge)
        s, x = c.uniform([2, n], 0, 2, "bool"), c.literal([n], edge, dtype)
        c.op("where", s, x, c.op("flip", x, [0]))
        yield c.line(orders=0)
    values = [0.0, -0.0, INF, -INF, NAN, 3e38, 1]
    c = Case("where/special", "element")
    c.op("where", c.literal([2, 1], [0, 1], "bool"), c.literal([7], values), 5)
    yield c.line(orders=1)
    # the branch that is not taken must not poison the gradient of the one that is
    for k, inner in enumerate(("log", "sqrt", "reciprocal")):
        c = Case(f"where/untaken-{k}", "element")
        x = c.literal([4], [-1, 2, 0.5, 3])
        safe = c.op("where", c.op("gt", x, 0), x, 1)
        c.op("where", c.op("gt", x, 0), c.op(inner, safe), 0)
        yield c.line(orders=2)
    bounds = [(-1, 1), (0, None), (None, 0.5), (-0.25, 0.25), (1, 1)]
    for k, (low, high) in enumerate(bounds):
        c = Case(f"clamp/{k}", "element")
        c.op("clamp", c.literal([12], [0, -0.0, 1, -1, 0.25, -0.25, 0.5, 0.1, -3, 3, 0.7, -0.6]), low, high)
        yield c.line(orders=0 if (low, high) == (1, 1) else 2)
        c = Case(f"clamp/special-{k}", "element")
        c.op("clamp", c.literal([7], values), low, high)
        yield c.line(orders=0)
        c = Case(f"clamp/half-{k}", "element")
        c.op("clamp", c.uniform([2, 5], -2, 2, "bf16" if k % 2 else "f16"), low, high)
        yield c.line(orders=0)
    for k, kind in enumerate(VIEWS):
        c = Case(f"clamp/{kind}")
        c.op("clamp", view(c, c.uniform([4, 3]), kind), -0.7, 0.8)
        yield c.line(orders=1)
    for dtype, edge in (("i32", I32), ("u32", U32)):
        c = Case(f"clamp/{dtype}")
        c.op("clamp", c.literal([len(edge)], edge, dtype), 1, 5)
        yield c.line(orders=0)
    for k, shape in enumerate(SHAPES[:4]):
        c = Case(f"detach/{k}", "element")
        x = c.uniform(shape)
        c.op("mul", c.op("detach", c.op("sin", x)), x)
        yield c.line(orders=2)
    for k, kind in enumerate(VIEWS):
        c = Case(f"detach/{kind}")
        x = view(c, c.uniform([4, 3]), kind)
        c.op("mul", c.op("sub", x, c.op("detach", c.op("square", x))), x)
        yield c.line(orders=1)
    for dtype, edge in (("i32", I32), ("f16", [1, 2, INF]), ("bool", [0, 1])):
        c = Case(f"detach/{dtype}")
        c.op("detach", c.literal([len(edge)], edge, dtype))
        yield c.line(orders=0)


FLOAT_EDGE = [
    0.0, -0.0, 0.5, -0.5, 0.999, -0.999, 1.5, -1.5, 2.5, 255.9, -1, 65504, 65519, 65520, 1e-8, -6e-8, 2147483520, 2147483648, -2147483648, 4294967040, 4294967296,
    3e9, -3e9, 1e20, -1e20, 3.3895314e38, 3.4e38, INF, -INF, NAN, 16777217, 1.00048828, 1.00390625,
]  # fmt: skip
TYPES = ("f32", "f16", "bf16", "i32", "u32", "bool")


def cast_cases():
    edges = {"f32": FLOAT_EDGE, "f16": [0, -0.0, 1.5, -2.7, 65504, -65504, INF, -INF, NAN, 6e-8, 0.1], "bf16": [0, 1.5, -2.7, 3e38, -3e9, INF, -INF, NAN, 1e-30, 0.1], "i32": I32 + [16777217, 2049], "u32": U32 + [16777217, 2049], "bool": [0, 1]}  # fmt: skip
    for a in TYPES:
        for b in TYPES:
            c = Case(f"cast/{a}-{b}", "element")
            c.op("cast", c.literal([len(edges[a])], edges[a], a), b)
            yield c.line(orders=0)
            c = Case(f"cast/{a}-{b}-view")
            x = c.uniform([3, 4], 0, 9, a)
            c.op("cast", c.op("flip", c.op("transpose", x), [0]), b)
            yield c.line(orders=0)
    for k, to in enumerate(("f16", "bf16", "f32")):
        c = Case(f"cast/gradient-{to}")
        x = c.uniform([2, 3])
        c.op("mul", c.op("cast", x, to), x)
        yield c.line(orders=1)
    for a in ("f16", "bf16"):
        c = Case(f"cast/gradient-from-{a}")
        x = c.uniform([2, 3], -2, 2, a)
        c.op("square", c.op("cast", x, "f32"))
        yield c.line(orders=2)
    for name in ("sin", "exp", "square", "tanh"):
        c = Case(f"cast/f64-{name}")
        x = c.uniform([2, 3])
        c.op(name, c.op("cast", x, "f64"))
        yield c.line(orders=2)
    c = Case("cast/f64-input")
    c.op("mul", c.uniform([2, 3], -2, 2, "f64"), c.uniform([3], -2, 2, "f32"))
    yield c.line(orders=2)
    c = Case("cast/empty")
    c.op("cast", c.uniform([0, 2]), "i32")
    yield c.line(orders=0)


def cases():
    yield from unary_cases()
    yield from binary_cases()
    yield from comparison_cases()
    yield from logic_cases()
    yield from nan_cases()
    yield from choice_cases()
    yield from cast_cases()
