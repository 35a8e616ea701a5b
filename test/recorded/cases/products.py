"""Products, look-ups, convolutions: vectors, batches that broadcast, nothing to sum over, indices out of range, views."""
import math

from record import Case

INF, NAN = math.inf, math.nan
MATMULS = [
    ([2, 3], [3, 4]), ([1, 1], [1, 1]), ([5, 7], [7, 3]), ([3], [3]), ([3], [3, 4]), ([2, 3], [3]), ([1], [1]), ([2, 2, 3], [3]), ([3], [2, 3, 4]),
    ([2, 3, 4], [4, 2]), ([2, 3, 4], [2, 4, 2]), ([2, 1, 3, 2], [4, 2, 3]), ([3, 2], [2, 2, 4]), ([1, 3, 2], [4, 2, 1]), ([2, 2, 2, 3], [3, 2]), ([17, 33], [33, 9]), ([4, 65], [65, 5]),
    ([2, 0], [0, 3]), ([0, 3], [3, 2]), ([2, 3], [3, 0]), ([0], [0]), ([0, 2, 3], [3, 2]), ([2, 2, 0], [2, 0, 3]), ([2, 3, 2, 2], [1, 2, 2]), ([40, 40], [40, 40]), ([1, 300], [300, 1]), ([4, 1], [1, 5]),
]  # fmt: skip


def matmul_cases():
    for k, (a, b) in enumerate(MATMULS):
        c = Case(f"matmul/{k}")
        c.op("matmul", c.uniform(a), c.uniform(b))
        yield c.line(orders=2 if math.prod(a) < 60 and math.prod(b) < 60 else 1)
        if math.prod(a) < 60 and len(a) > 1 and len(b) > 1 and math.prod(a) * math.prod(b) > 0:
            c = Case(f"matmul/transposed-{k}")
            x, y = c.uniform(a[:-2] + [a[-1], a[-2]]), c.uniform(b[:-2] + [b[-1], b[-2]])
            c.op("matmul", c.op("transpose", x), c.op("transpose", y))
            yield c.line(orders=1)
            c = Case(f"matmul/fused-{k}")
            x, y = c.uniform(a), c.uniform(b)
            z = c.op("matmul", c.op("flip", x, [len(a) - 1]), y)
            c.op("tanh", c.op("add", c.op("mul", z, 0.5), 0.25))
            yield c.line(orders=2)
    for k, (a, b) in enumerate((("f16", "f16"), ("bf16", "bf16"), ("f16", "f32"), ("f32", "bf16"), ("f16", "bf16"))):
        c = Case(f"matmul/{a}-{b}")
        c.op("matmul", c.uniform([4, 6], -2, 2, a), c.uniform([6, 5], -2, 2, b))
        yield c.line(orders=1)
    for k in range(8):
        c = Case(f"matmul/chain-{k}")
        n = [c.random.randint(1, 6) for _ in range(4)]
        x, y, z = c.uniform([n[0], n[1]]), c.uniform([n[1], n[2]]), c.uniform([n[2], n[3]])
        c.op("matmul", c.op("sin", c.op("matmul", x, y)), z)
        yield c.line(orders=2)
    c = Case("matmul/special", "element")
    c.op("matmul", c.literal([3, 2], [1, INF, NAN, 1, 0, 2]), c.literal([2, 3], [1, 2, 0, 3, -1, 1]))
    yield c.line(orders=0)
    c = Case("matmul/large-values")
    c.op("matmul", c.uniform([3, 20], -1e15, 1e15), c.uniform([20, 4], -1e15, 1e15))
    yield c.line(orders=1)
    c = Case("matmul/self")
    x = c.uniform([4, 4])
    c.op("matmul", x, c.op("matmul", c.op("transpose", x), x))
    yield c.line(orders=2)


