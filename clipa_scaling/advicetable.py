"""Advice in the terminal: what a plan will answer, what to drop or add, and what a budget buys."""

from __future__ import annotations

import math

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipa_scaling.outlook import INVERSE, NONE, Advised, Outlook
from clipa_scaling.schema import label
from clipa_scaling.show import dollars, hours
from clipa_scaling.verdict import count


def print_outlook(console: Console, outlook: Outlook) -> None:
    """What the sweep is expected to answer, what it lacks, its changes, and a sentence."""
    lines = [say_study(outlook), say_assumed(outlook)]
    for line in lines:
        console.print(line, markup=False, highlight=False)
    console.print(expected_table(outlook))
    told: dict[str, list[str]] = {}
    for item in outlook.reckoned:
        for lack in item.missing:
            told.setdefault(f"{lack.key}: {lack.because}", []).append(item.path)
    for because, paths in told.items():
        where = "every path" if len(paths) == len(outlook.reckoned) else ", ".join(paths)
        console.print(f"missing ({where}): {because}", markup=False, highlight=False)
    if outlook.drops:
        title = "Cheapest to drop: the least widening per GPU-hour saved"
        console.print(change_table(outlook, title, outlook.drops, "saved"))
    if outlook.additions:
        title = "Best to add: the most narrowing per GPU-hour"
        if math.isnan(outlook.additions[0].weighed.before):
            title = "To add: what lets the design answer, the cheapest first"
        console.print(change_table(outlook, title, outlook.additions, "spent"))
    console.print(say_outlook(outlook), markup=False, highlight=False)


def say_study(outlook: Outlook) -> str:
    study, runs = outlook.study, outlook.compared.runs
    seeds = runs.groupby(["model", "length", "samples"])["seed"].nunique()
    span = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    tokens = label(study.length).lower()
    price = study.sweep.resources.dollars_per_gpu_hour
    paid = "" if price is None else f" ({dollars(study.gpu_hours * price)})"
    alike = f"; {outlook.alike} more comparisons have the same design" if outlook.alike else ""
    return (
        f"{study.sweep.name}: {len(study.rows)} runs, {hours(study.gpu_hours)} GPU-hours on "
        f"{study.sweep.resources.device}{paid}. {len(runs)} are compared: "
        f"{count(runs['model'].nunique(), 'size')}, {count(runs['length'].nunique(), 'length')} of "
        f"{tokens}, {count(runs['samples'].nunique(), 'sample count')}, {span} "
        f"seed{'s' * int(seeds.max() != 1)}{alike}."
    )


def say_assumed(outlook: Outlook) -> str:
    assumed, scatter, study = outlook.assumptions, outlook.scatter, outlook.study
    seeds = (
        f"seeds {scatter.logits:.3f} logits (measured, {scatter.degrees:.0f} degrees of freedom)"
        if scatter.degrees
        else f"seeds {100 * assumed.seed_sd:g} points (assumed)"
    )
    examples = f"{study.pictures:,} examples{' (assumed)' * study.assumed_pictures}"
    done = int(outlook.compared.runs["done"].sum())
    if done:
        strengths = ", ".join(f"{n} {t.strength:.2f}" for n, t in outlook.truths.items())
        return (
            f"{done} compared runs have finished; the truths are fitted to them, with strengths "
            f"{strengths}; {seeds}; {examples}."
        )
    return (
        f"Assumed: accuracy {100 * assumed.accuracy:g} % in the middle of the design; there "
        f"m = (T_full / T)^{assumed.exponent:g}; the exponent is {assumed.strength:g} less for "
        f"each e-fold of N ({INVERSE}), or the same for all sizes ({NONE}); {seeds}; {examples}."
    )


def expected_table(outlook: Outlook) -> Table:
    """A row for each truth and path: expected slope and nu with interval, shares of answers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="Expected answers", title_justify="left")
    table.add_column("truth", no_wrap=True)
    table.add_column("path", no_wrap=True)
    for name in ("d log m / d log N", "nu", "yes", "no", "open"):
        table.add_column(name, justify="right", no_wrap=True)
    for truth, rows in outlook.expected.groupby("truth", sort=False):
        for at, (_, row) in enumerate(rows.iterrows()):
            table.add_row(
                str(truth) if at == 0 else "",
                str(row["path"]),
                say_interval(row, "slope", "low", "high"),
                say_interval(row, "nu", "nu_low", "nu_high"),
                *(percent(float(row[name])) for name in ("yes", "no", "undetermined")),
            )
    return table


def say_interval(row: pd.Series, value: str, low: str, high: str) -> str:
    if math.isnan(row[low]) or math.isnan(row[value]):
        return "-"
    return f"{row[value]:.2f} [{row[low]:.2f}, {row[high]:.2f}]"


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def change_table(outlook: Outlook, title: str, items: tuple[Advised, ...], way: str) -> Table:
    """Half the interval's width after each change, in closed form and as simulated."""
    path, total = outlook.assumptions.path, outlook.study.gpu_hours
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"{title}, at {path}",
                  title_justify="left")  # fmt: skip
    table.add_column("change")
    for name in (f"GPU-hours {way}", "of all", "± reckoned", "± simulated"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("still lacks")
    now = items[0].weighed.before
    table.add_row("as planned", "", "", width(now), width(outlook.before), "")
    for item in items:
        spent = abs(item.weighed.change.hours)
        table.add_row(
            item.weighed.change.what,
            hours(spent),
            percent(spent / total),
            width(item.weighed.after),
            width(item.simulated),
            ", ".join(dict.fromkeys(item.weighed.lacks)),
        )
    return table


def width(half: float) -> str:
    return "-" if math.isnan(half) else f"{half:.4f}"


def say_outlook(outlook: Outlook) -> str:
    """The advice in a sentence."""
    path, name = outlook.assumptions.path, outlook.study.sweep.name
    reckoned = next(item for item in outlook.reckoned if item.path == path)
    if reckoned.missing and math.isnan(reckoned.half):
        lacks = ", ".join(dict.fromkeys(item.key for item in reckoned.missing))
        able = [item.weighed for item in outlook.additions if not math.isnan(item.weighed.after)]
        way = ""
        if able:
            best = able[0]
            still = f"; it would still lack {', '.join(best.lacks)}" if best.lacks else ""
            way = (
                f" With {best.change.what}, for {hours(best.change.hours)} GPU-hours, it would "
                f"know d log m / d log N to ± {best.after:.3f}{still}."
            )
        return f"As planned, {name} cannot answer at {path}; it lacks: {lacks}.{way}"
    now = reckoned.half if math.isnan(outlook.before) else outlook.before
    rows = outlook.expected[outlook.expected["path"] == path].set_index("truth")
    told = ", ".join(
        f"{percent(float(rows['yes'][truth]))} under {truth}"
        for truth in rows.index
        if not math.isnan(rows["yes"][truth])
    )
    said = f"At {path}, {name} is expected to know d log m / d log N to ± {now:.3f}"
    said += f" and to say yes in {told}." if told else "."
    for items, verb in ((outlook.drops, "Dropping"), (outlook.additions, "Adding")):
        if items:
            first = items[0]
            change = first.weighed.change
            does = "saves" if change.hours < 0 else "costs"
            said += (
                f" {verb} {change.what} {does} {hours(abs(change.hours))} GPU-hours and makes that "
                f"± {first.half:.3f}."
            )
    return said
