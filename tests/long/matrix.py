"""The table of families in docs/results/parity.md, from the cells that families.py left: matrix.py CELLS.jsonl"""
import json
import sys

SAYS = """Random encoders with odd sizes, rows of one token to the most that the positions hold, all in one batch
(`tests/long/families.py`). The folders were written by transformers, so that logits and gradients also say that cohort loads
them. Greatest differences: of a logit, of a gradient's tensor over its norm, of the loss at any of 50 steps. bf16 on the CPU
are the kernels for AVX-512, run by AVX2 (tests/support/avx512); CUDA is in emulation on the CPU. The bound of a 16-bit figure
is twice what PyTorch's autocast makes of the same rows; it stands below.
"""


def main(path):
    cells, families, columns = {}, [], []
    with open(path, encoding="utf-8") as f:
        for line in f:
            cell = json.loads(line)
            cells[cell["family"], cell["column"]] = cell["value"]
            families += [cell["family"]] if cell["family"] not in families else []
            columns += [cell["column"]] if cell["column"] not in columns else []
    if not cells:
        sys.exit(f"{path}: no cells; families.py leaves them")
    print(SAYS)
    print("| family |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for family in families:
        print(f"| {family} |", " | ".join(cells.get((family, c), "**missing**") for c in columns), "|")


main(sys.argv[1])
