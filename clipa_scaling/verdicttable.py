"""A verdict in the terminal: its tables, what it lacks, its answer and sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipa_scaling.schema import label
from clipa_scaling.show import si
from clipa_scaling.slopes import POOLED
from clipa_scaling.verdict import Verdict, say

UNKNOWN = "–"
NO_INTERVAL = f"{UNKNOWN} (no interval)"
MISFIT = (
    "lr was not tuned for every cell: a rate that fits some better than others can make a trend, "
    "or hide one (docs/tuning.md)"
)
RESIDUALS = (
    "the drop's exponent apart: its intervals draw the residuals of its own fit again, whose sd, "
    "in the scale's units, stands beside them"
)


def print_verdict(console: Console, verdict: Verdict) -> None:
    """Its tables, then what they do not say, the verdict and its sentence."""
    compared = verdict.compared
    told = "".join(f", {name}={value}" for name, value in compared.settings.items())
    where = f"{compared.measure} on {compared.eval_set}, stage {compared.stage}{told}"
    console.print(
        f"\nDoes a larger model need fewer {compared.length.replace('_', ' ')}? ({where})",
        markup=False, highlight=False,
    )  # fmt: skip
    for table in list_tables(verdict):
        console.print(table)
    for line in tell(verdict):
        console.print(line, markup=False, highlight=False)


def list_tables(verdict: Verdict) -> Iterator[Table]:
    """Multipliers, gains, the papers' drop, slopes and tolerated lengths, those that are known."""
    rows = verdict.multipliers
    reads_m = verdict.compared.runs["samples"].nunique() > 1
    if reads_m and (rows["bound"] == "").any():
        say_m = row_text("m", "low", "high", "bound", 2)
        yield grid_table(verdict, rows, "m, times the samples", say_m)
    if reads_m and rows["gain"].notna().any():
        say_gain = row_text("gain", "gain_low", "gain_high", "gain_bound", 2)
        title = "G, compute of the full length over that of this one, for the same accuracy"
        yield grid_table(verdict, rows[rows["gain"].notna()], title, say_gain)
        yield crossing_table(verdict)
    if rows["drop"].notna().any():
        say_drop = row_text("drop", "drop_low", "drop_high", "", 1)
        title = "drop from the full length, points"
        yield grid_table(verdict, rows[rows["drop"].notna()], title, say_drop)
    if verdict.drops["delta"].notna().any():
        yield drop_table(verdict.drops, draws_residuals(verdict))
    if verdict.slopes["low"].notna().any():
        yield slope_table(verdict)
    if reads_m and len(verdict.tolerated):
        yield tolerated_table(verdict)
    if verdict.nu["nu"].notna().any():
        yield exponent_table(verdict)


def tell(verdict: Verdict) -> list[str]:
    """What no table says: conditions, each path's answer, what it lacks, and the sentence."""
    lines = tell_conditions(verdict)
    exponents = dict(zip(verdict.nu["path"], verdict.nu["answer"], strict=True))
    for item in verdict.answers:
        told = f"{item.path}: {item.answer}"
        known = item.path in exponents and not item.missing
        lines.append(f"{told}; by the tolerated length: {exponents[item.path]}" if known else told)
        lines += [f"  {lack.key}: {lack.because}" for lack in item.missing]
    return [*lines, f"verdict: {verdict.answer}{', robust' * verdict.robust}", say(verdict)]


def tell_conditions(verdict: Verdict) -> list[str]:
    """Under which a verdict's numbers stand: noise, rates that were not tuned, drops not fitted."""
    lines = [verdict.noise]
    if draws_residuals(verdict) and verdict.drops["delta"].notna().any():
        lines.append(RESIDUALS)
    if not all("lr" in names.split(" | ") for names in verdict.compared.runs["tuned"]):
        lines.append(MISFIT)
    lacks = dict.fromkeys(verdict.drops["because"])
    return lines + [f"the drop's exponent: {because}" for because in lacks if because]


def row_text(
    value: str, low: str, high: str, bound: str, digits: int
) -> Callable[[pd.Series], str]:
    """How a row's number is shown: `1.52 [1.30, 1.75]`, or `> 1.25` where that is all known."""

    def shown(row: pd.Series) -> str:
        if bound and row[bound]:
            return f"{row[bound]} {row[value]:.{digits}f}"
        told = f"{row[value]:.{digits}f}"
        if math.isnan(row[low]):
            return told
        return f"{told} [{row[low]:.{digits}f}, {row[high]:.{digits}f}]"

    return shown


def grid_table(
    verdict: Verdict, rows: pd.DataFrame, title: str, shown: Callable[[pd.Series], str]
) -> Table:
    """A number with its 95 % interval: a row for each length and sample count, a column a model."""
    length = verdict.compared.length
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column(label(length), justify="right")
    table.add_column("D", justify="right")
    told = rows.assign(shown=[shown(row) for _, row in rows.iterrows()])
    models = list(dict.fromkeys(verdict.multipliers["model"]))
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for tokens, own in sorted(told.groupby(length), reverse=True):
        for count, row in own.groupby("samples"):
            cells = dict(zip(row["model"], row["shown"], strict=True))
            table.add_row(
                f"{tokens}", si(float(str(count))), *(cells.get(name, "") for name in models)
            )
    return table