EINSUMS = [
    "ij,jk->ik", "ij,kj->ki", "bij,bjk->bik", "bqhd,bkhd->bhqk", "i,j->ij", "ij->ji", "ij->i", "ij->", "ij,ij->", "ij,j,jk->ik", "abc,cd->dab", "ij,ik->jk", "i,i->i", "i,i->", "bi,ij,bj->b",
    "ij,ij->ij", "ij,j->ij", "i,ij,j->", "abc->cab", "ab,cd->abcd", "ab,cd->cadb", "abcd,bd->ac", "a,b,c->abc",
    "ii->i", "ii->", "iij->ij", "iij->j", "ii,ij->j", "iji->j", "aabb->ab", "ij,ii->j", "...ij,...jk->...ik", "...i->...", "...i,i->...", "i...,i...->...", "...->...", "b...,b->b...",
    "...ij->...ji", "...ij,jk->...ik", "a...b,b...c->a...c", "...ii->...i", "i...->i",
]  # fmt: skip


def einsum_cases():
    for k, spec in enumerate(EINSUMS):
        for j in range(2):
            c = Case(f"einsum/{k}-{j}")
            sizes = {label: c.random.randint(2 if j == 0 else 1, 4) for label in "abcdhijkq"}
            dots = [c.random.randint(1, 3) for _ in range(c.random.randint(0, 2))]
            terms = spec.split("->")[0].split(",")
            shapes = []
            for n, term in enumerate(terms):
                one = dots if n == 0 or j == 0 else [1 if c.random.random() < 0.4 else d for d in dots]
                before, _, after = term.partition("...")
                shapes.append([sizes[x] for x in before] + (one if "..." in term else []) + [sizes[x] for x in after])
            c.op("einsum", spec, *[c.uniform(s) for s in shapes])
            yield c.line(orders=2)
    for spec, shapes in (("ij,jk->ik", ([2, 0], [0, 3])), ("ij->i", ([3, 0],)), ("i,j->ij", ([0], [2]))):
        c = Case(f"einsum/empty-{spec.replace(',', '-').replace('->', '-to-')}")
        c.op("einsum", spec, *[c.uniform(s) for s in shapes])
        yield c.line(orders=1)
    for spec in ("ij,jk", "ba", "ij,ji", "ii", "...ij,...jk"):
        c = Case(f"einsum/implicit-{spec.replace(',', '-').replace('...', 'dots-')}")
        c.op("einsum", spec, *[c.uniform([3, 3]) for _ in spec.split(",")])
        yield c.line(orders=1)


def index_shape(c, shape, axis):
    return [c.random.randint(1, 4) if i == axis else c.random.randint(1, n) for i, n in enumerate(shape)]


