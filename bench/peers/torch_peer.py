"""The process that trains with PyTorch. Weights and batches come in a file that the parent wrote; see problem_file.ts."""

import json
import math
import resource
import sys
import time

import torch
import torch.nn.functional as F

task = json.loads(sys.argv[1])
torch.set_num_threads(task["threads"])
with open(task["data"], "rb") as f:
    memory = bytearray(f.read())


def tensor(entry):
    dtype = {"f32": torch.float32, "i32": torch.int32}[entry["dtype"]]
    count = math.prod(entry["shape"])
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=entry["offset"]).reshape(entry["shape"])


def parameters(entries):
    return {e["name"]: tensor(e).clone().requires_grad_(e["trained"]) for e in entries}


w = parameters(task["weights"])
batches = [(tensor(b["x"]).clone(), tensor(b["y"]).long()) for b in task["batches"]]
del memory
trained = [p for p in w.values() if p.requires_grad]
adam = task["adam"]
groups = [
    {"params": [p for p in trained if p.ndim >= 2], "weight_decay": adam["weightDecay"]},
    {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
]
optimizer = torch.optim.AdamW(
    [g for g in groups if g["params"]], lr=adam["lr"], betas=adam["betas"], eps=adam["eps"], fused=True
)


def mlp_loss(x, y):
    h = x
    for l in range(3):
        h = torch.addmm(w[f"b{l}"], h, w[f"w{l}"])
        if l < 2:
            h = F.relu(h)
    return F.cross_entropy(h, y)


def adapted(x, l):
    a, b, u, v = (w.get(f"{l}.{name}", w.get(name)) for name in "ABuv")
    down = x @ a
    up = (down if u is None else down * u) @ b
    return (up if v is None else up * v) * task["scale"]


def gpt_loss(x, y):
    size = task["size"]
    batch, d, heads = size["batch"], size["dim"], size["heads"]
    length = x.numel() // batch
    h = F.embedding(x.reshape(batch, length), w["wte"]) + w["wpe"][:length]
    for l in range(size["layers"]):
        p = lambda name: w[f"{l}.{name}"]
        a = F.layer_norm(h, (d,), p("ln1g"), p("ln1b"))
        qkv = a @ p("wqkv") + p("bqkv")
        if task["adapted"]:
            qkv = qkv + adapted(a, l)
        q, k, v = (z.reshape(batch, length, heads, d // heads).transpose(1, 2) for z in qkv.split(d, -1))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + (o.transpose(1, 2).reshape(batch, length, d) @ p("wo") + p("bo"))
        a = F.layer_norm(h, (d,), p("ln2g"), p("ln2b"))
        h = h + (F.gelu(a @ p("w1") + p("b1"), approximate="tanh") @ p("w2") + p("b2"))
    logits = F.layer_norm(h, (d,), w["lnfg"], w["lnfb"]) @ w["wte"].t()
    return F.cross_entropy(logits.reshape(batch * length, -1), y)


def lstm_loss(x, y):
    """The loop that torch.nn.LSTMCell stands for; torch.lstm_cell is what it calls."""
    h = c = torch.zeros(x.shape[1:])
    wx, wh = w["wx"].t(), w["wh"].t()
    for t in x:
        h, c = torch.lstm_cell(t, (h, c), wx, wh, w["b"], None)
    return F.cross_entropy(h @ w["wo"] + w["bo"], y)


LOSSES = {"mlp": mlp_loss, "lstm": lstm_loss, "gpt": gpt_loss}


def step(i):
    optimizer.zero_grad(set_to_none=True)
    x, y = batches[i % len(batches)]
    loss = LOSSES[task["kind"]](x, y)
    loss.backward()
    optimizer.step()
    return loss.item()


done = 0
for line in sys.stdin:
    losses, ms = [], []
    for _ in range(int(line)):
        started = time.perf_counter()
        losses.append(step(done))
        ms.append(1000 * (time.perf_counter() - started))
        done += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"losses": losses, "ms": ms, "peakMb": peak}), flush=True)
