"""Losses, attention, norms and modules."""
import networks  # noqa: F401  (adds its operations)
from record import Case


def attention_cases():
    for k in range(32):
        c = Case(f"scaledDotProductAttention/{k}")
        r = c.random
        batch, kv_heads, group, q = r.randint(1, 2), r.randint(1, 2), r.randint(1, 3), r.randint(1, 6)
        kv, d = q + r.randint(0, 3), r.choice([1, 2, 3, 4, 8, 17])
        options = {"causal": r.random() < 0.5}
        if r.random() < 0.3:
            options["scale"] = 0.375
        inputs = [c.uniform([batch, kv_heads * group, q, d]), c.uniform([batch, kv_heads, kv, d]), c.uniform([batch, kv_heads, kv, d])]
        bias = r.choice(["no", "full", "broadcast"])
        shape = [batch, kv_heads * group, q, kv] if bias == "full" else [1, 1, q, kv]
        inputs += [] if bias == "no" else [c.uniform(shape)]
        y = c.op("scaledDotProductAttention", *inputs[:3], options, *inputs[3:])
        small = batch * kv_heads * group * q * d < 60
        yield c.line(c.op("square", y) if small else y, orders=2 if small else 1)
    c = Case("scaledDotProductAttention/padded-keys")
    hidden = [0, 0, -1e30, 0, 0, -1e30, -1e30, -1e30]
    inputs = [c.uniform([2, 2, 3, 4]), c.uniform([2, 2, 4, 4]), c.uniform([2, 2, 4, 4]), c.literal([2, 1, 1, 4], hidden, fixed=True)]
    c.op("scaledDotProductAttention", *inputs[:3], {"causal": False}, inputs[3])
    yield c.line(orders=1)
    c = Case("scaledDotProductAttention/large-scores")
    c.op("scaledDotProductAttention", c.uniform([1, 2, 5, 4], -60, 60), c.uniform([1, 2, 5, 4], -60, 60), c.uniform([1, 2, 5, 4]), {"causal": True})
    yield c.line(orders=1)
    c = Case("scaledDotProductAttention/longer")
    c.op("scaledDotProductAttention", c.uniform([1, 2, 70, 16]), c.uniform([1, 1, 70, 16]), c.uniform([1, 1, 70, 16]), {"causal": True})
    yield c.line(orders=1)
    for dtype in ("f16", "bf16"):
        c = Case(f"scaledDotProductAttention/{dtype}")
        c.op("scaledDotProductAttention", *[c.uniform([1, 2, 4, 8], -2, 2, dtype) for _ in range(3)], {"causal": True})
        yield c.line(orders=1)


def position_cases():
    for k in range(12):
        c = Case(f"rope/{k}")
        r = c.random
        t, half = r.randint(1, 5), r.randint(1, 3)
        c.op("rope", c.uniform([r.randint(1, 2), 2, t, 2 * half + r.choice([0, 0, 1, 2])]), c.uniform([t, half], -1, 1), c.uniform([t, half], -1, 1))
        yield c.line(orders=2)
        heads, d = r.randint(1, 3), r.randint(1, 4)
        c = Case(f"splitHeads/{k}")
        y = c.op("splitHeads", c.uniform([2, t, heads * d]), heads)
        yield c.line(c.op("square", y) if k % 2 else y, orders=1)
        c = Case(f"mergeHeads/{k}")
        y = c.op("mergeHeads", c.uniform([2, heads, t, d]))
        yield c.line(c.op("square", y) if k % 2 else y, orders=1)


def loss_cases():
    for k in range(16):
        c = Case(f"crossEntropy/{k}")
        r = c.random
        positions = [r.randint(1, 4) for _ in range(r.randint(0, 2))]
        classes = r.choice([1, 2, 5, 9, 70])
        logits, targets = c.uniform(positions + [classes], -4, 4), c.indices(positions, 0, classes)
        mask = [c.uniform(positions, 0.25, 1, fixed=True)] if k % 3 == 1 else [c.literal(positions, bits(c, positions), "bool")] if k % 3 == 2 else []
        c.op("crossEntropy", logits, targets, {}, *mask)
        yield c.line(orders=2 if classes < 10 else 1)
    ignored = {"default": ([0, -100, 2, -100], {}), "own": ([0, 1, 2, 1], {"ignoreIndex": 1}), "none-left": ([-100] * 4, {}), "wrong": ([0, 3, 1, 1], {}), "negative": ([0, -1, 1, 1], {})}
    for name, (targets, options) in ignored.items():
        c = Case(f"crossEntropy/ignore-{name}")
        c.op("crossEntropy", c.uniform([4, 3]), c.literal([4], targets, "i32"), options)
        yield c.line(orders=0 if name in ("none-left", "wrong", "negative") else 1)
    c = Case("crossEntropy/ignored-and-masked")
    c.op("crossEntropy", c.uniform([2, 2, 3]), c.literal([2, 2], [0, -100, 2, 7], "i32"), {}, c.literal([2, 2], [1, 1, 1, 0], "bool"))
    yield c.line(orders=1)
    for k, high in enumerate((50, 1e4)):
        c = Case(f"crossEntropy/large-{k}")
        c.op("crossEntropy", c.uniform([3, 5], -high, high), c.indices([3], 0, 5), {})
        yield c.line(orders=1)
    for dtype in ("f16", "bf16"):
        c = Case(f"crossEntropy/{dtype}")
        c.op("crossEntropy", c.uniform([3, 5], -4, 4, dtype), c.indices([3], 0, 5), {})
        yield c.line(orders=1)
    for k in range(12):
        c = Case(f"mse/{k}")
        shape = [c.random.randint(1, 5) for _ in range(k % 4)]
        c.op("mse", c.uniform(shape), c.uniform(shape if k % 2 else shape[1:]))
        yield c.line(orders=2)
        c = Case(f"binaryCrossEntropy/{k}")
        c.op("binaryCrossEntropy", c.uniform(shape, -30, 30), c.uniform(shape, 0, 1))
        yield c.line(orders=2)
        c = Case(f"checkpoint/{k}")
        x, y = c.uniform(shape), c.uniform(shape)
        c.op("sin", c.op("checkpoint", x, c.op("sin", y)))
        yield c.line(orders=1)


