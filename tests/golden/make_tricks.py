"""make_tricks.py - means of weights and adversarial moves by torch in double, for tests/worker/test_averages.c and
test_adversary_mpi.c.

    build/peer/bin/python tests/golden/make_tricks.py > tests/golden/tricks.json

Weights and gradients are whole multiples of powers of two that repeat every 143 elements, so that a tensor of any size is
named by its number of elements, and the tests' floats are the same numbers.
"""
import json

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

STEPS, PERIOD = 7, 143
# Tensors of the test's model: tables of words, positions and types, products of a layer, pooler, classifier.
ELEMENTS = [24, 36, 144, 192, 240, 432, 196608]


def weight(n, step=0):
    i = torch.arange(n)
    return ((7 * i + 3 * step) % 11 - 5).to(torch.float64) / 16


def gradient(n):
    return (5 * torch.arange(n) % 13 - 6).to(torch.float64) / 64


def mean(kind, decay):
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(weight(11))
    fn = {"multi_avg_fn": get_ema_multi_avg_fn(decay)} if kind == "ema" else {}
    averaged, out = AveragedModel(model, **fn), []
    for step in range(STEPS):
        with torch.no_grad():
            model.w.copy_(weight(11, step))
        averaged.update_parameters(model)
        out.append(averaged.module.w.tolist())
    return {"kind": kind, "decay": decay, "means": out}


def move(kind, eps, rate):
    """As loops around an optimizer write it: FGM of Miyato et al. 2017, AWP with a bound on each element."""
    out = []
    for n in ELEMENTS:
        w, g = weight(n), gradient(n)
        if kind == "fgm":
            moved = w + eps * g / torch.norm(g)
        else:
            room = eps * w.abs()
            moved = torch.min(torch.max(w + rate * g / torch.norm(g) * torch.norm(w), w - room), w + room)
        out.append({"elements": n, "moved": moved[:PERIOD].tolist()})
    return {"kind": kind, "eps": eps, "rate": rate, "tensors": out}


def main():
    means = [mean("ema", 0.9), mean("ema", 0.5), mean("ema", 0.0), mean("swa", 0.0)]
    moves = [move("fgm", 1.0, 0.0), move("fgm", 48.0, 0.0), move("awp", 0.125, 0.125), move("awp", 0.01, 1.0)]
    print('{"means": [\n%s],\n"moves": [\n%s]}' %
          (",\n".join(map(json.dumps, means)), ",\n".join(map(json.dumps, moves))))


main()
