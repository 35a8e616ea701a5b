"""Losses, attention and modules in PyTorch."""
import math

import torch
import torch.nn.functional as F

from operations import OPERATIONS, Value

ACTIVATIONS = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}




def softplus(t):
    return torch.logaddexp(t, torch.zeros_like(t))


def attend(q, k, v, causal=False, scale=None, bias=None):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    if causal:
        n, m = scores.shape[-2:]
        seen = torch.arange(m)[None, :] <= torch.arange(n)[:, None] + m - n
        scores = torch.where(seen, scores, torch.full((), -math.inf, dtype=scores.dtype))
    return torch.softmax(scores, -1) @ v


def attention(run, q, k, v, options=None, bias=None):
    return Value(attend(q.t, k.t, v.t, bias=None if bias is None else bias.t, **(options or {})), "f32")


def rope(run, x, cos, sin):
    half = cos.t.shape[-1]
    a, b, rest = x.t[..., :half], x.t[..., half : 2 * half], x.t[..., 2 * half :]
    return Value(torch.cat([a * cos.t - b * sin.t, b * cos.t + a * sin.t, rest], -1), "f32")


def split_heads(t, heads):
    return t.reshape(t.shape[0], t.shape[1], heads, -1).permute(0, 2, 1, 3)


def merge_heads(t):
    return t.permute(0, 2, 1, 3).reshape(t.shape[0], t.shape[2], -1)


def layer_norm(run, x, eps=1e-5):
    return Value(F.layer_norm(x.t, x.t.shape[-1:], eps=eps), "f32")


def rms_norm(run, x, eps=1e-6):
    return Value(x.t * torch.rsqrt((x.t * x.t).mean(-1, keepdim=True) + eps), "f32")


def cross_entropy(run, logits, targets, options=None, mask=None):
    """-100, or `ignoreIndex`, is no position; any other target out of range makes the loss NaN."""
    options = options or {}
    ignore = options.get("ignoreIndex", -100)
    classes = logits.t.shape[-1]
    x, y = logits.t.reshape(-1, classes), targets.t.reshape(-1)
    weight = torch.ones_like(y, dtype=x.dtype) if mask is None else mask.t.to(x.dtype).reshape(-1)
    counted = torch.where(y == ignore, torch.zeros_like(weight), weight)
    valid = (y >= 0) & (y < classes)
    losses = F.cross_entropy(x, torch.where(valid, y, torch.zeros_like(y)), reduction="none")
    used = torch.where(counted != 0, losses * counted, torch.zeros_like(losses))
    bad = (~valid & (counted != 0)).any()
    loss = used.sum() / counted.sum()
    return Value(loss + math.nan if bad else loss, "f32")


def affine(x, w, b=None, layout="outIn"):
    return F.linear(x, w.t if layout == "outIn" else w.t.T, None if b is None else b.t)


def mlp(run, x, activation, up, up_bias, down, down_bias):
    return Value(affine(ACTIVATIONS[activation](affine(x.t, up, up_bias)), down, down_bias), "f32")


def gated(run, x, activation, gate, up, down):
    return Value(affine(ACTIVATIONS[activation](affine(x.t, gate)) * affine(x.t, up), down), "f32")


def self_attention(run, x, heads, qkv, qkv_bias, out, out_bias):
    q, k, v = affine(x.t, qkv, qkv_bias).chunk(3, -1)
    mixed = attend(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads), causal=True)
    return Value(affine(merge_heads(mixed), out, out_bias), "f32")


OPERATIONS.update(
    {
        "checkpoint": lambda run, x, y: Value(torch.tanh(x.t * y.t) * x.t, "f32"),
        "scaledDotProductAttention": attention,
        "rope": rope,
        "splitHeads": lambda run, x, heads: Value(split_heads(x.t, heads), x.dtype),
        "mergeHeads": lambda run, x: Value(merge_heads(x.t), x.dtype),
        "layerNorm": layer_norm,
        "rmsNorm": rms_norm,
        "binaryCrossEntropy": lambda run, x, t: Value(
            (t.t * softplus(-x.t) + (1 - t.t) * softplus(x.t)).mean(), "f32"
        ),
        "mse": lambda run, x, y: Value(((x.t - y.t) ** 2).mean(), "f32"),
        "crossEntropy": cross_entropy,
        "Linear": lambda run, x, w, b=None, layout="outIn": Value(affine(x.t, w, b, layout), "f32"),
        "Embedding": lambda run, ids, w: OPERATIONS["take"](run, w, ids),
        "LayerNorm": lambda run, x, w, b=None, eps=1e-5: Value(
            F.layer_norm(x.t, x.t.shape[-1:], w.t, None if b is None else b.t, eps), "f32"
        ),
        "RMSNorm": lambda run, x, w, eps=1e-6: Value(rms_norm(run, x, eps).t * w.t, "f32"),
        "MLP": mlp,
        "GatedMLP": gated,
        "CausalSelfAttention": self_attention,
    }
)
