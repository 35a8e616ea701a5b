"""Reductions and what is composed of them: axes, empty axes, ties, special values, every type, views as operands."""
import math

from cases.elementwise import VIEWS, view
from record import Case

INF, NAN = math.inf, math.nan
ALL = "#none"
SETS = [
    ([2, 3], ALL, False), ([2, 3], [0], False), ([2, 3], [1], True), ([2, 3, 4], [0, 2], False), ([2, 3, 4], -1, False),
    ([3, 2, 2], [1, 2], True), ([5], ALL, True), ([], ALL, False), ([1, 4], [0], False), ([2, 1, 3, 2], [1, 3], False), ([17, 9], 0, False), ([7, 67], 1, False), ([700], ALL, False),
]  # fmt: skip
EMPTY = [([0, 3], [0], False), ([2, 0, 3], ALL, False), ([2, 0], [1], True), ([0, 3], [1], False)]
FOLDS = ("sum", "prod", "max", "min", "mean", "variance", "logSumExp")


def options(keep, **more):
    return ({"keepdims": True} if keep else {}) | more


def values(c, name, shape):
    if name in ("max", "min"):
        return c.distinct(shape)
    if name == "prod":
        return c.uniform(shape, 0.8, 1.2) if math.prod(shape) > 30 else c.uniform(shape, -2, 2)
    return c.uniform(shape)


def fold_cases():
    for name in FOLDS:
        for k, (shape, axes, keep) in enumerate(SETS):
            c = Case(f"{name}/axes-{k}")
            x = values(c, name, shape)
            c.op(name, x, axes, options(keep))
            yield c.line(orders=2 if math.prod(shape) < 60 else 1)
        for k, kind in enumerate(VIEWS):
            c = Case(f"{name}/{kind}")
            x = view(c, values(c, name, [4, 3]), kind)
            if name in ("max", "min") and kind in ("padded", "expanded"):
                x = c.op("add", x, c.op("mul", c.op("cast", c.op("iota", c.shape(x), len(c.shape(x)) - 1), "f32"), 0.01))
            c.op(name, x, [0] if kind != "expanded" else [1], {})
            yield c.line(orders=1)
        for dtype in ("f16", "bf16"):
            c = Case(f"{name}/{dtype}")
            c.op(name, c.uniform([3, 5], -2, 2, dtype), 1)
            yield c.line(orders=1 if name not in ("max", "min") else 0)
        if name in ("sum", "prod", "max", "min"):
            for k, (shape, axes, keep) in enumerate(EMPTY):
                c = Case(f"{name}/empty-{k}")
                c.op(name, c.uniform(shape), axes, options(keep))
                yield c.line(orders=1 if name == "sum" else 0)
            for dtype, edge in (("i32", [0, 1, -1, 7, 2**31 - 1, -(2**31)]), ("u32", [0, 1, 7, 3, 2**31, 2**32 - 1])):
                c = Case(f"{name}/{dtype}")
                c.op(name, c.literal([2, 3], edge, dtype), 1)
                yield c.line(orders=0)
                c = Case(f"{name}/{dtype}-all")
                c.op(name, c.uniform([5, 13], 1, 90, dtype))
                yield c.line(orders=0)
        yield from special(name)


ROWS = [
    [1, 2, NAN], [NAN, 5, -1], [INF, 1, 2], [-INF, 1, 2], [INF, -INF, 0], [-INF, -INF, -INF], [INF, INF, 3], [NAN, NAN, NAN], [0, -0.0, 0],
    [3e38, 3e38, 1], [-3e38, -3e38, 1], [1e-30, 1e-30, 1e-30], [100, 100, -100], [5, 5, 5], [-1000, -1001, -1002],
]  # fmt: skip


def special(name):
    by = "tensor" if name == "variance" else "element"
    c = Case(f"{name}/special", by)
    x = c.literal([len(ROWS), 3], [v for row in ROWS for v in row])
    c.op(name, x, 1)
    yield c.line(orders=0)
    c = Case(f"{name}/special-columns", by)
    x = c.literal([len(ROWS), 3], [v for row in ROWS for v in row])
    c.op(name, c.op("transpose", x), 0)
    yield c.line(orders=0)


