"""Laws of a study: `python -m clipa_scaling.fit results/NAME` fits, prints, saves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import clipa_scaling.laws  # noqa: F401, registers the forms
from clipa_scaling.analysis import DRAWS, Analysis, analyse, say, tell_levels, to_json
from clipa_scaling.checklist import as_markdown
from clipa_scaling.collect import load_tables
from clipa_scaling.compared import SIZES
from clipa_scaling.exclusions import tell_left_out
from clipa_scaling.lawform import LAWS, LawError
from clipa_scaling.points import LOSS, Chosen, choose_points
from clipa_scaling.rollout import BASELINES
from clipa_scaling.rundir import write_bytes
from clipa_scaling.schema import TableError
from clipa_scaling.sensitivity import find_spans
from clipa_scaling.solve import Options, Points

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
    for text in analysis.tournament.warnings:
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
        table.add_row(parameter.name, f"{item.estimate:.5g}", told, meaning)
    for name, item in analysis.deltas.items():
        told = f"[{item.low:.3g}, {item.high:.3g}]"
        table.add_row("delta", f"{item.estimate:.3g}", told, f"on {name}, least squares")
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
    table.add_column("inside", justify="right", no_wrap=True)
    for form, own in rows.groupby("form", sort=False):
        cells = [rollout_cell(analysis, own[own["split"] == split].iloc[0]) for split in splits]
        known = own[own["covered"].notna()]
        inside = UNIDENTIFIED
        if len(known):
            inside = f"{100 * np.average(known['covered'], weights=known['held']):.0f} %"
        table.add_row(str(form), *cells, inside, style="italic" if form in BASELINES else "")
    notes = ["inside: share of held-out rows in their 95 % prediction interval"]
    if rows["error"].isna().any():
        notes.append(f"{UNIDENTIFIED} {first_refusal(rows)}")
    table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def rollout_cell(analysis: Analysis, row: pd.Series) -> str:
    if np.isnan(row["error"]):
        return UNIDENTIFIED
    if is_loss(analysis):
        return f"{row['error']:.3f} {row['bias']:+.3f}"
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


# The command


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.fit",
        description="Fit laws to a study: forms compared, one with intervals, rollouts, choices, "
        "and the checklist of what a reader needs to fit again.",
    )
    parser.add_argument("results", type=Path, nargs="?", help="a folder such as results/NAME")
    parser.add_argument("--law", choices=LAWS, default="primary", help="the one to look at")
    parser.add_argument("--measure", help="by default the study's main one; `loss` is a loss")
    parser.add_argument("--set", help="by default the first with the measure")
    parser.add_argument("--stage", help="by default the last finetunes, else pretrain and decay")
    parser.add_argument("--protocol", help="by default common, else the only one")
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="what N counts")
    parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE",
                        help="only such runs, as image_reduction=resize; repeatable")  # fmt: skip
    parser.add_argument("--scale", choices=("logit", "raw", "log"), help="of residuals; by default "
                        "logit, of a loss log")  # fmt: skip
    parser.add_argument("--delta", type=float, help="of Huber's function, on the scale; by default "
                        "1.345 standard deviations, of a loss 1e-3; inf is least squares")  # fmt: skip
    parser.add_argument("--worst", type=float, help="E0, the error of guessing: 1 - 1/classes, or "
                        "ln(batch) of a loss; by default 1 (imagenet1k .999)")  # fmt: skip
    parser.add_argument("--starts", type=int, default=Options.starts, help="of each search")
    parser.add_argument("--draws", type=int, default=DRAWS, help="of prediction intervals; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of starts and draws")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="everything, 17 digits")
    return parser.parse_args(arguments)


def read_where(given: Sequence[str]) -> dict[str, str]:
    for item in given:
        if "=" not in item:
            raise TableError(f"--where {item}: allowed: COLUMN=VALUE, as image_reduction=resize")
    return {name: value for name, _, value in (item.partition("=") for item in given)}


def choose_all(
    tables: dict[str, pd.DataFrame], given: argparse.Namespace, where: Mapping[str, str]
) -> tuple[Chosen, dict[str, Points], str]:
    """The points asked for; the same under other counts of N and with what was left out; a word."""

    def choose(size: str, left_out: bool = False) -> Chosen:
        return choose_points(
            tables, columns={"N": size}, measure=given.measure, eval_set=given.set,
            stage=given.stage, protocol=given.protocol, where=where, left_out=left_out,
        )  # fmt: skip

    others = {}
    for size in SIZES:
        if size != given.size and tables["runs"][size].notna().any():
            points = choose(size).points
            if "N" in points.x:
                others[f"N = {size}"] = points
    told = tell_left_out(tables["runs"])
    if told:
        others["with the runs left out"] = choose(given.size, left_out=True).points
    return choose(given.size), others, told or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where there are no tables, or none that can be fitted."""
    given = read_arguments(arguments)
    try:
        tables = load_tables(given.results)
        chosen, others, exclusions = choose_all(tables, given, read_where(given.where))
        scale = given.scale or ("log" if chosen.points.columns["y"] == LOSS else "logit")
        options = Options(scale=scale, delta=given.delta, starts=given.starts, seed=given.seed)
        analysis = analyse(
            chosen, law=given.law, options=options, worst=given.worst, draws=given.draws,
            others=others, exclusions=exclusions,
        )  # fmt: skip
    except (FileNotFoundError, TableError, LawError) as error:
        print(error, file=sys.stderr)
        return 1
    print_analysis(Console(), analysis)
    if given.save is not None:
        write_bytes(given.save, to_json(analysis).encode())
        print(f"saved: {given.save}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
