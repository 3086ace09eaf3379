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
from clipa_scaling.show import si
from clipa_scaling.slopes import POOLED

YES, NO, UNDETERMINED = "yes", "no", "undetermined"
NUMBERS = ["slope", "low", "high", "values", "bounds"]
MISFIT = (
    "lr was not tuned for every cell: a rate that fits some better than others can make a trend, "
    "or hide one (docs/tuning.md)"
)


@dataclass(frozen=True)
class Missing:
    """What a design lacks for an answer: a key of the sweep file, and why; path: empty is all."""

    key: str
    because: str
    path: str = ""


@dataclass(frozen=True)
class Answer:
    """One path's: yes, no or undetermined; the slope d log m / d log N and its 95 % interval."""

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
    scale. missing: what the design lacks for any path. multipliers: m of each model, length and
    sample count, its interval, and `bound`: `>` or `<` where m lies beyond the value. slopes: per
    path, scale and length (0: pooled). noise: how the runs were taken to scatter, in words.
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
        f"Over {count(len(order), 'size')} ({', '.join(order)}), "
        f"{count(runs['length'].nunique(), 'length')} and "
        f"{count(runs['samples'].nunique(), 'sample count')}, "
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
        return (
            f"{over}the design cannot tell whether a larger model needs fewer {tokens}; "
            f"it lacks: {lacks}."
        )
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


def count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Multipliers, slopes, verdict and sentence."""
    compared = verdict.compared
    told = "".join(f", {name}={value}" for name, value in compared.settings.items())
    where = f"{compared.measure} on {compared.eval_set}, stage {compared.stage}{told}"
    console.print(
        f"\nDoes a larger model need fewer {compared.length.replace('_', ' ')}? ({where})",
        markup=False, highlight=False,
    )  # fmt: skip
    if (verdict.multipliers["bound"] == "").any():
        console.print(multiplier_table(verdict))
    if verdict.slopes["low"].notna().any():
        console.print(slope_table(verdict))
    lines = [verdict.noise]
    if not all("lr" in names.split(" | ") for names in compared.runs["tuned"]):
        lines.append(MISFIT)
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
    shown = verdict.multipliers.assign(shown=[*map(say_value, *(
        verdict.multipliers[name] for name in ("m", "low", "high", "bound")
    ))])  # fmt: skip
    models = list(dict.fromkeys(shown["model"]))
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for tokens, rows in sorted(shown.groupby(length), reverse=True):
        for count, row in rows.groupby("samples"):
            cells = dict(zip(row["model"], row["shown"], strict=True))
            table.add_row(
                f"{tokens}", si(float(str(count))), *(cells.get(name, "") for name in models)
            )
    return table


def say_value(value: float, low: float, high: float, bound: str) -> str:
    """`1.52 [1.30, 1.75]`, or `> 1.25` where that is all that is known."""
    return f"{bound} {value:.2f}" if bound else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def slope_table(verdict: Verdict) -> Table:
    """d log m / d log N: a row for each path and length; of further scales the slope alone."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="d log m / d log N", title_justify="left")
    slopes = verdict.slopes
    first, *others = dict.fromkeys(slopes["scale"])
    table.add_column("path", no_wrap=True)
    for name in (label(verdict.compared.length), first, *others, "values", "bounds"):
        table.add_column(name, justify="right", no_wrap=name == first)
    for (path, tokens), rows in slopes.groupby(["path", "length"], sort=False):
        slope, low, high, values, bounds = rows.iloc[0][NUMBERS]
        shown = "-" if math.isnan(low) else f"{slope:.3f} [{low:.3f}, {high:.3f}]"
        more = [f"{value:.3f}" for value in rows["slope"][1:].to_numpy(float)]
        name = "pooled" if tokens == POOLED else str(tokens)
        table.add_row(str(path), name, shown, *more, f"{values}", f"{bounds}")
    return table