def bits(c, shape):
    n = 1
    for d in shape:
        n *= d
    return [1] + [c.random.randint(0, 1) for _ in range(n - 1)]


def norm_cases():
    for name, module in (("layerNorm", "LayerNorm"), ("rmsNorm", "RMSNorm")):
        for k in range(12):
            c = Case(f"{name}/{k}")
            shape = [c.random.randint(1, 4) for _ in range(k % 3)] + [c.random.choice([3, 4, 5, 8, 33])]  # of two elements the norm is a sign
            c.op(name, c.uniform(shape, *((-2, 2) if k < 9 else (-1e-3, 1e-3) if k == 9 else (50, 60))), *([1e-3] if k % 4 == 3 else []))
            yield c.line(orders=2 if k < 9 else 1)
            c = Case(f"{module}/{k}")
            x, w = c.uniform(shape), c.uniform(shape[-1:], 0.5, 1.5, parameter=True)
            b = [c.uniform(shape[-1:], parameter=True)] if name == "layerNorm" and k % 2 else [None] if name == "layerNorm" else []
            c.op(module, x, w, *b)
            yield c.line(orders=2)


def module_cases():
    names = list(networks.ACTIVATIONS)
    for k in range(14):
        c = Case(f"Linear/{k}")
        r = c.random
        i, o = r.randint(1, 9), r.randint(1, 9)
        x = c.uniform([r.randint(1, 4) for _ in range(k % 3)] + [i], -2, 2, "f16" if k == 12 else "f32")
        layout = "inOut" if k % 4 == 3 else "outIn"
        w = c.uniform([i, o] if layout == "inOut" else [o, i], parameter=True)
        b = c.uniform([o], parameter=True) if k % 2 else None
        if len(c.shape(x)) == 1:
            x = c.op("unsqueeze", x, 0)
        c.op("Linear", x, w, b, layout)
        yield c.line(orders=2)
        c = Case(f"Embedding/{k}")
        n, d = r.randint(1, 6), r.randint(1, 5)
        c.op("Embedding", c.indices([r.randint(1, 4) for _ in range(k % 3)], 0, n), c.uniform([n, d], parameter=True))
        yield c.line(orders=1)
        d, h = r.randint(2, 5), r.randint(2, 6)
        c = Case(f"MLP/{k}")
        x = c.uniform([2, 3, d])
        w = [c.uniform(s, parameter=True) for s in ([h, d], [h], [d, h], [d])]
        c.op("MLP", x, names[k % len(names)], *(w if k % 2 else [w[0], None, w[2], None]))
        yield c.line(orders=2 if names[k % len(names)] != "relu" else 1)
        c = Case(f"GatedMLP/{k}")
        x = c.uniform([2, 3, d])
        c.op("GatedMLP", x, names[(k + 4) % len(names)], *[c.uniform(s, parameter=True) for s in ([h, d], [h, d], [d, h])])
        yield c.line(orders=2 if names[(k + 4) % len(names)] != "relu" else 1)
        c = Case(f"CausalSelfAttention/{k}")
        heads, each = r.randint(1, 3), r.choice([1, 2, 4])
        d = heads * each
        x = c.uniform([2, r.randint(1, 5), d])
        w = [c.uniform(s, parameter=True) for s in ([3 * d, d], [3 * d], [d, d], [d])]
        c.op("CausalSelfAttention", x, heads, *(w if k % 2 else [w[0], None, w[2], None]))
        yield c.line(orders=1)


def cases():
    yield from attention_cases()
    yield from position_cases()
    yield from loss_cases()
    yield from norm_cases()
    yield from module_cases()
