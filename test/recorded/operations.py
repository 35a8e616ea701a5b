"""Every operation in PyTorch. Where the product's meaning is its own (wrapping integers, saturating casts, indices out of
range, reductions of nothing), its specification is written out here instead."""
import math

import torch
import torch.nn.functional as F

from values import f32

HALF = ("f16", "bf16")


class Value:
    """A tensor of one of our types. Floats are held in the precision of the run, integers in int64."""

    def __init__(self, t, dtype):
        self.t, self.dtype = t, dtype

    @property
    def shape(self):
        return list(self.t.shape)


class Run:
    """The precision that f32 is computed in: float64 for what is right, float32 for PyTorch's own error."""

    def __init__(self, precision):
        self.precision = precision

    def held(self, dtype):
        if dtype == "f64":
            return torch.float64
        if dtype in ("i32", "u32"):
            return torch.int64
        return torch.bool if dtype == "bool" else self.precision


def compute(dtype):
    return "f32" if dtype in HALF else dtype


def is_float(dtype):
    return dtype in ("f32", "f16", "bf16", "f64")


def wrap(t, dtype):
    if dtype == "u32":
        return t & 0xFFFFFFFF
    return ((t + 2**31) & 0xFFFFFFFF) - 2**31 if dtype == "i32" else t


def common(a, b):
    x, y = compute(a), compute(b)
    return x if x == y else "f64"


def operand(run, x, like):
    """A number becomes one of the other operand's type."""
    if isinstance(x, Value):
        return x
    dtype = compute(like.dtype)
    return Value(torch.tensor(f32(x) if dtype == "f32" else x, dtype=run.held(dtype)), dtype)


def pair(run, a, b):
    x, y = operand(run, a, b), operand(run, b, a)
    dtype = common(x.dtype, y.dtype)
    held = run.held(dtype)
    return x.t.to(held), y.t.to(held), dtype


def unary(f):
    return lambda run, x: Value(wrap(f(x.t), compute(x.dtype)), compute(x.dtype))


def binary(f):
    def apply(run, a, b):
        x, y, dtype = pair(run, a, b)
        return Value(wrap(f(x, y), dtype), dtype)

    return apply


def comparison(f):
    def apply(run, a, b):
        x, y, _ = pair(run, a, b)
        return Value(f(x, y), "bool")

    return apply


def move(f):
    return lambda run, x, *args: Value(f(x.t, *args), x.dtype)


# --- elementwise


def divide(x, y):
    """Integers: towards zero, and 0 by zero."""
    if x.is_floating_point():
        return x / y
    quotient = torch.div(x, torch.where(y == 0, torch.ones_like(y), y), rounding_mode="trunc")
    return torch.where(y == 0, torch.zeros_like(x), quotient)


def remainder(x, y):
    if x.is_floating_point():
        return torch.fmod(x, y)
    return torch.where(y == 0, torch.zeros_like(x), torch.fmod(x, torch.where(y == 0, torch.ones_like(y), y)))


def power(run, x, y):
    if isinstance(y, Value):
        return binary(torch.pow)(run, x, y)
    return Value(wrap(x.t**y, compute(x.dtype)), compute(x.dtype))


def at_infinity(f):
    """f, which has the limits 0 at -inf and inf at inf, where PyTorch's formula has 0 · inf."""

    def apply(x):
        inner = f(torch.where(torch.isinf(x), torch.zeros_like(x), x))
        return torch.where(x == math.inf, x, torch.where(x == -math.inf, torch.zeros_like(x), inner))

    return apply


def tanh(x):
    """With a derivative that keeps its digits in float64, where 1 - y² cancels."""
    if x.dtype != torch.float64:
        return torch.tanh(x)
    e = torch.exp(-2 * x.abs())
    return torch.where(x.abs() > 1, torch.sign(x) * (1 - 2 * e / (1 + e)), torch.tanh(x))


def sigmoid(x):
    """The same, where y (1 - y) cancels."""
    if x.dtype != torch.float64:
        return torch.sigmoid(x)
    e = torch.exp(torch.where(x < 0, x, -x))
    return torch.where(x < 0, e / (1 + e), 1 / (1 + e))


