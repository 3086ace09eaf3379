"""Starting what is left of a sweep: on Slurm, in a pool of processes here, or in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from clipa_scaling import rundir
from clipa_scaling.finish import (
    FAILED,
    OK,
    SETTLED_BADLY,
    applies_exclusions,
    finish,
    print_ended_badly,
    print_nothing_to_do,
    stopped,
)
from clipa_scaling.grid import Planned
from clipa_scaling.keptplan import is_saved, removed_runs, save_plan, sweep_folder
from clipa_scaling.launch import commands, follow, job, local, packs
from clipa_scaling.launch.batch import latest_tasks, load_all_batches, load_batches
from clipa_scaling.launch.lock import lock
from clipa_scaling.launch.queue import Queue, refresh_queue
from clipa_scaling.launch.status import read_statuses
from clipa_scaling.launch.submit import awaited
from clipa_scaling.launch.table import headline, status_table
from clipa_scaling.plan import Plan, PlanRow, make_plan, over_budget
from clipa_scaling.refuse import check_batches, refuse
from clipa_scaling.rundir import RunDir
from clipa_scaling.schema import TRIAL_STAGES
from clipa_scaling.show import MOST_ROWS, print_plan
from clipa_scaling.spec import spec_to_json
from clipa_scaling.sweepfile import Sweep
from clipa_scaling.yamlfile import SweepError


@dataclass(frozen=True)
class Launch:
    """One call of the command: where, what of the sweep, and how.

    study: the sweep whose finished runs are evaluated, where that is all that is launched.
    """

    console: Console
    runs: Path
    results: Path
    wants: Callable[[Planned], bool]
    retry: bool = False
    accept_changed: bool = False
    jobs: int | None = None
    follow: bool = False
    study: Sweep | None = None


def start_local(launch: Launch, plan: Plan, inline: bool = False) -> int:
    """Pack, run what is left in a pool of processes here, collect; the exit code."""
    todo, queued = choose(plan, launch), in_queue(plan, launch)
    if queued:
        say_in(launch)(
            f"{follow.count_runs(len(queued))} in Slurm's queue are left to it; to have them here: "
            "--cancel first"
        )
        todo = [row for row in todo if row.planned.id not in queued]
        if not todo:
            return OK
    if not todo:
        return nothing_to_do(launch, plan)
    refuse(plan, launch.runs, launch.accept_changed)
    with lock(launch.runs, plan.sweep.name):
        states = run_phases(launch, plan, todo, inline)
    if states is None:
        return stopped(launch.console)
    code = gather(launch, plan.sweep.again())
    for identity, state in states.items():
        if state.name == "failed" and state.attempt == 0:  # before it could write so in its folder
            launch.console.print(f"failed {identity}: {state.reason}", markup=False, soft_wrap=True)
            code = FAILED
    unstarted = {"planned", "stopped"} & {state.name for state in states.values()}
    return stopped(launch.console) if unstarted and code == OK else code


def gather(launch: Launch, sweep: Sweep, ended: Sequence[str] | None = None) -> int:
    """Collect after the runs of a sweep, or those that evaluate another's; the exit code."""
    plan = make_plan(sweep, launch.runs)
    if launch.study is None:
        return finish(launch.console, plan, launch.runs, launch.results, ended)
    study = make_plan(launch.study, launch.runs)
    finish(launch.console, study, launch.runs, launch.results, ended or [])
    if ended is None:
        return print_ended_badly(launch.console, plan, launch.runs)
    return FAILED if ended else OK


def choose(plan: Plan, launch: Launch) -> list[PlanRow]:
    """The runs to start here: what is left, failed runs only when asked for."""
    settled = () if launch.retry else SETTLED_BADLY
    return [
        row
        for row in plan.left
        if row.state.name not in settled and not row.planned.waits and launch.wants(row.planned)
    ]


