"""The end of a launch: collect the tables, draw the figures, say what became of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from clipa_scaling.plan import Plan, changed_defaults, save_plan
from clipa_scaling.rundir import RunDir
from clipa_scaling.show import count_states
from clipa_scaling.yamlfile import SweepError

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
    from clipa_scaling import collect, figures, inverse, outcome

    changed = changed_defaults(plan, runs)
    tables = collect.collect(plan, runs)
    otherwise = collect.evaluated_otherwise(plan, tables)
    if otherwise:
        console.print(
            f"[yellow]warning:[/] {otherwise} done runs were evaluated on other sets or with other "
            "prompts than the file now asks for; their evaluations stay what they were"
        )
    collect.save_tables(tables, results)
    if changed is None:  # else a later launch could no longer tell what it would redo
        save_plan(plan, runs)
    paths = figures.save_figures(tables, plan.sweep.name, results / "figures")
    outcome.print_outcome(console, tables)
    inverse.print_verdicts(console, tables)
    where = escape(shown(results))
    console.print(f"Tables: {where}/{{runs,evals,curves}}.csv", soft_wrap=True)
    for path in paths:
        console.print(f"Figure: {escape(shown(path))}", soft_wrap=True)
    if ended is None:
        return print_ended_badly(console, plan, runs)
    for line in ended:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return FAILED if ended else OK


def print_ended_badly(console: Console, plan: Plan, runs: Path) -> int:
    """A line for every run that failed, diverged or was lost; FAILED if there is one."""
    ended = [row for row in plan.rows if row.state.name in BAD]
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