def gelu(x, how):
    """The same, where 1 + erf and 1 + tanh cancel."""
    if x.dtype != torch.float64:
        return F.gelu(x, approximate=how)
    if how == "none":
        return x * 0.5 * torch.special.erfc(-x * math.sqrt(0.5))
    return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def sign(x):
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


def clamp(run, x, low, high=None):
    y = x.t
    if low is not None:
        y = torch.clamp(y, min=f32(low) if is_float(x.dtype) else low)
    if high is not None:
        y = torch.clamp(y, max=f32(high) if is_float(x.dtype) else high)
    return Value(y, compute(x.dtype))


def cast(run, x, to):
    """Float to integer: towards zero, saturating, 0 for NaN. To bool: != 0."""
    t = x.t
    if to == "bool":
        return Value(t != 0, to)
    if to in ("i32", "u32"):
        if is_float(x.dtype):
            low, high = (-(2**31), 2**31 - 1) if to == "i32" else (0, 2**32 - 1)
            t = torch.nan_to_num(t.to(torch.float64), nan=0.0).clamp(low, high).trunc().to(torch.int64)
        return Value(wrap(t.to(torch.int64), to), to)
    if to in HALF:
        half = torch.float16 if to == "f16" else torch.bfloat16
        # through f32, as every value of type f32 is one; the gradient passes as it is
        rounded = t.to(torch.float32).to(half).to(run.precision)
        return Value(t + (rounded - t).detach() if t.requires_grad else rounded, to)
    return Value(t.to(torch.float32).to(run.held(to)) if not is_float(x.dtype) and to != "f64" else t.to(run.held(to)), to)


def where(run, condition, a, b):
    like = next((v for v in (a, b) if isinstance(v, Value)), Value(torch.zeros((), dtype=run.held("f32")), "f32"))
    x, y, dtype = pair(run, operand(run, a, like), operand(run, b, like))
    return Value(torch.where(condition.t, x, y), dtype)


# --- reductions


def fold(f, cast_to=None):
    """f(t, axes, keepdims) over axes: one, several, or all."""

    def apply(run, x, axes=None, options=None):
        options = dict(options or {})
        keep = options.pop("keepdims", False)
        rank = x.t.dim()
        dims = list(range(rank)) if axes is None else [axes] if isinstance(axes, int) else list(axes)
        dims = sorted(d % rank for d in dims)
        dtype = compute(x.dtype)
        y = f(x.t, dims, **options) if dims else f(x.t[None], [0], **options)
        y = wrap(y, dtype)
        for d in dims if keep else []:
            y = y.unsqueeze(d)
        return Value(y, dtype)

    return apply


def product(t, dims):
    for d in reversed(dims):
        t = torch.prod(t, d)
        if not t.is_floating_point():
            t = ((t + 2**31) & 0xFFFFFFFF) - 2**31
    return t


def extreme(kind):
    def apply(t, dims):
        if any(t.shape[d] == 0 for d in dims):
            # over nothing: what the fold starts from
            shape = [n for i, n in enumerate(t.shape) if i not in dims]
            lowest = -math.inf if kind == "max" else math.inf
            return torch.full(shape, lowest, dtype=t.dtype) + t.sum() * 0
        return (torch.amax if kind == "max" else torch.amin)(t, dims)

    return apply


def variance(t, dims, correction=0):
    return torch.var(t, dims, correction=correction)


def arg(f):
    """The first NaN, if there is one; otherwise the first of the extremes."""

    def apply(run, x, axis=-1, options=None):
        t = x.t
        nan = torch.isnan(t) if t.is_floating_point() else torch.zeros_like(t, dtype=torch.bool)
        best = f(torch.where(nan, torch.zeros_like(t), t), axis, keepdim=True)
        hit = torch.where(nan.any(axis, keepdim=True), nan, t == best)
        index = torch.argmax(hit.to(torch.int8), axis, keepdim=bool((options or {}).get("keepdims")))
        return Value(index, "i32")

    return apply


