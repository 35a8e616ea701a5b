"""A few steps of each optimizer: the losses, and the parameters after the last step."""
import json
import random

import torch

import networks  # noqa: F401
from record import F32, F64, Case, apply, compare
from operations import Value


def optimizer_for(name, o, parameters):
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=o["lr"], momentum=o.get("momentum", 0), weight_decay=o.get("weightDecay", 0))
    return torch.optim.AdamW(parameters, lr=o["lr"], betas=tuple(o.get("betas", (0.9, 0.999))), eps=o.get("eps", 1e-8), weight_decay=o.get("weightDecay", 0.01), foreach=False)  # fmt: skip


def train(c, run, how, output):
    leaves = [c._leaf(run, i) for i in range(len(c.inputs))]
    indices = [i for i, spec in enumerate(c.specs) if spec.startswith("param ")]
    masks = {int(i): torch.tensor([float(v) for v in m.split()], dtype=run.precision).reshape(leaves[int(i)].shape) for i, m in how.get("masks", {}).items()}
    for i in indices:
        leaves[i].t.requires_grad_()
    o = how["options"]
    optimizer = optimizer_for(how["optimizer"], o, [leaves[i].t for i in indices])
    start = {i: leaves[i].t.detach().clone() for i in indices}
    losses = []
    for _ in range(how["steps"]):
        optimizer.zero_grad()
        for k in range(how.get("accumulate", 1)):
            values = list(leaves)
            for name, *args in c.steps:
                values.extend(apply(run, name, args, values))
            loss = values[int(output[1:])].t
            loss.backward()
            if k == 0:
                losses.append(loss.item())
        for i, m in masks.items():
            leaves[i].t.grad.mul_(m)
        if "clipNorm" in o:
            total = torch.sqrt(sum((leaves[i].t.grad ** 2).sum() for i in indices))
            for i in indices:
                leaves[i].t.grad.mul_(min(1.0, o["clipNorm"] / total.item()))
        optimizer.step()
        with torch.no_grad():
            for i, m in masks.items():
                leaves[i].t.copy_(torch.where(m != 0, leaves[i].t, start[i]))
    return [Value(torch.tensor(losses, dtype=run.precision), "f32")] + [leaves[i] for i in indices]


def line(c, how, output):
    exact, own = train(c, F64, how, output), train(c, F32, how, output)
    want, errors = [], []
    for x, y in zip(exact, own):
        values, error = compare(x, y, "tensor", None, ())
        want.append(f"{x.dtype} {','.join(map(str, x.shape)) or '-'} {values}")
        errors.append(error)
    record = {"id": c.name, "in": c.specs, "do": c.steps, "out": [output], "want": want}
    if any(errors):
        record["own"] = errors
    record["train"] = how
    return json.dumps(record, separators=(",", ":"))


SETTINGS = [
    ("sgd", {"lr": 0.1}), ("sgd", {"lr": 0.05, "momentum": 0.9}), ("sgd", {"lr": 0.1, "weightDecay": 0.1}), ("sgd", {"lr": 0.05, "momentum": 0.5, "weightDecay": 0.05}),
    ("sgd", {"lr": 0.1, "clipNorm": 0.3}), ("sgd", {"lr": 0}), ("adamW", {"lr": 0.01}), ("adamW", {"lr": 0.05, "betas": [0.8, 0.95]}), ("adamW", {"lr": 0.02, "weightDecay": 0}),
    ("adamW", {"lr": 0.02, "weightDecay": 0.3}), ("adamW", {"lr": 0.01, "eps": 1e-3}), ("adamW", {"lr": 0.05, "clipNorm": 0.2}), ("adamW", {"lr": 0.03, "betas": [0.0, 0.9]}),
]  # fmt: skip


def regression(c):
    x, y = c.uniform([8, 3]), c.uniform([8, 2])
    w, b = c.uniform([2, 3], -1, 1, parameter=True), c.uniform([2], -1, 1, parameter=True)
    return c.op("mse", c.op("tanh", c.op("Linear", x, w, b)), y)


def classification(c):
    x, y = c.uniform([6, 4]), c.indices([6], 0, 3)
    w = [c.uniform(s, -1, 1, parameter=True) for s in ([5, 4], [5], [3, 5], [3])]
    h = c.op("gelu", c.op("Linear", x, w[0], w[1]))
    return c.op("crossEntropy", c.op("Linear", h, w[2], w[3]), y, {})


def tied(c):
    """One embedding at both ends."""
    ids, targets = c.indices([2, 4], 0, 5), c.indices([2, 4], 0, 5)
    w = c.uniform([5, 3], -1, 1, parameter=True)
    h = c.op("layerNorm", c.op("Embedding", ids, w))
    return c.op("crossEntropy", c.op("matmul", h, c.op("transpose", w)), targets, {})


def cases():
    for model in (regression, classification, tied):
        for k, (name, options) in enumerate(SETTINGS):
            c = Case(f"{name}/{model.__name__}-{k}")
            output = model(c)
            yield line(c, {"optimizer": name, "options": options, "steps": 5}, output)
    for name, options in (SETTINGS[1], SETTINGS[6]):
        c = Case(f"{name}/accumulate")
        output = regression(c)
        yield line(c, {"optimizer": name, "options": options, "steps": 3, "accumulate": 2}, output)
        for k, more in enumerate(({}, {"weightDecay": 0.2}, {"clipNorm": 0.2})):
            c = Case(f"{name}/mask-{k}")
            output = regression(c)
            mask = random.Random(c.name)
            masks = {"2": " ".join(str(mask.randint(0, 1)) for _ in range(6))}
            yield line(c, {"optimizer": name, "options": options | more, "steps": 4, "masks": masks}, output)
