"""The end of a launch: collect the tables, draw the figures, say what became of the runs."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from clipa_scaling.keptplan import changed_defaults, save_plan
from clipa_scaling.plan import Plan
from clipa_scaling.rundir import RunDir
from clipa_scaling.show import count_states
from clipa_scaling.yamlfile import SweepError

if TYPE_CHECKING:
    import pandas as pd

OK, FAILED, WRONG, STOPPED = 0, 1, 2, 130
SETTLED_BADLY = ("failed", "diverged")  # would end so again, hence run again only when asked
BAD = (*SETTLED_BADLY, "lost")


def check_runs_are_here(plan: Plan, runs: Path, results: Path) -> None:
    """Raise SweepError where collecting would empty tables made from another runs folder."""
    here = any((runs / row.planned.id).is_dir() for row in plan.rows)
    if not here and (results / "runs.csv").exists():
        raise SweepError(
            f"{shown(runs)}: holds none of the {len(plan.rows)} runs of {plan.sweep.path}, and "
            f"collecting would empty the tables in {shown(results)}; name their folder with --runs"
        )


def check_exclusions(plan: Plan, results: Path) -> list[str]:
    """What to know of the study's exclusions.yaml before days of training.

    Raises SweepError for a mistake in it.
    """
    if not (results / "exclusions.yaml").exists():
        return []
    from clipa_scaling.collect import load_tables  # slow to import
    from clipa_scaling.exclusions import read_exclusions

    known = [row.planned.id for row in plan.rows]
    if (results / "runs.parquet").exists():  # imported rows are in no plan
        runs = load_tables(results)["runs"]
        known += list(runs.loc[runs["imported"].fillna("") != "", "run"].dropna())
    entries = read_exclusions(results, known)
    return used_by_tuning(plan, [run for entry in entries for run in entry.runs])


def used_by_tuning(plan: Plan, left_out: Iterable[str]) -> list[str]:
    """A line for each run that is left out of tables' cells and decided a tuned value all the same.

    Without it tuning would wait for that run for ever.
    """
    users: dict[str, list[str]] = {}
    for item in plan.sweep.grid.tuned:
        for run in item.runs:
            users.setdefault(run, []).append(f"tune.{item.tuning.field}")
    return [
        f"{run} is left out by exclusions.yaml, and yet used by {', '.join(users[run])}"
        for run in dict.fromkeys(left_out)
        if run in users
    ]


def applies_exclusions(results: Path) -> bool:
    """Whether the tables were made with exclusions.yaml as it is; quick, for calls that do no more.

    A file that was edited is newer than the tables; one that was removed is still in them.
    """
    file, table = results / "exclusions.yaml", results / "runs.csv"
    if file.exists():
        return file.stat().st_mtime <= table.stat().st_mtime
    with table.open(newline="", encoding="utf-8") as lines:
        return not any(row.get("left_out") for row in csv.DictReader(lines))


def print_nothing_to_do(console: Console, plan: Plan, results: Path) -> None:
    states = [*(row.state.name for row in plan.rows), *("excluded" for _ in plan.excluded)]
    where = shown(results)
    console.print(
        f"nothing to do: {count_states(states)}. Tables and figures: {escape(where)}",
        soft_wrap=True,
    )


def stopped(console: Console) -> int:
    console.print("stopped; the same command goes on.")
    return STOPPED


def finish(
    console: Console, plan: Plan, runs: Path, results: Path, ended: Sequence[str] | None = None
) -> int:
    """Collect the tables, draw the figures, print the outcome; FAILED if a run ended badly.

    ended: lines on the runs that did, where the caller knows more than their folders tell.
    """
    # Slow to import, and a call with nothing to do must stay quick.
    from clipa_scaling import collect, exclusions, figures, imports, pipelines, tunetable

    changed = changed_defaults(plan, runs)
    tables = collect.collect(plan, runs)
    tables = imports.keep_imported(tables, results)
    left_out = exclusions.read_exclusions(results, tables["runs"]["run"].dropna())
    tables["runs"] = exclusions.mark_left_out(tables["runs"], left_out)
    if pipelines.has_stages(tables):
        tables["pipelines"] = pipelines.make_pipelines(tables)
    if plan.sweep.grid.tuned:
        tables["tuned"] = tunetable.make_tuned(plan.sweep.grid.tuned)
    otherwise = collect.evaluated_otherwise(plan, tables)
    if otherwise:
        console.print(
            f"[yellow]warning:[/] {otherwise} done runs were evaluated on other sets, at other "
            "sizes or with other prompts than the file asks for; what the tables have stays, and "
            "--evaluate adds the rest: python -m clipa_scaling.sweep "
            f"{escape(str(plan.sweep.path))} --evaluate",
            soft_wrap=True,
        )
    collect.save_tables(tables, results)
    os.utime(results / "runs.csv")  # see `applies_exclusions`
    if changed is None:  # else a later launch could no longer tell what it would redo
        save_plan(plan, runs)
    paths = figures.save_figures(tables, plan.sweep.name, results / "figures")
    print_findings(console, plan, tables, [run for entry in left_out for run in entry.runs])
    where = escape(shown(results))
    console.print(f"Tables: {where}/{{{','.join(tables)}}}.csv", soft_wrap=True)
    for path in paths:
        console.print(f"Figure: {escape(shown(path))}", soft_wrap=True)
    console.print(f"On one page: python -m clipa_scaling.report {where}", soft_wrap=True)
    if ended is None:
        return print_ended_badly(console, plan, runs)
    for line in ended:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return FAILED if ended else OK


def print_findings(
    console: Console, plan: Plan, tables: dict[str, pd.DataFrame], left_out: Sequence[str]
) -> None:
    """What came out, what it cost, what to know before trusting it, tuned values, the verdict."""
    from clipa_scaling import exclusions, inverse, outcome, provenance, tunetable

    outcome.print_outcome(console, tables)
    outcome.print_hours(console, tables["runs"])
    warnings = [*provenance.find_mixed(tables), *exclusions.warn_of_failures(tables["runs"])]
    for warning in [*warnings, *used_by_tuning(plan, left_out)]:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    if "tuned" in tables:
        tunetable.print_tuned(console, plan.sweep.grid.tuned)
    inverse.print_verdicts(console, tables)


def print_ended_badly(console: Console, plan: Plan, runs: Path) -> int:
    """A line for every run that failed, diverged or was lost; FAILED if there is one."""
    ended = [row for row in plan.rows if row.state.name in BAD and not row.is_settled]
    for row in ended:
        reason = escape(f"{row.planned.id}: {row.state.reason}")
        attempt = RunDir(runs / row.planned.id).last_attempt()
        where = escape(f" (log: {shown(attempt / 'log')})") if attempt else ""
        console.print(f"[red]{row.state.name}[/] {reason}{where}", soft_wrap=True)
    if any(row.state.name in SETTLED_BADLY for row in ended):
        console.print("To run failed runs again: --retry failed")
    return FAILED if ended else OK


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