def in_queue(plan: Plan, launch: Launch) -> set[str]:
    """The runs that a Slurm that answers has in its queue."""
    batches = load_all_batches(launch.runs)
    queue = refresh_queue(launch.runs, awaited(batches, Queue())) if batches else Queue()
    if queue.error or not batches:
        return set()
    statuses = read_statuses(plan, launch.runs, batches, queue)
    return {status.planned.id for status in statuses if status.job and status.is_alive}


def nothing_to_do(launch: Launch, plan: Plan) -> int:
    """Say so; collect first where the tables are not this plan's."""
    if launch.study is not None:  # what is left has failed before
        return print_ended_badly(launch.console, plan, launch.runs)
    say_removed(launch, plan)
    whole = all(launch.wants(row.planned) for row in plan.rows)
    collected = is_saved(plan, launch.runs) and (launch.results / "runs.csv").exists()
    if whole and not (collected and applies_exclusions(launch.results)):
        return finish(launch.console, plan, launch.runs, launch.results)
    print_nothing_to_do(launch.console, plan, launch.results)
    code = print_ended_badly(launch.console, plan, launch.runs)
    return FAILED if say_waiting(launch, plan) else code


def say_waiting(launch: Launch, plan: Plan) -> bool:
    """Whether runs that are asked for wait for tuning whose runs are not; says so."""
    unasked = [row.planned for row in plan.left if not launch.wants(row.planned)]
    short = {run.trial for run in unasked if run.spec.stage == TRIAL_STAGES[0]}
    wanted = [row.planned for row in plan.left if launch.wants(row.planned)]
    waiting = [run for run in wanted if short.intersection(run.waits)]
    if not waiting:
        return False
    fields = ", ".join(dict.fromkeys(name for run in waiting for name in run.waits))
    say_in(launch)(
        f"{follow.count_runs(len(waiting))} of --only wait for tuning of {fields}, whose runs are "
        f"not among them: --only stage={TRIAL_STAGES[0]} first, or leave --only out"
    )
    return True


def run_phases(
    launch: Launch, plan: Plan, todo: list[PlanRow], inline: bool
) -> dict[str, rundir.RunState] | None:
    """Short runs that tune, further ones where those call for them, then the cells they tuned.

    The final states of all, or None when stopped while packing.
    """
    states: dict[str, rundir.RunState] = {}
    if launch.study is None:
        print_plan(launch.console, plan)
    say_removed(launch, plan)
    while todo:
        short = [row for row in todo if row.planned.spec.stage == TRIAL_STAGES[0]]
        found = run_here(launch, plan, short or todo, inline)
        if found is None:
            return None
        states |= found
        if {"planned", "stopped"} & {state.name for state in found.values()}:
            break
        plan = make_plan(plan.sweep.again(), launch.runs)
        todo = [row for row in choose(plan, launch) if row.planned.id not in states]
        excess = over_budget(plan) if todo else None
        if excess:  # a ladder has grown
            raise SweepError(excess)
    return states


def run_here(
    launch: Launch, plan: Plan, todo: list[PlanRow], inline: bool
) -> dict[str, rundir.RunState] | None:
    """Pack, then run; the runs' final states, or None when stopped while packing."""
    runs = launch.runs
    if not packs.make_packs(plan.sweep.packs, local.count_cores()):
        return None
    check_batches(plan)
    keep_plan(launch, plan)
    # The longest first, so that the last slot to end ends early; parents come before children.
    todo = sorted(todo, key=lambda row: (bool(row.planned.spec.parent), -row.cost.train_flops))
    for row in todo:
        rundir.make_run(RunDir(runs / row.planned.id), spec_to_json(row.planned.spec))
    planned = [row.planned for row in todo]
    if inline:
        ids = {item.id for item in planned}
        planned = [row.planned for row in plan.rows if row.planned.id in ids]  # parents first
        for item in planned:
            launch.console.rule(item.id)
            job.run_inline(runs / item.id)
        return {item.id: rundir.read_state(RunDir(runs / item.id)) for item in planned}
    logs = sweep_folder(runs, plan.sweep.name) / "logs"
    return local.run_pool(runs, planned, local.find_slots(launch.jobs), logs, launch.console)


