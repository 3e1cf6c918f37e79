"""make_lr_schedules.py - whole curves of torch's and transformers' schedulers, for tests/model/test_lr_schedule.c.

    build/peer/bin/python tests/golden/make_lr_schedules.py > tests/golden/lr_schedules.json

A curve is the factor applied at each step, as a training loop with these classes has it: the rate of the optimizer before
its step, over the rate it was made with. Where torch has no warm-up, s / warmup of the curve's first value stands in front.
"""
import json
import math

import torch
from torch.optim import lr_scheduler as L
from torch.optim.swa_utils import SWALR
from transformers import optimization as T

RATE = 0.5


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)


def run(make, steps, epoch_steps=0):
    """The factors of `steps` steps of a scheduler that is stepped after each, or after each epoch."""
    o = optimizer()
    scheduler, out = make(o), []
    for s in range(steps):
        out.append(o.param_groups[0]["lr"] / RATE)
        o.step()
        if (epoch_steps == 0 or (s + 1) % epoch_steps == 0) and s + 1 < steps:
            scheduler.step()
    return out


def entry(name, keys, make, steps, warmup=0, epoch_steps=0, own_warmup=False):
    if own_warmup:
        factors = run(make, steps)
    else:
        before = warmup // epoch_steps * epoch_steps if epoch_steps else 0  # whole epochs of it
        if epoch_steps:  # the calendar's epochs, counted from the one in which the warm-up ends
            body = run(make, steps - before, epoch_steps)[warmup - before:]
        else:
            body = run(make, steps - warmup)
        factors = [s / warmup * body[0] for s in range(warmup)] + body
    assert len(factors) == steps and all(map(math.isfinite, factors))
    return {"name": name, "keys": {**keys, "warmup": warmup, "total": steps, "epoch_steps": epoch_steps}, "factors": factors}


