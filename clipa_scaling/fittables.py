"""An analysis in the terminal: tables within 80 columns, and lines."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipa_scaling.analysis import Analysis, say, tell_better, tell_levels
from clipa_scaling.checklist import as_markdown
from clipa_scaling.points import LOSS
from clipa_scaling.rollout import BASELINES
from clipa_scaling.sensitivity import find_spans

UNIDENTIFIED = "–"
FAR = 1.0  # no error of a fraction is so large
MARKS = {"at bound": "b", "ridge": "r", "starts disagree": "s", "not identified": UNIDENTIFIED}
SHORT = {"largest N at short T": "largest N\nshort T", "largest N at short S": "largest N\nshort S"}


def print_analysis(console: Console, analysis: Analysis) -> None:
    """Points, forms, the law, the sentence, rollouts, choices and the checklist, in this order."""

    def line(text: str = "") -> None:
        console.print(text, markup=False, highlight=False)

    chosen = analysis.chosen
    facts = chosen.facts
    line(
        f"{len(chosen.points)} points: {facts['measure']} on {facts['set']}, protocol "
        f"{facts['protocol']}, stage {facts['stage']}; {'; '.join(tell_levels(chosen.points))}"
    )
    line(f"rows sha256 {chosen.points.digest()}; left out: {analysis.exclusions}")
    console.print(tournament_table(analysis))
    for name, found in analysis.tournament.fits.items():
        if found.status.reasons:
            line(f"{name}: {found.status}")
    for reason, names in group_reasons(analysis.tournament.reasons):
        line(f"not applicable: {', '.join(names)}: {reason}")
    for text in (*analysis.tournament.warnings, tell_better(analysis)):
        if text:
            line(f"warning: {text}")
    if analysis.why:
        line(f"{analysis.asked}: cannot be fitted: {analysis.why}")
    if analysis.fit is None:
        line(say(analysis))
        return
    if analysis.why:
        line(f"shown instead: {analysis.fit.law.name}")
    console.print(parameter_table(analysis))
    line(f"status: {analysis.fit.status}")
    line(say(analysis))
    console.print(rollout_table(analysis))
    refused = analysis.tournament.rollouts
    for row in refused[refused["form"] == ""].to_dict("records"):
        line(f"{row['split']}: not held out: {row['status']}")
    console.print(sensitivity_table(analysis))
    line("checklist (arXiv:2502.18969)\n")
    line(as_markdown(analysis.checklist))


def group_reasons(reasons: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Each reason with the forms it holds for."""
    return [
        (reason, [name for name, own in reasons.items() if own == reason])
        for reason in dict.fromkeys(reasons.values())
    ]


def new_table(title: str) -> Table:
    return Table(
        box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=title, title_justify="left"
    )


def is_loss(analysis: Analysis) -> bool:
    return analysis.chosen.points.columns.get("y") == LOSS


def in_points(analysis: Analysis, value: float) -> str:
    if np.isnan(value):
        return UNIDENTIFIED
    if is_loss(analysis):
        return f"{value:.4f}"
    return f"> {100 * FAR:.0f}" if value > FAR else f"{100 * value:.2f}"


