"""A case: a small program, run in float64 for what is right and in float32 for PyTorch's own error, and written as a line."""
import json
import math
import random

import torch

from operations import OPERATIONS, Run, Value, is_float
from values import exponential, f32, positions, round_to, text, uniform, weights

NEGLIGIBLE = 2.5e-5  # four times an error below this is within 1e-4 anyway
F64, F32 = Run(torch.float64), Run(torch.float32)


def count(shape):
    return math.prod(shape)


class IllConditioned(Exception):
    """float32 tells nothing about this program."""


class Case:
    """Builds a program step by step; `peek` shows what a step gives in float64."""

    def __init__(self, name, by="tensor"):
        self.name, self.by = name, by
        self.random = random.Random(name)
        self.specs, self.inputs, self.steps = [], [], []
        self.shadow = []
        self.fixed = set()

    # --- inputs

    def seed(self):
        return self.random.randrange(1, 10**6)

    def _input(self, dtype, shape, how, values, parameter, fixed):
        ref = f"${len(self.shadow)}"
        assert not self.steps, "inputs come first"
        spec = f"{dtype} {','.join(map(str, shape)) or '-'} {how}"
        self.specs.append(f"param {spec}" if parameter else spec)
        values = round_to(values, dtype)
        self.inputs.append((dtype, list(shape), values))
        if fixed or not is_float(dtype):
            self.fixed.add(len(self.inputs) - 1)
        self.shadow.append(self._leaf(F64, len(self.inputs) - 1))
        return ref

    def uniform(self, shape, low=-2, high=2, dtype="f32", parameter=False, fixed=False):
        seed = self.seed()
        values = uniform(dtype, count(shape), low, high, seed)
        return self._input(dtype, shape, f"u {text(low)} {text(high)} {seed}", values, parameter, fixed)

    def wide(self, shape, low=-20, high=14, dtype="f32"):
        """Of every magnitude from 2^low to 2^high, of both signs."""
        seed = self.seed()
        return self._input(dtype, shape, f"e {low} {high} {seed}", exponential(count(shape), low, high, seed), False, False)

    def literal(self, shape, values, dtype="f32", fixed=False):
        values = round_to(values, dtype)
        assert count(shape) == len(values), (shape, values)
        return self._input(dtype, shape, "= " + " ".join(text(v) for v in values), values, False, fixed)

    def distinct(self, shape, step=0.125, dtype="f32"):
        """No two values near each other."""
        n = count(shape)
        values = [(i - n // 2) * step + step / 3 for i in range(n)]
        self.random.shuffle(values)
        return self.literal(shape, [float(f"{f32(v):.4g}") for v in values], dtype)

    def indices(self, shape, low, high, dtype="i32"):
        return self.uniform(shape, low, high, dtype)

    # --- steps

    def op(self, name, *args):
        """Appends a step; gives the reference of its result, or a list of them."""
        self.steps.append([name, *args])
        with torch.no_grad():
            results = apply(F64, name, args, self.shadow)
        refs = [f"${len(self.shadow) + i}" for i in range(len(results))]
        self.shadow.extend(results)
        return refs if len(refs) > 1 or name == "split" else refs[0]

    def peek(self, ref):
        return self.shadow[int(ref[1:])]

    def shape(self, ref):
        return self.peek(ref).shape

    # --- running

    def _leaf(self, run, i):
        dtype, shape, values = self.inputs[i]
        t = torch.tensor(values, dtype=torch.float64 if is_float(dtype) else run.held(dtype))
        return Value(t.to(run.held(dtype)).reshape(shape), dtype)

    def run(self, run, outputs, orders):
        """Values, gradients, and gradients of gradients, as lists of Values."""
        values = [self._leaf(run, i) for i in range(len(self.inputs))]
        wrt = [v.t.requires_grad_() for i, v in enumerate(values) if i not in self.fixed] if orders else []
        for name, *args in self.steps:
            values.extend(apply(run, name, args, values))
        results = [values[int(ref[1:])] for ref in outputs]
        found = [results]
        tensors = [v.t for v in results if is_float(v.dtype)]
        for order in range(1, orders + 1):
            loss = weighted(tensors, 100 * (order - 1) + 1)
            more = order < orders
            if loss.requires_grad:
                grads = torch.autograd.grad(loss, wrt, create_graph=more, allow_unused=True)
            else:
                grads = [None] * len(wrt)
            tensors = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, wrt)]
            dtypes = [v.dtype for i, v in enumerate(values[: len(self.inputs)]) if i not in self.fixed]
            found.append([Value(t, "f64" if d == "f64" else "f32") for t, d in zip(tensors, dtypes)])
        return found

    def line(self, outputs=None, orders=1, most=None, any_at=None):
        """The case as a line of JSON. `any_at`: {(list, tensor): positions} that are not compared."""
        if outputs is None:
            outputs = last_results(self)
        elif isinstance(outputs, str):
            outputs = [outputs]
        exact, own = self.run(F64, outputs, orders), self.run(F32, outputs, orders)
        names = ["want", "grad", "hess"]
        record = {"id": self.name, "in": self.specs, "do": self.steps, "out": outputs}
        if self.by == "element":
            record["by"] = "element"
        if self.fixed and orders:
            fixed = [i for i in sorted(self.fixed) if is_float(self.inputs[i][0])]
            if fixed:
                record["fixed"] = fixed
        errors = []
        for k, (right, single) in enumerate(zip(exact, own)):
            stored = []
            for j, (x, y) in enumerate(zip(right, single)):
                skip = (any_at or {}).get((k, j), ())
                values, error = compare(x, y, self.by, most, skip)
                entry = values if k else f"{x.dtype} {','.join(map(str, x.shape)) or '-'} {values}".rstrip()
                stored.append(entry)
                errors.append(error)
            record[names[k]] = stored
        if any(errors):
            record["own"] = errors
        return json.dumps(record, separators=(",", ":"))