def curves():
    warm = [(0, 0), (6, 0)]
    for w, _ in warm:
        yield entry("linear", {}, lambda o: T.get_linear_schedule_with_warmup(o, w, 50), 50, w, own_warmup=True)
        yield entry("cosine", {"cycles": 0.5}, lambda o: T.get_cosine_schedule_with_warmup(o, w, 50), 50, w, own_warmup=True)
        yield entry("cosine", {"cycles": 1.75}, lambda o: T.get_cosine_schedule_with_warmup(o, w, 50, 1.75), 50, w,
                    own_warmup=True)
        yield entry("cosine", {"cycles": 0.5, "least": 0.1},
                    lambda o: T.get_cosine_with_min_lr_schedule_with_warmup(o, w, 50, min_lr=0.1 * RATE), 50, w,
                    own_warmup=True)
        yield entry("constant", {}, lambda o: T.get_constant_schedule_with_warmup(o, w), 50, w, own_warmup=True)
        yield entry("polynomial", {"power": 2.5, "least": 0.02},
                    lambda o: T.get_polynomial_decay_schedule_with_warmup(o, w, 50, lr_end=0.02 * RATE, power=2.5), 50, w,
                    own_warmup=True)
        yield entry("cosine_with_restarts", {"cycles": 3},
                    lambda o: T.get_cosine_with_hard_restarts_schedule_with_warmup(o, w, 50, 3), 50, w, own_warmup=True)

    for w, e in [(0, 0), (6, 0), (0, 7), (5, 7), (7, 7), (9, 7)]:
        n, rest = 60, 60 - w  # steps in all, and what the schedule counts behind the warm-up
        if e:
            rest = -(-n // e) - w // e
        def body(name, keys, make):
            return entry(name, keys, make, n, w, e)
        yield body("linear", {"start": 0.25, "end": 0.75, "length": 5}, lambda o: L.LinearLR(o, 0.25, 0.75, 5))
        yield body("linear", {"start": 1, "end": 0.125, "length": 0}, lambda o: L.LinearLR(o, 1, 0.125, rest))
        yield body("constant", {"start": 0.25, "length": 3}, lambda o: L.ConstantLR(o, 0.25, 3))
        yield body("step", {"step_size": 3, "gamma": 0.3}, lambda o: L.StepLR(o, 3, 0.3))
        yield body("multi_step", {"milestones": [2, 5, 5, 40], "gamma": 0.5}, lambda o: L.MultiStepLR(o, [2, 5, 5, 40], 0.5))
        yield body("exponential", {"gamma": 0.9}, lambda o: L.ExponentialLR(o, 0.9))
        yield body("polynomial", {"power": 1.5, "length": 6}, lambda o: L.PolynomialLR(o, 6, 1.5))
        yield body("cosine", {"cycles": 0.5, "length": 4, "least": 0.2}, lambda o: L.CosineAnnealingLR(o, 4, 0.2 * RATE))
        yield body("warm_restarts", {"first_cycle": 4, "cycle_factor": 1, "least": 0.1},
                   lambda o: L.CosineAnnealingWarmRestarts(o, 4, 1, 0.1 * RATE))
        yield body("warm_restarts", {"first_cycle": 3, "cycle_factor": 2}, lambda o: L.CosineAnnealingWarmRestarts(o, 3, 2))
        for mode in ("triangular", "triangular2", "exp_range"):
            yield body("cyclic", {"mode": mode, "least": 0.2, "up": 4, "down": 3, "gamma": 0.95},
                       lambda o: L.CyclicLR(o, 0.2 * RATE, RATE, 4, 3, mode, gamma=0.95, cycle_momentum=False))
        yield body("cyclic", {"mode": "triangular", "least": 0, "up": 3}, lambda o: L.CyclicLR(o, 0, RATE, 3, cycle_momentum=False))
        for straight in (False, True):
            for three in (False, True):
                yield body("one_cycle", {"rise": 0.3, "div_factor": 10, "final_div_factor": 100, "three_phase": three,
                                         "straight": straight},
                           lambda o: L.OneCycleLR(o, RATE, total_steps=rest, pct_start=0.3, div_factor=10, final_div_factor=100,
                                                  three_phase=three, anneal_strategy="linear" if straight else "cos",
                                                  cycle_momentum=False))
        points = {0: 1.0, 2: 0.5, 3: 2.0, 30: 0.1}
        yield body("table", {"points": [[k, v] for k, v in points.items()]},
                   lambda o: L.LambdaLR(o, lambda t: points[max(k for k in points if k <= t)]))


SCORES = [0.5, 0.6, 0.60005, 0.59, 0.58, 0.61, 0.61, 0.61, 0.7, 0.5, float("nan"), 0.5, 0.5, 0.71, 0.71, 0.71, 0.71, 0.71, 0.71,
          0.71, 0.72, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]


def plateaus():
    for larger in (True, False):
        for keys in ({}, {"patience": 0}, {"cooldown": 2}, {"relative": False, "threshold": 0.02}, {"least": 0.3},
                     {"granularity": 0.06}):
            k = {"factor": 0.5, "patience": 1, "threshold": 1e-3, "relative": True, "cooldown": 0, "least": 0.0,
                 "granularity": 1e-8, **keys}
            o = optimizer()
            p = L.ReduceLROnPlateau(o, "max" if larger else "min", factor=k["factor"], patience=k["patience"],
                                    threshold=k["threshold"], threshold_mode="rel" if k["relative"] else "abs",
                                    cooldown=k["cooldown"], min_lr=k["least"] * RATE, eps=k["granularity"] * RATE)
            out = []
            for score in SCORES:
                p.step(score)
                out.append(o.param_groups[0]["lr"] / RATE)
            yield {"keys": {**k, "larger": larger}, "factors": out}


def swa():
    """SWALR takes over from a rate that is left where it was."""
    for length in (1, 4):
        for straight in (False, True):
            o = optimizer()
            o.param_groups[0]["lr"] = 0.8 * RATE
            s = SWALR(o, 0.3 * RATE, length, "linear" if straight else "cos")
            out = []
            for _ in range(8):
                out.append(o.param_groups[0]["lr"] / RATE)
                o.step()
                s.step()
            yield {"from": 0.8, "to": 0.3, "length": length, "straight": straight, "factors": out}


def rows(items):
    return ",\n".join(json.dumps(i, allow_nan=True) for i in items)


print('{"curves": [\n%s],\n"scores": %s,\n"plateaus": [\n%s],\n"swa": [\n%s]}' %
      (rows(curves()), json.dumps([None if math.isnan(s) else s for s in SCORES]), rows(plateaus()), rows(swa())))
