"""Write docs/compute.md: the compute and hours that the papers print, beside this package's."""

from __future__ import annotations

from pathlib import Path

from clipa_scaling.published import PrintedRow, load_printed

OUT = Path(__file__).resolve().parents[1] / "docs" / "compute.md"
HEAD = """\
# Printed compute, and this package's

`make docs` writes this file with `tools/compare_compute.py`, from the samples, sizes and lengths in
`results/published/printed_compute.csv`. The papers call multiply-adds of one forward FLOPs; here a
multiply-add is two, and rows are converted to the papers' unit. A row reproduces when it is the
printed number to its last digit or within 1 %.

"""
COMPUTE = """\
## Compute

GFLOPs × samples in 1e12 (Table 2) or 1e11 (Table 8, Figure 8), GFLOPs per sample in Table 3.

| table | row | printed | ours | ratio | why |
|---|---|---:|---:|---:|---|
"""
HOURS = """\

## GPU-hours

What share of an A100's 312 TFLOP/s (bf16) the printed hours mean, three forwards a sample counted,
or four under gradient checkpointing, as in all of CLIPA's runs. Planned hours rest on an assumed
share, 0.3, and are not tuned to these. Hours of several stages are summed. Assumed where nothing is
printed: 77 text tokens for OpenAI's and OpenCLIP's models, all 32B of OpenCLIP's G/14 half masked,
L/14's masks in finetuning as H/14's. Accuracy beside hours, dollars and compute, with own studies
on the same axes: `python -m clipa_scaling.cost_tables results/NAME`. That table counts what models
were trained with, 77 text tokens for OpenAI's and OpenCLIP's and half of the patches for OpenCLIP's
G/14; the first table here counts as the papers did, at 32 and unmasked.

| table | row | printed hours | training FLOPs | share | share, recomputing |
|---|---|---:|---:|---:|---:|
"""


def write_page(rows: list[PrintedRow]) -> str:
    """The whole file."""
    lines = [HEAD, COMPUTE]
    for row in (row for row in rows if row.unit != "h"):
        ours = f"{row.ours:.1f}" if row.unit == "G" else f"{row.ours:.3g}"
        why = row.why or "reproduces"
        lines.append(
            f"| {row.where} | {row.name} | {row.printed} | {ours} | {row.ratio:.2f} | {why} |\n"
        )
    lines.append(HOURS)
    for row in (row for row in rows if row.unit == "h"):
        recomputed = f"{4 / 3 * row.share:.2f}" if "CLIPA" in row.name or "bigG" in row.name else ""
        lines.append(
            f"| {row.where} | {row.name} | {int(row.printed):,} | {3 * row.forward:.2e} | "
            f"{row.share:.2f} | {recomputed} |\n"
        )
    return "".join(lines)


if __name__ == "__main__":
    OUT.write_text(write_page(load_printed()))
    print(OUT)