def more_cases():
    # equal extremes share the gradient evenly
    for name in ("max", "min"):
        for k, row in enumerate(([1, 1, 0], [2, 2, 2, 2], [0, -0.0, 0], [-1, 3, 3, -1])):
            c = Case(f"{name}/ties-{k}")
            c.op(name, c.literal([len(row)], row))
            yield c.line(orders=1)
        c = Case(f"{name}/long-nan")
        c.op(name, c.literal([300], [NAN if i == 211 else float(i % 50) for i in range(300)]))
        yield c.line(orders=0)
    for k, correction in enumerate((0, 1, 2)):
        for shape, axes in (([3, 5], 1), ([4, 4], ALL), ([6, 2], [0])):
            c = Case(f"variance/correction-{k}-{'x'.join(map(str, shape))}")
            c.op("variance", c.uniform(shape), axes, {"correction": correction})
            yield c.line(orders=2)
    c = Case("variance/far-from-zero")
    c.op("variance", c.uniform([3, 40], 1000, 1001), 1)
    yield c.line(orders=1)
    for k, (low, high) in enumerate(((-100, 100), (-1e4, 1e4), (80, 95), (-95, -80))):
        c = Case(f"logSumExp/range-{k}", "element")
        c.op("logSumExp", c.uniform([3, 6], low, high), 1)
        yield c.line(orders=1)
    c = Case("mean/nothing")
    c.op("mean", c.uniform([2, 0, 3]), [1])
    yield c.line(orders=0)
    c = Case("mean/nothing-at-all")
    c.op("mean", c.uniform([0]))
    yield c.line(orders=0)
    c = Case("mean/huge")
    c.op("mean", c.literal([2, 2], [1e38, 1e38, -2e38, 1e38]), 1)
    yield c.line(orders=1)
    # products with zeros among the factors: the gradient is the product of the others
    for k, row in enumerate(([0, 2, 3], [0, 0, 3], [1, -2, 0.5, 4])):
        c = Case(f"prod/zeros-{k}")
        c.op("prod", c.literal([len(row)], row))
        yield c.line(orders=1)


def position_cases():
    shapes = [([5], 0), ([3, 4], 1), ([3, 4], 0), ([2, 3, 4], -2), ([1, 7], -1), ([9, 33], 1), ([130], 0)]
    for name in ("argmax", "argmin"):
        for k, (shape, axis) in enumerate(shapes):
            c = Case(f"{name}/{k}")
            c.op(name, c.uniform(shape), axis, options(k % 2 == 1))
            yield c.line(orders=0)
            c = Case(f"{name}/ties-{k}")
            c.op(name, c.op("cast", c.uniform(shape, 0, 3, "i32"), "f32"), axis)
            yield c.line(orders=0)
        for dtype, edge in (("i32", [0, 7, -1, 7, 2**31 - 1, -(2**31)]), ("u32", [0, 7, 7, 3, 2**31, 2**32 - 1]), ("f16", [1, 2, 2, 0, 0, 5]), ("bf16", [1, 2, 2, 0, 0, 5])):  # fmt: skip
            c = Case(f"{name}/{dtype}")
            c.op(name, c.literal([2, 3], edge, dtype), 1)
            yield c.line(orders=0)
        yield from special(name)
        for kind in VIEWS:
            c = Case(f"{name}/{kind}")
            c.op(name, view(c, c.uniform([4, 3]), kind), -1)
            yield c.line(orders=0)


def softmax_cases():
    shapes = [([5], 0), ([3, 4], 1), ([3, 4], 0), ([2, 3, 4], -2), ([1, 7], -1), ([6, 1], -1), ([3, 65], 1), ([2, 0], 0)]
    for name in ("softmax", "logSoftmax", "cumsum"):
        for k, (shape, axis) in enumerate(shapes):
            c = Case(f"{name}/{k}")
            c.op(name, c.uniform(shape), axis)
            yield c.line(orders=2 if math.prod(shape) < 60 else 1)
        for kind in VIEWS:
            c = Case(f"{name}/{kind}")
            c.op(name, view(c, c.uniform([4, 3]), kind), -1)
            yield c.line(orders=1)
        for dtype in ("f16", "bf16"):
            c = Case(f"{name}/{dtype}")
            c.op(name, c.uniform([3, 5], -2, 2, dtype), 1)
            yield c.line(orders=1)
        if name == "cumsum":
            for dtype in ("i32", "u32"):
                c = Case(f"{name}/{dtype}")
                c.op(name, c.uniform([3, 6], 0, 2**29, dtype), 1)
                yield c.line(orders=0)
        else:
            yield from special(name)
            for k, (low, high) in enumerate(((-100, 100), (-1e4, 1e4), (-1e-3, 1e-3), (1e4, 10001))):
                c = Case(f"{name}/range-{k}", "element" if name == "logSoftmax" else "tensor")
                c.op(name, c.uniform([3, 6], low, high), 1)
                yield c.line(orders=1)
            c = Case(f"{name}/masked")
            c.op(name, c.literal([3, 4], [1, 2, -INF, 0.5, -INF, -INF, 3, -INF, 0, 0, 0, -INF]), 1)
            yield c.line(orders=0)
            c = Case(f"{name}/masked-finite")
            c.op(name, c.literal([3, 4], [1, 2, -1e30, 0.5, -1e30, -1e30, 3, -1e30, 0, 0, 0, -1e30]), 1)
            yield c.line(orders=1)


def cases():
    yield from fold_cases()
    yield from more_cases()
    yield from position_cases()
    yield from softmax_cases()