def keep_plan(launch: Launch, plan: Plan) -> None:
    """Keep a sweep's plan for later calls; that of evaluations alone is none of the sweep's."""
    if launch.study is None:
        save_plan(plan, launch.runs)


def say_removed(launch: Launch, plan: Plan) -> None:
    """Name runs that the file had at the last launch and has no more: they stay as they are."""
    if launch.study is not None:
        return
    removed = removed_runs(plan, launch.runs)
    batches = latest_tasks(load_batches(launch.runs, plan.sweep.name))
    if removed:
        queued = bool(set(removed) & set(batches))
        going = "; what of them is queued goes on; to end it: --cancel --only RUN" if queued else ""
        more = f" and {len(removed) - 3} more" if len(removed) > 3 else ""
        launch.console.print(
            f"no longer in the file: {len(removed)} runs ({', '.join(removed[:3])}{more}); they "
            f"stay on disk{going}",
            markup=False,
            soft_wrap=True,
        )


def start_slurm(launch: Launch, plan: Plan) -> int:
    """Submit what is left; with `follow`, stay until it is over and collect; the exit code."""
    if all(row.is_settled for row in plan.rows if launch.wants(row.planned)):
        return nothing_to_do(launch, plan)
    refuse(plan, launch.runs, launch.accept_changed, here=False)
    check_batches(plan)
    say_removed(launch, plan)
    launcher = follow.Launcher(plan.sweep, launch.runs, retry=launch.retry, wants=launch.wants)
    try:
        if launch.follow:
            found = follow.follow(launcher, say_in(launch), show_in(launch))
        else:
            found = launcher.round()
            keep_plan(launch, found.plan)
            for line in follow.describe(found):
                say_in(launch)(line)
    except KeyboardInterrupt:
        launch.console.print(
            "detached: what is in the queue goes on; the same command re-attaches, and lets start "
            "what was still held"
        )
        return OK
    except commands.Refused as error:
        raise SweepError(
            f"{plan.sweep.path}: Slurm refuses: {error}; see the slurm block"
        ) from None
    except commands.QueueError as error:
        say_in(launch)(f"Slurm does not answer: {error}; the same command goes on once it does")
        return FAILED
    return conclude(launch, launcher, found)


def conclude(launch: Launch, launcher: follow.Launcher, found: follow.Round) -> int:
    """Collect once nothing is at work; else say how it stands."""
    refused = found.submitted.refused
    if found.is_over and not refused:
        return gather(launch, launcher.sweep, follow.explain_failures(found, launcher))
    if found.stopped_by:
        say_in(launch)(follow.stop_line(found))
        return FAILED
    waiting = False
    if not found.submitted.batches and not refused:
        said = f"nothing to submit: {follow.summary(found)}."
        launch.console.print(said, soft_wrap=True)
        waiting = say_waiting(launch, found.plan)
    launch.console.print("How it stands: --status; to stay and submit what follows: --follow")
    return FAILED if refused or waiting else OK


def say_in(launch: Launch) -> Callable[[str], None]:
    return lambda line: launch.console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_in(launch: Launch) -> Callable[[follow.Round], None]:
    """A table on a terminal, a line elsewhere, and only when something changed."""
    last: list[str] = []

    def show(found: follow.Round) -> None:
        if not last:
            keep_plan(launch, found.plan)
        said = follow.summary(found)
        if last == [said]:
            return
        last[:] = [said]
        title = headline(found.plan, found.statuses, found.queue, True)
        if launch.console.is_terminal:
            launch.console.print(status_table(title, found.statuses, MOST_ROWS))
        else:
            launch.console.print(title, markup=False, highlight=False, soft_wrap=True)

    return show
