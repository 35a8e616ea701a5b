"""Prints losses-recorded.ts: the losses and their gradients in float64, by PyTorch and the formulas of TRL and of the papers.

The model is a table: the logits that follow token i are row i of W, plus those of the adapter, A[:, i] B^T.
Run: python3 losses.py > losses-recorded.ts
"""
import json
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
V, R = 6, 2
wave = lambda shape, start, size: size * torch.sin(start + torch.arange(0, shape[0] * shape[1]).reshape(shape) * 1.0)
W = wave((V, V), 1, 1.5)
TEACHER = wave((V, V), 7, 1.2)
TOKENS = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 5, 0, 0], [4, 0, 2, 2, 1], [4, 0, 5, 3, 1]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0], [0, 1, 1, 1, 1]]).double()
TARGETS, COUNTED = TOKENS[:, 1:], MASK[:, 1:]
LABELS = torch.tensor([True, False])


def token_logps(logits):
    return torch.gather(logits.log_softmax(-1), 2, TARGETS[:, :, None])[:, :, 0]


def run(loss):
    A = wave((R, V), 2, 0.6).requires_grad_()
    B = wave((V, R), 3, 0.7).requires_grad_()
    ids = TOKENS[:, :-1]
    logits = W[ids] + A.T[ids] @ B.T
    value, metrics = loss(logits, W[ids], A, B)
    value.backward()
    return {"loss": value.item(), "metrics": {k: float(v) for k, v in metrics.items()},
            "A": A.grad.flatten().tolist(), "B": B.grad.flatten().tolist()}


def sums(logits, mean=False):
    logps = (token_logps(logits) * COUNTED).sum(-1)
    return logps / COUNTED.sum(-1) if mean else logps


def dpo(kind, beta, smoothing=0.0):
    def loss(logits, base, A, B):
        policy, reference = sums(logits, kind == "ipo"), sums(base, kind == "ipo")
        chosen, rejected = (policy - reference)[0::2], (policy - reference)[1::2]
        margin = chosen - rejected
        if kind == "sigmoid":
            losses = -F.logsigmoid(beta * margin) * (1 - smoothing) - F.logsigmoid(-beta * margin) * smoothing
        elif kind == "hinge":
            losses = torch.relu(1 - beta * margin)
        else:
            losses = (margin - 1 / (2 * beta)) ** 2
        rewards = (beta * chosen, beta * rejected)
        return losses.mean(), {"accuracy": (rewards[0] > rewards[1]).double().mean(), "margin": (rewards[0] - rewards[1]).mean(),
                               "chosen_reward": rewards[0].mean(), "rejected_reward": rewards[1].mean()}
    return loss


def orpo(beta):
    def loss(logits, base, A, B):
        logps = sums(logits, True)
        chosen, rejected = logps[0::2], logps[1::2]
        odds = (chosen - rejected) - (torch.log1p(-torch.exp(chosen)) - torch.log1p(-torch.exp(rejected)))
        return (-chosen - beta * F.logsigmoid(odds)).mean(), {
            "accuracy": (chosen > rejected).double().mean(), "margin": (beta * (chosen - rejected)).mean(),
            "chosen_reward": (beta * chosen).mean(), "rejected_reward": (beta * rejected).mean(), "log_odds_ratio": odds.mean()}
    return loss


def kto(beta, good, bad):
    def loss(logits, base, A, B):
        policy, reference = sums(logits), sums(base)
        ratio = policy - reference
        kl = ratio[1::2].mean().detach().clamp(min=0)
        answers = ratio[0::2]
        desirable = 1 - torch.sigmoid(beta * (answers[LABELS] - kl))
        undesirable = 1 - torch.sigmoid(beta * (kl - answers[~LABELS]))
        losses = torch.cat((good * desirable, bad * undesirable))
        margin = torch.cat((beta * (answers[LABELS] - kl), beta * (kl - answers[~LABELS])))
        return losses.mean(), {"accuracy": (margin > 0).double().mean(), "margin": margin.mean(), "kl": kl}
    return loss


def counted(x):
    return x[COUNTED.bool()]


def cross_entropy(smoothing, z):
    def loss(logits, base, A, B):
        flat, targets = counted(logits), counted(TARGETS)
        nll = F.cross_entropy(flat, targets)
        value = F.cross_entropy(flat, targets, label_smoothing=smoothing) + z * (flat.logsumexp(-1) ** 2).mean()
        return value, {"nll": nll}
    return loss


def distillation(temperature, weight):
    def loss(logits, base, A, B):
        flat = counted(logits)
        nll = F.cross_entropy(flat, counted(TARGETS))
        teacher = counted(TEACHER[TOKENS[:, :-1]])
        kl = F.kl_div((flat / temperature).log_softmax(-1), (teacher / temperature).softmax(-1), reduction="batchmean")
        return weight * temperature**2 * kl + (1 - weight) * nll, {"nll": nll, "teacher_kl": kl}
    return loss


def regularized(l2, l1, orthogonal, kl):
    def loss(logits, base, A, B):
        value, _ = cross_entropy(0.0, 0.0)(logits, base, A, B)
        squares = (A**2).sum() + (B**2).sum()
        absolute = A.abs().sum() + B.abs().sum()
        gram = ((A @ A.T - torch.eye(R)) ** 2).sum() + ((B.T @ B - torch.eye(R)) ** 2).sum()
        divergence = F.kl_div(counted(base).log_softmax(-1), counted(logits).log_softmax(-1), reduction="batchmean", log_target=True)
        terms = {"l2": squares, "l1": absolute, "orthogonal": gram, "kl": divergence}
        return value + l2 * squares + l1 * absolute + orthogonal * gram + kl * divergence, terms
    return loss


CASES = {
    "dpo": dpo("sigmoid", 0.3), "dpo, smoothed": dpo("sigmoid", 0.3, 0.1), "hinge": dpo("hinge", 0.4), "ipo": dpo("ipo", 0.5),
    "orpo": orpo(0.25), "kto": kto(0.3, 1.0, 1.5), "smoothed and z": cross_entropy(0.1, 0.01),
    "distillation": distillation(2.0, 0.7), "regularized": regularized(0.01, 0.02, 0.03, 0.5),
}
print("/** Made by losses.py: losses and their gradients in float64. */")
print("export interface Recorded {\n  readonly loss: number;\n  readonly metrics: Readonly<Record<string, number>>;\n"
      "  readonly A: readonly number[];\n  readonly B: readonly number[];\n}\n")
print("export const RECORDED: Readonly<Record<string, Recorded>> = " + json.dumps({k: run(v) for k, v in CASES.items()}) + ";")
