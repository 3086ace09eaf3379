"""Does a larger model need fewer tokens? The verdict, from runs alone and not from a law.

python -m clipa_scaling.inverse RESULTS_DIR prints multipliers, slopes, verdict and sentence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape

from clipa_scaling.answers import BAND
from clipa_scaling.compared import LENGTHS, SIZES, Compared, find_compared
from clipa_scaling.exclusions import load_study
from clipa_scaling.judge import DRAWS, judge
from clipa_scaling.papertables import STAGES, TABLES, compare_cells, read_cells
from clipa_scaling.schema import TableError
from clipa_scaling.tolerated import EPSILON
from clipa_scaling.verdict import Verdict
from clipa_scaling.verdicttable import print_verdict

LEAST_DRAWS = 200
__all__ = ["judge", "judge_study", "main", "print_verdicts"]


def judge_study(tables: dict[str, pd.DataFrame]) -> list[Verdict]:
    """The verdict of every comparison of two sizes, lengths and sample counts at least."""
    several = ("model", "length", "samples")
    return [
        judge(compared)
        for compared in find_compared(tables)
        if all(compared.runs[name].nunique() > 1 for name in several)
    ]


def print_verdicts(console: Console, tables: dict[str, pd.DataFrame]) -> None:
    for verdict in judge_study(tables):
        print_verdict(console, verdict)
        warn_of_unmeasured(console, verdict.compared)


def warn_of_unmeasured(console: Console, compared: Compared) -> None:
    """A line on done runs that have no value at their end, and so no say."""
    runs = compared.unmeasured
    if runs:
        console.print(
            f"[yellow]warning:[/] {len(runs)} done run{'s' * (len(runs) > 1)} without "
            f"{compared.measure} on {compared.eval_set} not compared, such as {escape(runs[0])}; "
            "where such runs cluster in size or length, an answer leans",
            soft_wrap=True,
        )


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.inverse", description="Does a larger model need fewer tokens?"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("results", type=Path, nargs="?", help="a folder, such as results/NAME")
    source.add_argument("--published", choices=TABLES, help="a table of the papers")
    parser.add_argument("--measure", help="by default the study's main one")
    parser.add_argument("--set", help="by default the first with the measure")
    parser.add_argument("--stage", help="by default the last finetunes, else pretrain and decay")
    parser.add_argument("--length", choices=LENGTHS, default=LENGTHS[0])
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="what N counts")
    parser.add_argument("--full", type=int, help="the reference's tokens, by default the most")
    parser.add_argument("--epsilon", type=float, default=EPSILON, help="m may be 1 more than this")
    parser.add_argument("--band", type=float, default=BAND, help="slopes that count as none")
    parser.add_argument("--seed-sd", type=float, help="noise of seeds, a fraction of 1")
    parser.add_argument("--draws", type=int, default=DRAWS)
    given = parser.parse_args(arguments)
    if given.draws < LEAST_DRAWS:
        parser.error(f"--draws {given.draws}: allowed: {LEAST_DRAWS} or more, for ends of 95 %")
    if given.epsilon <= 0 or given.band < 0:
        parser.error(
            f"--epsilon {given.epsilon:g} --band {given.band:g}: allowed: above 0, and 0 or more"
        )
    return given


def read_study(given: argparse.Namespace) -> list[Compared]:
    return find_compared(
        load_study(given.results),
        measure=given.measure,
        eval_set=given.set,
        stage=given.stage,
        length=given.length,
        size=given.size,
        full=given.full,
    )


def read_published(given: argparse.Namespace) -> list[Compared]:
    cells = read_cells()
    chosen = (cells["table"] == given.published) & (cells["stage"] == (given.stage or STAGES[0]))
    return compare_cells(cells[chosen], given.size)


def list_choices(given: argparse.Namespace) -> str:
    """What there is to choose from."""
    if given.published:
        return f"--stage {', '.join(STAGES)}"
    tables = load_study(given.results)
    evals = tables["evals"]
    pairs = evals[evals["name"] != "loss"].drop_duplicates(["name", "set"])
    named = zip(pairs["name"], pairs["set"], strict=True)
    told = ", ".join(f"{name} on {where}" for name, where in named)
    stages = ", ".join(dict.fromkeys(tables["runs"]["stage"].dropna()))
    return f"{told or 'no evaluations'}; stages {stages or 'none'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where there are no tables, or none that can be compared."""
    given = read_arguments(arguments)
    try:
        found = read_published(given) if given.published else read_study(given)
    except (FileNotFoundError, TableError) as error:
        print(error, file=sys.stderr)
        return 1
    if not found:
        asked = [given.measure, given.set, given.stage]
        named = ", ".join(name for name in asked if name) or "the main measure"
        why = f"no finished, annealed run has {named} at its end"
        print(
            f"{given.results or given.published}: {why}; the tables have {list_choices(given)}",
            file=sys.stderr,
        )
        return 1
    for compared in found:
        verdict = judge(
            compared,
            seed_sd=given.seed_sd,
            band=given.band,
            draws=given.draws,
            epsilon=given.epsilon,
        )
        print_verdict(Console(), verdict)
        warn_of_unmeasured(Console(), compared)
    return 0


if __name__ == "__main__":
    sys.exit(main())