def along(f):
    return lambda run, x, axis=-1: Value(wrap(f(x.t, axis), compute(x.dtype)), compute(x.dtype))


# --- movement


def slices(t, *ranges):
    key = []
    for i, n in enumerate(t.shape):
        r = ranges[i] if i < len(ranges) else None
        start, stop, step = (0, n, 1) if r is None else (*r, 1) if len(r) == 2 else tuple(r)
        key.append(slice(start + n if start < 0 else start, stop + n if stop < 0 else stop, step))
    return t[tuple(key)]


def pad(t, widths):
    flat = [w for pair_ in reversed(widths) for w in pair_]
    if t.numel() == 0:
        return torch.zeros([a + n + b for n, (a, b) in zip(t.shape, widths)], dtype=t.dtype)
    if t.dtype == torch.bool:
        return F.pad(t.to(torch.int64), flat).to(torch.bool)
    return F.pad(t, flat)


def split(run, x, sizes, axis=0):
    return [Value(t, x.dtype) for t in torch.split(x.t, sizes, axis)]


def join(f):
    return lambda run, xs, axis=0: Value(f([x.t for x in xs], axis), xs[0].dtype)


def slice_scatter(run, x, axis, start, values):
    return Value(torch.slice_scatter(x.t, values.t, axis, start, start + values.t.shape[axis]), x.dtype)


def triangle(f):
    return lambda run, x, diagonal=0: Value(f(x.t, diagonal), compute(x.dtype))


# --- products and indexing


def product_of(f):
    def apply(run, a, b):
        dtype = "f64" if "f64" in (a.dtype, b.dtype) else "f32"
        return Value(f(a.t.to(run.held(dtype)), b.t.to(run.held(dtype))), dtype)

    return apply


def einsum(run, spec, *xs):
    return Value(torch.einsum(spec, *[x.t for x in xs]), "f32")


def missing(t, hit):
    """NaN (0 for integers) where nothing was hit."""
    return torch.where(hit, t, torch.full_like(t, math.nan) if t.is_floating_point() else torch.zeros_like(t))


def take(run, x, index):
    n = x.t.shape[0]
    hit = (index.t >= 0) & (index.t < n)
    rows = x.t[torch.where(hit, index.t, torch.zeros_like(index.t))]
    return Value(missing(rows, hit.reshape(list(hit.shape) + [1] * (x.t.dim() - 1))), compute(x.dtype))


def gather(run, x, axis, index):
    hit = (index.t >= 0) & (index.t < x.t.shape[axis])
    found = torch.gather(x.t, axis, torch.where(hit, index.t, torch.zeros_like(index.t)))
    return Value(missing(found, hit), compute(x.dtype))


def scatter_add(run, x, axis, index, values):
    hit = (index.t >= 0) & (index.t < x.t.shape[axis])
    added = torch.where(hit, values.t, torch.zeros_like(values.t))
    sums = torch.scatter_add(x.t, axis, torch.where(hit, index.t, torch.zeros_like(index.t)), added)
    return Value(wrap(sums, compute(x.dtype)), compute(x.dtype))


def one_hot(run, index, depth, dtype="f32"):
    hit = index.t.unsqueeze(-1) == torch.arange(depth)
    return Value(hit.to(run.held(dtype)), dtype)


def conv2d(run, x, k, options=None):
    o = options or {}
    return Value(F.conv2d(x.t, k.t, stride=o.get("stride", 1), padding=o.get("padding", 0)), "f32")


def max_pool(run, x, size, stride=None):
    return Value(F.max_pool2d(x.t, size, stride), "f32")


def avg_pool(run, x, size, stride=None):
    return Value(F.avg_pool2d(x.t, size, stride), "f32")


# --- made of numbers


def full(run, shape, value, dtype="f32"):
    return Value(torch.full(shape, f32(value) if dtype == "f32" else value, dtype=run.held(dtype)), dtype)