def tournament_table(analysis: Analysis) -> Table:
    unit = "nats" if is_loss(analysis) else "points"
    table = new_table(f"forms: error on the fitted rows and held out, in {unit}")
    table.add_column("form", no_wrap=True)
    for name in ("parameters", "AICc", "behind", "RMSE", "held out"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status")
    best = {analysis.tournament.best_aicc, analysis.tournament.best_rollout}
    for row in analysis.tournament.table().to_dict("records"):
        if row["status"] == "not applicable":
            continue
        told = [
            UNIDENTIFIED if np.isnan(row[key]) else f"{row[key]:.1f}" for key in ("aicc", "behind")
        ]
        count = UNIDENTIFIED if np.isnan(row["parameters"]) else f"{row['parameters']:.0f}"
        status = row["status"] if isinstance(row["status"], str) else "baseline"
        table.add_row(
            row["form"], count, *told, in_points(analysis, row["rmse"]),
            in_points(analysis, row["rollout"]), status,
            style="bold" if row["form"] in best else "",
        )  # fmt: skip
    shared = ", ".join(analysis.tournament.shared) or "nothing that all forms predict"
    table.caption = f"held out: mean over {shared}"
    table.caption_justify = "left"
    return table


def parameter_table(analysis: Analysis) -> Table:
    assert analysis.fit is not None
    law = analysis.fit.law
    table = new_table(f"{law.name}: {law.formula}  ({law.citation})")
    table.add_column("parameter", no_wrap=True)
    for name in ("estimate", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("meaning")
    for parameter in law.parameters:
        item = analysis.intervals[parameter.name]
        told = f"[{item.low:.4g}, {item.high:.4g}]"
        meaning = parameter.meaning + (f"; not identified: {item.reason}" if item.reason else "")
        estimate = UNIDENTIFIED if item.reason else f"{item.estimate:.5g}"
        table.add_row(parameter.name, estimate, told, meaning)
    for name, item in analysis.deltas.items():
        meaning = f"on {name}, least squares"
        if not item.identified:
            meaning += f"; not identified: {item.reason}"
            table.add_row("delta", UNIDENTIFIED, UNIDENTIFIED, meaning)
            continue
        told = f"[{item.low:.3g}, {item.high:.3g}]"
        table.add_row("delta", f"{item.estimate:.3g}", told, meaning)
    return table


def rollout_table(analysis: Analysis) -> Table:
    """A row for each form, a column for each split: mean error and signed bias."""
    rows = analysis.tournament.rollouts
    rows = rows[rows["form"] != ""]
    splits = list(dict.fromkeys(rows["split"]))
    unit = "nats" if is_loss(analysis) else "points"
    table = new_table(f"held out: mean absolute error and bias in {unit}")
    table.add_column("form", no_wrap=True)
    for split in splits:
        own = rows[rows["split"] == split].iloc[0]
        head = f"{SHORT.get(split, split)}\n{own['held']} rows\nx{own['factor']:.1f}"
        table.add_column(head, justify="right", no_wrap=True)
    has_intervals = bool(rows["covered"].notna().any())
    if has_intervals:
        table.add_column("inside", justify="right", no_wrap=True)
    for form, own in rows.groupby("form", sort=False):
        cells = [rollout_cell(analysis, own[own["split"] == split].iloc[0]) for split in splits]
        known = own[own["covered"].notna()]
        if len(known):
            cells.append(f"{100 * np.average(known['covered'], weights=known['held']):.0f} %")
        elif has_intervals:
            cells.append(UNIDENTIFIED)
        table.add_row(str(form), *cells, style="italic" if form in BASELINES else "")
    notes = ["inside: share of held-out rows in their 95 % prediction interval"] * has_intervals
    if rows["error"].isna().any():
        notes.append(f"{UNIDENTIFIED} {first_refusal(rows)}")
    table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def rollout_cell(analysis: Analysis, row: pd.Series) -> str:
    if np.isnan(row["error"]):
        return UNIDENTIFIED
    if is_loss(analysis):
        return f"{row['error']:.2f} {row['bias']:+.2f}"
    if row["error"] > FAR:
        return f"> {100 * FAR:.0f}"
    return f"{100 * row['error']:.1f} {100 * row['bias']:+.1f}"


def first_refusal(rows: pd.DataFrame) -> str:
    told = dict.fromkeys(
        f"{row['form']}: {row['status'].removeprefix('not identified: ')}"
        for row in rows[rows["error"].isna()].to_dict("records")
    )
    return "; ".join(list(told)[:2]) + (f"; and {len(told) - 2} more" if len(told) > 2 else "")


def sensitivity_table(analysis: Analysis) -> Table:
    rows = analysis.sensitivity
    keys = list(rows.columns[3:])
    table = new_table("the same law under other choices")
    table.add_column("choice", no_wrap=True)
    for name in ("rows", *keys):
        table.add_column(name, justify="right", no_wrap=True)
    told = set()
    for row in rows.to_dict("records"):
        values = [UNIDENTIFIED if pd.isna(row[key]) else f"{row[key]:.3g}" for key in keys]
        mark = MARKS.get(row["status"].partition(":")[0], "")
        told |= {f"{mark} {row['status'].partition(':')[0]}"} if mark else set()
        table.add_row(f"{row['choice']} {mark}".strip(), str(row["rows"]), *values)
    spans = find_spans(rows)
    for name, word in (("min", "least"), ("max", "largest")):
        values = [f"{value:.3g}" for value in spans.loc[name]]
        table.add_row(word, "", *values, style="bold")
    table.caption, table.caption_justify = ", ".join(sorted(told)), "left"
    return table
