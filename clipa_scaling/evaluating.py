"""--evaluate: what finished runs lack of what is asked for, its price, and launching that."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from clipa_scaling.children import find_children
from clipa_scaling.collect import load_tables
from clipa_scaling.evaluatefile import load_asked
from clipa_scaling.evaluation import FULL, Asked, asked_of, plan_evaluation
from clipa_scaling.finish import OK, finish, shown
from clipa_scaling.grid import Grid, Planned
from clipa_scaling.measured import find_missing
from clipa_scaling.plan import Plan, make_plan
from clipa_scaling.rundir import RunDir
from clipa_scaling.schema import TRIAL_STAGES
from clipa_scaling.show import MOST_ROWS, dollars, hours
from clipa_scaling.spec import run_id
from clipa_scaling.start import Launch

STAGE = "evaluate"  # of runs that no stage of the file plans


@dataclass(frozen=True)
class Missing:
    """The plan of what is missing, how many runs were looked at, and what is asked of them."""

    plan: Plan
    asked: Asked
    done: int

    def lines(self) -> list[str]:
        """What is missing, a line for each evaluation, with how many runs lack it."""
        lacking: Counter[tuple[str, str, str]] = Counter()
        for row in self.plan.rows:
            named = asked_of(row.planned.spec).evaluations()
            for item, protocol, size in (named[name] for name in row.planned.spec.evaluations):
                lacking[item.name, protocol, size] += 1
        return [
            f"{name}: {protocol}, {self.name_size(size)}: {count} of {self.done} runs"
            for (name, protocol, size), count in lacking.items()
        ]

    def name_size(self, size: str) -> str:
        return f"full size, {self.asked.full_px} px" if size == FULL else "training size"


def plan_missing(
    study: Plan, runs: Path, file: Path | None, wants: Callable[[Planned], bool]
) -> Missing:
    """The evaluation runs that a sweep's finished runs still need; `file`: what asks for them."""
    sweep = study.sweep
    asked, speak, packs = load_asked(sweep, file)
    done = [
        row.planned
        for row in study.rows
        if row.state.name == "done" and is_measured(row.planned) and wants(row.planned)
    ]
    children = find_children(runs, (run.id for run in done))
    planned = []
    for run in done:
        own, theirs = children.get(run.id, []), speak(run.spec)
        if run.lacks:
            only = tuple(item for item in theirs.evals if item.name == run.lacks)
            theirs = replace(theirs, evals=only)
        for names in find_missing(theirs, RunDir(runs / run.id), run.spec, own):
            spec = plan_evaluation(run.id, run.spec, theirs, names, STAGE)
            planned.append(Planned(run_id(spec), spec, {}))
    needed = {item.pack for run in planned for item in run.spec.evals}
    todo = replace(
        sweep,
        grid=Grid(tuple(planned), (), ()),
        packs=tuple(pack for pack in packs if str(pack.folder) in needed),
        missing=None,
    )
    return Missing(make_plan(todo, runs), asked, len(done))


def is_measured(run: Planned) -> bool:
    """Whether a run is one to evaluate: of short runs those that tuning cannot judge otherwise."""
    if run.spec.stage in TRIAL_STAGES:
        return bool(run.lacks)
    return run.spec.kind != "evaluate"


def print_missing(console: Console, found: Missing) -> None:
    """What is missing and what it takes."""
    plan = found.plan
    say(console, f"{plan.sweep.name}: {found.done} done runs, of which evaluations are missing:")
    lines = found.lines()
    for line in lines[:MOST_ROWS]:
        say(console, f"  {line}")
    if len(lines) > MOST_ROWS:
        say(console, f"  … {len(lines) - MOST_ROWS} more (--json has every run)")
    total, price = plan.total("gpu_hours"), plan.total("dollars")
    if math.isnan(total):
        say(console, "Price: unknown until the shards are packed, which counts their pictures.")
        return
    money = "" if math.isnan(price) else f", {dollars(price)}"
    say(
        console,
        f"Price: {hours(total)} GPU-hours{money} on {plan.sweep.resources.device}: one forward for "
        "each picture and prompt, at the speed that training is priced at; reading not counted.",
    )


def say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def evaluate(
    call: Launch, study: Plan, found: Missing, begin: Callable[[Launch, Plan], int]
) -> int:
    """Launch what is missing, and nothing else; at the end collect the whole sweep's tables."""
    if not found.plan.rows:
        return nothing_missing(call, study, found.done)
    print_missing(call.console, found)
    return begin(replace(call, study=study.sweep, wants=lambda _: True), found.plan)


def nothing_missing(call: Launch, study: Plan, done: int) -> int:
    """Say so; collect first where the tables lack what evaluation runs have measured since."""
    if not done:
        say(
            call.console,
            f"nothing to evaluate: {study.sweep.name} has no finished run of these",
        )
        return OK
    if not is_collected(study, call.runs, call.results):
        finish(call.console, study, call.runs, call.results)
    where = shown(call.results)
    say(call.console, f"nothing to evaluate: {done} done runs have all that is asked for: {where}")
    return OK


def is_collected(study: Plan, runs: Path, results: Path) -> bool:
    """Whether the tables know every finished evaluation run but those that stages plan."""
    try:
        known = set(load_tables(results)["evals"]["by"].dropna())
    except FileNotFoundError:
        return False
    known |= {row.planned.id for row in study.rows}
    children = find_children(runs, (row.planned.id for row in study.rows)).values()
    return all(child.id in known for listed in children for child in listed if child.is_done)