def iota(run, shape, axis):
    view = [1] * len(shape)
    view[axis] = -1
    return Value(torch.arange(shape[axis]).reshape(view).expand(shape), "i32")


OPERATIONS = {
    "neg": unary(torch.neg),
    "exp": unary(torch.exp),
    "log": unary(torch.log),
    "log1p": unary(torch.log1p),
    "expm1": unary(torch.expm1),
    "sqrt": unary(torch.sqrt),
    "rsqrt": unary(torch.rsqrt),
    "reciprocal": unary(torch.reciprocal),
    "sin": unary(torch.sin),
    "cos": unary(torch.cos),
    "tanh": unary(tanh),
    "erf": unary(torch.erf),
    "floor": unary(torch.floor),
    "abs": unary(torch.abs),
    "square": unary(lambda x: x * x),
    "sign": unary(sign),
    "sigmoid": unary(sigmoid),
    "relu": unary(torch.relu),
    "silu": unary(at_infinity(lambda x: x * sigmoid(x))),
    "softplus": unary(lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "gelu": lambda run, x, how="none": unary(at_infinity(lambda t: gelu(t, how)))(run, x),
    "isNaN": lambda run, x: Value(torch.isnan(x.t), "bool"),
    "logAddExp": binary(torch.logaddexp),
    "not": lambda run, x: Value(torch.logical_not(x.t), "bool"),
    "add": binary(torch.add),
    "sub": binary(torch.sub),
    "mul": binary(torch.mul),
    "div": binary(divide),
    "mod": binary(remainder),
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "pow": power,
    "lt": comparison(torch.lt),
    "le": comparison(torch.le),
    "gt": comparison(torch.gt),
    "ge": comparison(torch.ge),
    "eq": comparison(torch.eq),
    "ne": comparison(torch.ne),
    "and": binary(torch.bitwise_and),
    "or": binary(torch.bitwise_or),
    "xor": binary(torch.bitwise_xor),
    "clamp": clamp,
    "cast": cast,
    "where": where,
    "detach": move(lambda t: t.detach()),
    "sum": fold(lambda t, dims: torch.sum(t, dims)),
    "prod": fold(product),
    "max": fold(extreme("max")),
    "min": fold(extreme("min")),
    "mean": fold(lambda t, dims: torch.mean(t, dims)),
    "variance": fold(variance),
    "logSumExp": fold(lambda t, dims: torch.logsumexp(t, dims)),
    "argmax": arg(torch.amax),
    "argmin": arg(torch.amin),
    "softmax": along(torch.softmax),
    "logSoftmax": along(torch.log_softmax),
    "cumsum": along(torch.cumsum),
    "reshape": move(lambda t, shape: t.reshape(shape)),
    "permute": move(lambda t, order: t.permute(order)),
    "transpose": move(lambda t, a=-2, b=-1: t.transpose(a, b)),
    "expand": move(lambda t, shape: t.expand(shape)),
    "squeeze": move(lambda t, axis: t.squeeze(axis)),
    "unsqueeze": move(lambda t, axis: t.unsqueeze(axis)),
    "slice": move(slices),
    "narrow": move(lambda t, axis, start, length: t.narrow(axis, start, length)),
    "pad": move(pad),
    "flip": move(lambda t, axes: t.flip(axes)),
    "split": split,
    "tril": triangle(torch.tril),
    "triu": triangle(torch.triu),
    "concat": join(torch.cat),
    "stack": join(torch.stack),
    "sliceScatter": slice_scatter,
    "matmul": product_of(torch.matmul),
    "einsum": einsum,
    "take": take,
    "gather": gather,
    "scatterAdd": scatter_add,
    "oneHot": one_hot,
    "conv2d": conv2d,
    "maxPool2d": max_pool,
    "avgPool2d": avg_pool,
    "full": full,
    "zeros": lambda run, shape, dtype="f32": full(run, shape, 0, dtype),
    "ones": lambda run, shape, dtype="f32": full(run, shape, 1, dtype),
    "iota": iota,
    "arange": lambda run, n: iota(run, [n], 0),
}
