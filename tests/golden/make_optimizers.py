"""make_optimizers.py - steps of torch's optimizers in double, for tests/model/test_optimizer.c.

    build/peer/bin/python tests/golden/make_optimizers.py > tests/golden/optimizers.json

Two tensors, of which the first decays; their gradients and the schedule's factor change from step to step. LAMB is not in
torch: it is written down here from its paper (You et al. 2020, algorithm 2), with the bias corrections of its appendix and
without scaling for what does not decay, as in the authors' code.
"""
import json

import torch

WEIGHT = [0.5, -1.25, 3.0, 0.0, 1e-3, -0.7, 2.25]
BIAS = [0.1, 0.0, -0.3]
LR, DECAY, STEPS = 0.02, 0.0625, 12


def gradient(tensor, step):
    """Whole multiples of powers of two, so that the test's floats are the same numbers."""
    return torch.tensor([((7 * i + 3 * step + 5 * tensor) % 11 - 5) / 16.0 for i in range(len((WEIGHT, BIAS)[tensor]))],
                        dtype=torch.float64)


def factor(step):
    return 1.0 if step < 8 else 0.5


class Lamb(torch.optim.Optimizer):
    def __init__(self, groups, lr, betas, eps):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (b1, b2), eps, decay = group["betas"], group["eps"], group["weight_decay"]
            for p in group["params"]:
                s = self.state[p]
                if not s:
                    s.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                s["t"] += 1
                s["m"].mul_(b1).add_(p.grad, alpha=1 - b1)
                s["v"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                r = (s["m"] / (1 - b1 ** s["t"])) / ((s["v"] / (1 - b2 ** s["t"])).sqrt() + eps) + decay * p
                ratio = 1.0
                if decay > 0 and p.norm() > 0 and r.norm() > 0:
                    ratio = (p.norm() / r.norm()).item()
                p.sub_(r, alpha=group["lr"] * ratio)


def run(name, keys, make):
    tensors = [torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (WEIGHT, BIAS)]
    optimizer = make([{"params": [tensors[0]], "weight_decay": DECAY}, {"params": [tensors[1]], "weight_decay": 0.0}])
    out = []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LR * factor(step)
        for i, t in enumerate(tensors):
            t.grad = gradient(i, step)
        optimizer.step()
        out.append(tensors[0].tolist() + tensors[1].tolist())
    return {"name": name, "keys": keys, "weights": out}


def main():
    o = torch.optim
    cases = [
        run("sgd", {}, lambda p: o.SGD(p, lr=LR)),
        run("sgd", {"beta1": 0.9}, lambda p: o.SGD(p, lr=LR, momentum=0.9)),
        run("sgd", {"beta1": 0.75, "nesterov": True}, lambda p: o.SGD(p, lr=LR, momentum=0.75, nesterov=True)),
        run("adagrad", {"eps": 1e-10}, lambda p: o.Adagrad(p, lr=LR, eps=1e-10)),
        run("adadelta", {"beta2": 0.875, "eps": 1e-6}, lambda p: o.Adadelta(p, lr=LR, rho=0.875, eps=1e-6)),
        run("rmsprop", {"beta2": 0.75}, lambda p: o.RMSprop(p, lr=LR, alpha=0.75)),
        run("rmsprop", {"beta2": 0.75, "beta1": 0.5}, lambda p: o.RMSprop(p, lr=LR, alpha=0.75, momentum=0.5)),
        run("rmsprop", {"beta2": 0.75, "centered": True}, lambda p: o.RMSprop(p, lr=LR, alpha=0.75, centered=True)),
        run("rmsprop", {"beta2": 0.75, "beta1": 0.5, "centered": True},
            lambda p: o.RMSprop(p, lr=LR, alpha=0.75, momentum=0.5, centered=True)),
        run("adam", {"beta1": 0.875, "beta2": 0.9375}, lambda p: o.Adam(p, lr=LR, betas=(0.875, 0.9375))),
        run("adamw", {"beta1": 0.875, "beta2": 0.9375}, lambda p: o.AdamW(p, lr=LR, betas=(0.875, 0.9375))),
        run("lamb", {"beta1": 0.875, "beta2": 0.9375, "eps": 1e-6}, lambda p: Lamb(p, LR, (0.875, 0.9375), 1e-6)),
    ]
    rows = ",\n".join(json.dumps(c) for c in cases)
    print('{"weight": %s, "bias": %s, "lr": %s, "decay": %s, "steps": %d, "cases": [\n%s]}' %
          (WEIGHT, BIAS, LR, DECAY, STEPS, rows))


main()