def index_cases():
    for k in range(14):
        c = Case(f"take/{k}")
        r = c.random
        shape = [r.randint(1, 5) for _ in range(r.randint(1, 3))]
        x = c.uniform(shape, -2, 2, ("f32", "f32", "f16", "bf16", "f32")[k % 5])
        i = c.indices([r.randint(1, 4) for _ in range(r.randint(0, 2))], 0, shape[0], "u32" if k % 4 == 3 else "i32")
        y = c.op("take", x, i)
        yield c.line(c.op("sin", y) if k % 2 else y, orders=2 if k % 2 else 1)
        for name in ("gather", "scatterAdd"):
            c = Case(f"{name}/{k}")
            r = c.random
            shape = [r.randint(1, 5) for _ in range(r.randint(1, 3))]
            axis = r.randrange(len(shape))
            indexed = index_shape(c, shape, axis)
            given = axis - len(shape) if k % 3 == 2 else axis
            x, i = c.uniform(shape, -2, 2, ("f32", "f32", "f16", "bf16", "f32")[k % 5]), c.indices(indexed, 0, shape[axis])
            y = c.op(name, x, given, i, *[c.uniform(indexed) for _ in ("values",) if name == "scatterAdd"])
            yield c.line(c.op("sin", y) if k % 2 else y, orders=2 if k % 2 else 1)
        c = Case(f"oneHot/{k}")
        depth, dtype = c.random.randint(1, 9), ("f32", "i32", "bool", "u32")[k % 4]
        c.op("oneHot", c.indices([[3], [], [2, 2], [0], [1, 5]][k % 5], -1, depth + 1), depth, dtype)
        yield c.line(orders=0)
    for dtype in ("i32", "u32", "f32"):
        c = Case(f"take/out-of-range-{dtype}")
        c.op("take", c.uniform([4, 2], 0, 9, dtype), c.literal([7], [0, -1, 3, 4, 2**31 - 1, -(2**31), 1], "i32"))
        yield c.line(orders=0)
        c = Case(f"gather/out-of-range-{dtype}")
        c.op("gather", c.uniform([2, 3], 0, 9, dtype), 1, c.literal([2, 4], [0, -1, 2, 3, 1, 99, -3, 0], "i32"))
        yield c.line(orders=0)
    c = Case("take/same-row-often")
    c.op("square", c.op("take", c.uniform([3, 4]), c.literal([9], [1, 1, 1, 0, 1, 1, 1, 1, 1], "i32")))
    yield c.line(orders=2)
    c = Case("scatterAdd/out-of-range")
    c.op("scatterAdd", c.uniform([2, 3]), 1, c.literal([2, 4], [0, -1, 2, 3, 1, 99, -3, 0], "i32"), c.uniform([2, 4]))
    yield c.line(orders=1)
    c = Case("scatterAdd/same-place-often")
    c.op("scatterAdd", c.uniform([4]), 0, c.literal([40], [i % 3 for i in range(40)], "i32"), c.uniform([40]))
    yield c.line(orders=1)
    c = Case("scatterAdd/i32")
    c.op("scatterAdd", c.literal([3], [2**31 - 1, 0, 5], "i32"), 0, c.literal([4], [0, 1, 1, 2], "i32"), c.literal([4], [1, 7, -9, 3], "i32"))
    yield c.line(orders=0)
    for name in ("take", "gather"):
        c = Case(f"{name}/special", "element")
        x = c.literal([4], [NAN, INF, -0.0, 2])
        i = c.literal([6], [3, 2, 1, 0, 3, 2], "i32")
        c.op(name, x, *([0] if name == "gather" else []), i)
        yield c.line(orders=0)


def image_cases():
    for k in range(18):
        c = Case(f"conv2d/{k}")
        r = c.random
        n, ci, co = r.randint(1, 2), r.randint(1, 3), r.randint(1, 3)
        kh, kw = r.randint(1, 3), r.randint(1, 3)
        options = {"stride": r.randint(1, 3), "padding": r.randint(0, 2)}
        x, w = c.uniform([n, ci, kh + r.randint(0, 3), kw + r.randint(0, 3)]), c.uniform([co, ci, kh, kw])
        y = c.op("conv2d", x, w, *([options] if k else []))
        yield c.line(c.op("tanh", y) if k % 3 == 1 else y, orders=2 if k % 3 == 1 else 1)
    for name in ("maxPool2d", "avgPool2d"):
        for k in range(14):
            c = Case(f"{name}/{k}")
            r = c.random
            size = r.randint(1, 3)
            x = c.distinct([r.randint(1, 2), r.randint(1, 2), size + r.randint(0, 3), size + r.randint(0, 4)])
            y = c.op(name, x, size, *([r.randint(1, 3)] if k % 2 else []))
            yield c.line(c.op("sin", y) if k % 3 == 1 else y, orders=2 if k % 3 == 1 else 1)
        c = Case(f"{name}/special", "element")
        c.op(name, c.literal([1, 1, 4, 4], [NAN, 1, 2, 3, 4, 5, 6, 7, INF, 1, -INF, -INF, 2, 3, -INF, -INF]), 2)
        yield c.line(orders=0)


def cases():
    yield from matmul_cases()
    yield from einsum_cases()
    yield from index_cases()
    yield from image_cases()
