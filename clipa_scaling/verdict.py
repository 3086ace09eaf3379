"""A verdict as data, as a sentence that a paper could print, and as tables in the terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipa_scaling.compared import Compared
from clipa_scaling.schema import label
from clipa_scaling.slopes import POOLED

YES, NO, UNDETERMINED = "yes", "no", "undetermined"


@dataclass(frozen=True)
class Missing:
    """What a design lacks for an answer: a key of the sweep file, and why; path: empty is all."""

    key: str
    because: str
    path: str = ""


@dataclass(frozen=True)
class Answer:
    """One path's: yes, no or undetermined; the slope d log m / d log N and its interval."""

    path: str
    answer: str
    slope: float
    low: float
    high: float
    agrees: bool  # on every scale
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether a larger model needs fewer tokens, with all that it rests on.

    answer: that of all paths where they agree, else undetermined. robust: they agree, on every
    scale. missing: what the design lacks for any path. multipliers: m of each model, length and sample count, its interval, and `bound`: `>` or
    `<` where m is known to lie beyond the value. slopes: per path, scale and length (0: pooled).
    """

    answer: str
    robust: bool
    answers: tuple[Answer, ...]
    missing: tuple[Missing, ...]
    multipliers: pd.DataFrame
    slopes: pd.DataFrame
    noise: str
    band: float
    compared: Compared


def say(verdict: Verdict) -> str:
    """The verdict in a sentence."""
    compared = verdict.compared
    runs = compared.runs
    order = runs.drop_duplicates("model").sort_values("size")["model"]
    tokens = compared.length.replace("_", " ")
    over = (
        f"Over {len(order)} sizes ({', '.join(order)}), {runs['length'].nunique()} lengths and "
        f"{runs['samples'].nunique()} sample counts, "
    )
    numbers = " and ".join(
        f"{item.slope:.3f} [{item.low:.3f}, {item.high:.3f}] at {item.path}"
        for item in verdict.answers
        if not math.isnan(item.low)
    )
    slope = f"d log m / d log N = {numbers} (95 % intervals)" if numbers else "no slope of m known"
    what = f"the extra samples that fewer {tokens} cost, m,"
    by = "on accuracy, -log error and logit alike"
    if verdict.missing:
        lacks = ", ".join(dict.fromkeys(item.key for item in verdict.missing))
        return f"{over}the design cannot tell whether a larger model needs fewer {tokens}: " \
            f"{lacks} must vary more."  # fmt: skip
    if verdict.answer == UNDETERMINED:
        told = ", ".join(f"{item.answer} at {item.path}" for item in verdict.answers)
        return f"{over}whether a larger model needs fewer {tokens} stays open ({told}): {slope}."
    if verdict.answer == YES:
        found = f"{what} fall as the model grows"
    elif all(item.low > 0 for item in verdict.answers):
        found = f"{what} grow with the model"
    else:
        found = f"{what} do not fall as the model grows (band ±{verdict.band:g})"
    robust = f", {by}" if verdict.robust else "; the answer depends on the scale of the measure"
    return f"{over}{found}: {slope}{robust}."


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Multipliers, slopes, verdict and sentence."""
    compared = verdict.compared
    told = "".join(f", {name}={value}" for name, value in compared.settings.items())
    where = f"{compared.measure} on {compared.eval_set}, stage {compared.stage}{told}"
    console.print(
        f"\nDoes a larger model need fewer {compared.length.replace('_', ' ')}? ({where})",
        markup=False, highlight=False,
    )  # fmt: skip
    if len(verdict.multipliers):
        console.print(multiplier_table(verdict))
    if len(verdict.slopes):
        console.print(slope_table(verdict))
    lines = [verdict.noise]
    if (
        not compared.runs["tuned"]
        .str.split(" | ", regex=False)
        .map(lambda names: "lr" in names)
        .all()
    ):
        lines.append("lr was not tuned in every cell: a rate that fits some cells less can make, or "
                     "hide, a trend (docs/tuning.md)")  # fmt: skip
    for item in verdict.answers:
        lines.append(f"{item.path}: {item.answer}")
        lines += [f"  {lack.key}: {lack.because}" for lack in item.missing]
    lines += [f"verdict: {verdict.answer}{', robust' if verdict.robust else ''}", say(verdict)]
    for line in lines:
        console.print(line, markup=False, highlight=False)


def multiplier_table(verdict: Verdict) -> Table:
    """m with its 95 % interval: a row for each length and sample count, a column for each model."""
    length = verdict.compared.length
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, title="m, times the samples", title_justify="left"
    )
    table.add_column(label(length), justify="right")
    table.add_column("D", justify="right")
    shown = verdict.multipliers.assign(
        shown=[
            f"{row.bound} {row.m:.2f}".strip() if row.bound else
            f"{row.m:.2f} [{row.low:.2f}, {row.high:.2f}]"
            for row in verdict.multipliers.itertuples()
        ]
    )  # fmt: skip
    models = list(dict.fromkeys(shown["model"]))
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for tokens, rows in sorted(shown.groupby(length), reverse=True):
        for count, row in rows.groupby("samples"):
            cells = dict(zip(row["model"], row["shown"], strict=True))
            table.add_row(f"{tokens}", f"{count:,}", *(cells.get(name, "") for name in models))
    return table


def slope_table(verdict: Verdict) -> Table:
    """d log m / d log N: a row for each path and length, a column for each scale."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="d log m / d log N", title_justify="left")
    scales = list(dict.fromkeys(verdict.slopes["scale"]))
    for name in ("path", label(verdict.compared.length), *scales, "values", "bounds"):
        table.add_column(name, justify="left" if name == "path" else "right")
    for (path, tokens), rows in verdict.slopes.groupby(["path", "length"], sort=False):
        of = {
            row.scale: f"{row.slope:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for row in rows.itertuples()
        }
        name = "pooled" if tokens == POOLED else f"{tokens}"
        first = rows.iloc[0]
        cells = (of[scale] for scale in scales)
        table.add_row(str(path), name, *cells, str(first["values"]), str(first["bounds"]))
    return table