def slope_table(verdict: Verdict) -> Table:
    """d log m / d log N: a row for each path and length; of further scales the slope alone."""
    slopes = verdict.slopes
    names = ["path", label(verdict.compared.length)]
    table = scale_table("d log m / d log N", names, slopes)
    known = slopes[slopes["slope"].notna()]
    for (path, tokens), rows in known.groupby(["path", "length"], sort=False):
        name = "pooled" if tokens == POOLED else str(tokens)
        table.add_row(str(path), name, *tell_scales(rows, "slope"))
    return table


def scale_table(title: str, names: list[str], rows: pd.DataFrame) -> Table:
    """Its head: names, a column for each scale, and on how many values the first one rests."""
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=title, title_justify="left"
    )
    first, *others = dict.fromkeys(rows["scale"])
    table.add_column(names[0], no_wrap=True)
    for name in (*names[1:], first, *others, "values (bounds)"):
        table.add_column(name, justify="right", no_wrap=name == first)
    return table


def tell_scales(rows: pd.DataFrame, name: str) -> list[str]:
    """The first scale's number with its interval, the others' alone; none without an interval."""
    first = rows.iloc[0]
    told = NO_INTERVAL if math.isnan(first["low"]) else row_text(name, "low", "high", "", 3)(first)
    more = [
        UNKNOWN if math.isnan(row["low"]) else f"{row[name]:.3f}"
        for _, row in rows.iloc[1:].iterrows()
    ]
    return [told, *more, f"{first['values']} ({first['bounds']})"]


def tolerated_table(verdict: Verdict) -> Table:
    """T_e with its 95 % interval: a row for each path and model, a column for each sample count."""
    title = f"T, the fewest tokens at which m stays within {1 + verdict.epsilon:g}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in ("path", "model"):
        table.add_column(name, no_wrap=True)
    table.add_column("D: tokens")
    shown = row_text("tokens", "low", "high", "bound", 0)
    for (path, model), rows in verdict.tolerated.groupby(["path", "model"], sort=False):
        told = ", ".join(f"{si(row['samples'])}: {shown(row)}" for _, row in rows.iterrows())
        table.add_row(str(path), str(model), told)
    return table


def exponent_table(verdict: Verdict) -> Table:
    """nu: a row for each path; of further scales the exponent alone."""
    table = scale_table("nu = -d log T / d log N", ["path"], verdict.nu)
    for path, rows in verdict.nu[verdict.nu["nu"].notna()].groupby("path", sort=False):
        table.add_row(str(path), *tell_scales(rows, "nu"))
    return table


def crossing_table(verdict: Verdict) -> Table:
    """Where G crosses 1: a row for each length and sample count."""
    length, size = verdict.compared.length, verdict.compared.size
    title = f"where G crosses 1, in N = {size}"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    for name in (label(length), "D", "N"):
        table.add_column(name, justify="right")
    table.add_column("it pays for")
    for _, row in verdict.crossings.iterrows():
        told = str(row["because"]) or f"{row['bound']} {si(row[size])}".strip()
        ends = [si(end) if 0 < end < math.inf else "" for end in (row["low"], row["high"])]
        told += f" [{' … '.join(ends)}]" if any(ends) else ""
        table.add_row(f"{row[length]}", si(row["samples"]), told, str(row["pays"]))
    return table


def draws_residuals(verdict: Verdict) -> bool:
    """Whether the drop's exponent has its intervals from residuals: where seeds are unknown."""
    return any(item.key == "seeds" for item in verdict.missing)


def drop_table(drops: pd.DataFrame, of_residuals: bool) -> Table:
    """d of the drop: a row for each sample count and scale; of_residuals: with their sd."""
    title = "exponent of N in the drop: above 0 it shrinks with size (a description, no evidence)"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    more = ("residual sd",) if of_residuals else ()
    for name in ("D", "scale", "exponent", *more, "on all scales"):
        table.add_column(name, justify="right", no_wrap=True)
    shown = row_text("delta", "low", "high", "", 2)
    for samples, rows in drops.groupby("samples"):
        alike = str(rows.iloc[0]["answer"]) if rows["robust"].all() else "not robust"
        ends = [(si(float(str(samples))), alike)] + [("", "")] * (len(rows) - 1)
        for (count, answer), (_, row) in zip(ends, rows.iterrows(), strict=True):
            told = NO_INTERVAL if math.isnan(row["low"]) else shown(row)
            sd = [f"{row['residual_sd']:.4f}"] if of_residuals else []
            table.add_row(count, str(row["scale"]), told, *sd, answer)
    return table