def last_results(case):
    """The results of the last step."""
    with torch.no_grad():
        n = len(apply(F64, case.steps[-1][0], case.steps[-1][1:], case.shadow))
    return [f"${i}" for i in range(len(case.shadow) - n, len(case.shadow))]


NUMBERS = {"#inf": math.inf, "#-inf": -math.inf, "#nan": math.nan, "#-0": -0.0, "#none": None}


def resolve(x, values):
    if isinstance(x, str):
        return values[int(x[1:])] if x.startswith("$") else NUMBERS.get(x, x)
    return [resolve(v, values) for v in x] if isinstance(x, (list, tuple)) else x


def apply(run, name, args, values):
    if name not in OPERATIONS:
        raise SystemExit(f'"{name}" is unknown: write in OPERATIONS of test/recorded/operations.py what it is in PyTorch')
    result = OPERATIONS[name](run, *[resolve(a, values) for a in args])
    return result if isinstance(result, list) else [result]


def weighted(tensors, seed):
    total = torch.zeros((), dtype=torch.float64)
    parts = []
    for k, t in enumerate(tensors):
        w = torch.tensor(weights(t.numel(), seed + k), dtype=t.dtype).reshape(t.shape)
        parts.append((t * w).sum())
    if not parts:
        return total
    loss = parts[0]
    for p in parts[1:]:
        loss = loss + p
    return loss


def compare(exact, single, by, most, skip):
    """The stored text of a result, and PyTorch's own error in f32 where it matters."""
    where = positions(exact.t.numel())
    x = exact.t.detach().reshape(-1)[where].tolist()
    y = single.t.detach().reshape(-1)[where].tolist()
    if not is_float(exact.dtype):
        return " ".join("*" if i in skip else text(v) for i, v in enumerate(x)), ""
    clip = f32 if exact.dtype == "f32" else float
    x = [v if not math.isinf(clip(v)) else clip(v) for v in x]
    finite = [abs(v) for v in x if math.isfinite(v)]
    scale = max(finite, default=0)
    errors, odd = {}, []
    for i, (a, b) in enumerate(zip(x, y)):
        if i in skip or a == b or (math.isnan(a) and math.isnan(b)):
            continue
        if not math.isfinite(a) or not math.isfinite(b):
            odd.append(f"{i}={text(b)}")
            continue
        size = abs(a) if by == "element" else scale
        error = abs(a - b) / size if size > 0 else math.inf
        if abs(a - b) > 1.2e-38 and error > NEGLIGIBLE:
            errors[i] = error
    if most is not None and (odd or any(e > most for e in errors.values())):
        raise IllConditioned()
    if by == "element":
        own = [f"{i}:{e:.2g}" for i, e in errors.items()]
    else:
        own = [f"{max(errors.values()):.2g}"] if errors else []
    return " ".join("*" if i in skip else text(v) for i, v in enumerate(x)), " ".join(own + odd)
