"""200 training steps of MiniLM in bf16 beside fp32: same seed, same batches, same dropout; loss of the last 20 steps.

Data: the Reuters grain documents, cut to 64 tokens.
"""
import os

import numpy

import common

STEPS, LAST, BOUND = 200, 20, 0.02


def losses(scratch, precision):
    out = os.path.join(scratch, precision)
    common.cohort("train", model__path=common.MINILM,
                  data__train=os.path.join(common.REUTERS, "ReutersGrain-train.arff"), data__text="Text",
                  data__label="class-att", data__max_length=64, train__batch_size=16, train__max_steps=STEPS,
                  train__precision=precision, optim__lr="5e-5", log__every=1, checkpoint__every=0, out=out)
    log = common.read_jsonl(os.path.join(out, "log.jsonl"))
    return numpy.array([line["loss"] for line in log if line["kind"] == "train"])


def main(report, scratch):
    fp32, bf16 = losses(scratch, "fp32"), losses(scratch, "bf16")
    report.equal("steps", (len(fp32), len(bf16)), (STEPS, STEPS))
    a, b = fp32[-LAST:].mean(), bf16[-LAST:].mean()
    report.note(f"mean loss of the first {LAST} steps: fp32, bf16",
                "%.5f, %.5f" % (fp32[:LAST].mean(), bf16[:LAST].mean()))
    report.note(f"mean loss of the last {LAST} steps: fp32, bf16", "%.5f, %.5f" % (a, b))
    report.check(f"mean loss of the last {LAST} of {STEPS} steps, bf16 over fp32: relative difference",
                 abs(b / a - 1), BOUND)
    report.note("greatest difference of the loss at a step", "%.3g" % common.greatest(fp32, bf16))


common.run_script("bf16", main)
