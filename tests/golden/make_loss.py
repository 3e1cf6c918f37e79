"""make_loss.py - losses and gradients by torch in double, for tests/model/test_loss.c and test_optimizer.c.

    build/peer/bin/python tests/golden/make_loss.py > tests/golden/loss.json
"""
import json

import torch
from torch.nn import functional as F

LOGITS = [[1.5, -0.25, 0.75], [-2.0, 3.5, 0.125], [0.0, 0.0, 40.0], [-60.0, 55.0, 2.0]]
LABELS = [0, 1, 1, 2]
VALUES = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
WEIGHTS = [0.5, 2.0, 1.25]


def result(name, loss_of):
    x = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    loss = loss_of(x)
    loss.backward()
    return {"name": name, "loss": loss.item(), "gradient": x.grad.reshape(-1).tolist()}


def focal(x, y, gamma, u=None):
    """Lin et al. 2017 with alpha = u of the target, divided by the sum of these weights as torch's cross_entropy does."""
    logp = torch.log_softmax(x, 1).gather(1, y[:, None])[:, 0]
    w = torch.ones_like(logp) if u is None else u[y]
    return (w * (-torch.expm1(logp)) ** gamma * -logp).sum() / w.sum()


def focal_binary(x, v, gamma, u):
    one, zero = F.logsigmoid(x), F.logsigmoid(-x)
    return (u * v * torch.sigmoid(-x) ** gamma * -one + (1 - v) * torch.sigmoid(x) ** gamma * -zero).mean()


def adamw_steps():
    w = torch.tensor([0.5, -1.25, 3.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([w], lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    out = []
    for step in range(5):
        w.grad = torch.tensor([0.1, -2.0, 0.0, 1e-3], dtype=torch.float64) * (step + 1)
        optimizer.step()
        out.append(w.detach().tolist())
    return out


def main():
    y, v, u = torch.tensor(LABELS), torch.tensor(VALUES, dtype=torch.float64), torch.tensor(WEIGHTS, dtype=torch.float64)
    losses = [
        result("cross_entropy", lambda x: F.cross_entropy(x, y)),
        result("cross_entropy_weights", lambda x: F.cross_entropy(x, y, weight=u)),
        result("cross_entropy_smooth", lambda x: F.cross_entropy(x, y, label_smoothing=0.1)),
        result("cross_entropy_both", lambda x: F.cross_entropy(x, y, weight=u, label_smoothing=0.3)),
        result("bce", lambda x: F.binary_cross_entropy_with_logits(x, v)),
        result("bce_weights", lambda x: F.binary_cross_entropy_with_logits(x, v, pos_weight=u)),
        result("focal_2", lambda x: focal(x, y, 2.0)),
        result("focal_half_weights", lambda x: focal(x, y, 0.5, u)),
        result("focal_bce", lambda x: focal_binary(x, v, 1.5, u)),
        result("mse", lambda x: F.mse_loss(x, v)),
    ]
    x = torch.tensor(LOGITS, dtype=torch.float64)
    print(json.dumps({"logits": LOGITS, "labels": LABELS, "values": VALUES, "weights": WEIGHTS, "losses": losses,
                      "softmax": torch.softmax(x, 1).reshape(-1).tolist(),
                      "sigmoid": torch.sigmoid(x).reshape(-1).tolist(), "adamw": adamw_steps()}, indent=1))


main()
