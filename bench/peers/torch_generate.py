"""Greedy generation with PyTorch, eagerly, with a cache of keys and values that is written in place; see bench/generation.ts."""

import json
import sys
import time

import torch
import torch.nn.functional as F

task = json.loads(sys.argv[1])
torch.set_num_threads(task["threads"])
torch.manual_seed(0)
vocab, dim, hidden = task["vocab"], task["dim"], task["hidden"]
layers, heads, kv_heads, slots = task["layers"], task["heads"], task["kvHeads"], task["slots"]
llama = task["kind"] == "llama"
width = dim // heads


def linear(n_out, n_in, bias=not llama):
    return (torch.randn(n_out, n_in) * 0.02, torch.zeros(n_out) if bias else None)


def make_layer():
    if not llama:
        return {"qkv": linear(3 * dim, dim), "out": linear(dim, dim), "up": linear(hidden, dim), "down": linear(dim, hidden)}
    own = {"q": linear(dim, dim), "k": linear(kv_heads * width, dim), "v": linear(kv_heads * width, dim), "out": linear(dim, dim)}
    return own | {"gate": linear(hidden, dim), "up": linear(hidden, dim), "down": linear(dim, hidden)}


embedding, positions = torch.randn(vocab, dim) * 0.02, torch.randn(slots, dim) * 0.02
weights = [make_layer() for _ in range(layers)]
ones, zeros = torch.ones(dim), torch.zeros(dim)
angles = torch.outer(torch.arange(slots), 1 / 10000 ** (torch.arange(0, width, 2) / width))
cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)


def norm(x):
    return F.rms_norm(x, (dim,), ones, 1e-5) if llama else F.layer_norm(x, (dim,), ones, zeros)


def rotated(x, at):
    a, b = x.chunk(2, -1)
    return x * cos[at] + torch.cat([-b, a], -1) * sin[at]


def logits_of(ids, caches, start):
    batch, length = ids.shape
    at = slice(start, start + length)
    x = F.embedding(ids, embedding)
    if not llama:
        x = x + positions[at]
    for w, (keys, values) in zip(weights, caches):
        h = norm(x)
        q, k, v = (F.linear(h, *w[n]) for n in "qkv") if llama else F.linear(h, *w["qkv"]).split(dim, -1)
        q, k, v = (y.view(batch, length, -1, width).transpose(1, 2) for y in (q, k, v))
        if llama:
            q, k = rotated(q, at), rotated(k, at)
        keys[:, :, at], values[:, :, at] = k, v
        seen = slice(0, start + length)
        y = F.scaled_dot_product_attention(
            q, keys[:, :, seen], values[:, :, seen], is_causal=length > 1, enable_gqa=kv_heads != heads
        )
        x = x + F.linear(y.transpose(1, 2).reshape(batch, length, dim), *w["out"])
        h = norm(x)
        if llama:
            x = x + F.linear(F.silu(F.linear(h, *w["gate"])) * F.linear(h, *w["up"]), *w["down"])
        else:
            x = x + F.linear(F.gelu(F.linear(h, *w["up"]), approximate="tanh"), *w["down"])
    return F.linear(norm(x[:, -1]), embedding)


@torch.inference_mode()
def generate(prompt, count):
    caches = [(torch.empty(1, kv_heads, slots, width), torch.empty(1, kv_heads, slots, width)) for _ in range(layers)]
    ids, start, first = torch.tensor([prompt]), 0, None
    begun = time.perf_counter()
    for _ in range(count):
        next_ids = logits_of(ids, caches, start).argmax(-1, keepdim=True)
        next_ids.item()
        first = first or time.perf_counter() - begun
        start, ids = start + ids.shape[1], next_ids
    return {"ms": 1000 * (time.perf_counter() - begun), "firstMs": 1000 * first}


for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps(generate([7 * i % vocab for i in range(asked["prompt"])], asked["tokens"])), flush=True)
