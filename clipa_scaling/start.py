"""Starting what is left of a sweep: on Slurm, in a pool of processes here, or in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from clipa_scaling import rundir
from clipa_scaling.extras import MissingPackage, check_loggers, check_tokenizers
from clipa_scaling.finish import (
    FAILED,
    OK,
    SETTLED_BADLY,
    finish,
    print_ended_badly,
    print_nothing_to_do,
    stopped,
)
from clipa_scaling.grid import Planned
from clipa_scaling.launch import commands, follow, job, local, packs
from clipa_scaling.launch.batch import latest_tasks, load_all_batches, load_batches
from clipa_scaling.launch.lock import lock
from clipa_scaling.launch.queue import Queue, refresh_queue
from clipa_scaling.launch.status import read_statuses
from clipa_scaling.launch.submit import awaited
from clipa_scaling.launch.table import headline, status_table
from clipa_scaling.plan import (
    Plan,
    PlanRow,
    changed_defaults,
    is_saved,
    make_plan,
    over_budget,
    removed_runs,
    save_plan,
    sweep_folder,
)
from clipa_scaling.rundir import RunDir
from clipa_scaling.show import MOST_ROWS, print_plan
from clipa_scaling.spec import spec_to_json
from clipa_scaling.yamlfile import SweepError

TRAINED = ("pretrain", "decay", "finetune")


@dataclass(frozen=True)
class Launch:
    """One call of the command: where, what of the sweep, and how."""

    console: Console
    runs: Path
    results: Path
    wants: Callable[[Planned], bool]
    retry: bool = False
    accept_changed: bool = False
    jobs: int | None = None
    follow: bool = False


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
        states = run_here(launch, plan, todo, inline)
    if states is None:
        return stopped(launch.console)
    code = finish(launch.console, make_plan(plan.sweep, launch.runs), launch.runs, launch.results)
    for identity, state in states.items():
        if state.name == "failed" and state.attempt == 0:  # before it could write so in its folder
            launch.console.print(f"failed {identity}: {state.reason}", markup=False, soft_wrap=True)
            code = FAILED
    unstarted = {"planned", "stopped"} & {state.name for state in states.values()}
    return stopped(launch.console) if unstarted and code == OK else code


def choose(plan: Plan, launch: Launch) -> list[PlanRow]:
    """The runs to start here: what is left, failed runs only when asked for."""
    settled = {"done"} if launch.retry else {"done", *SETTLED_BADLY}
    return [row for row in plan.rows if row.state.name not in settled and launch.wants(row.planned)]


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
    say_removed(launch, plan)
    whole = all(launch.wants(row.planned) for row in plan.rows)
    if whole and not (is_saved(plan, launch.runs) and (launch.results / "runs.csv").exists()):
        return finish(launch.console, plan, launch.runs, launch.results)
    print_nothing_to_do(launch.console, plan, launch.results)
    return print_ended_badly(launch.console, plan, launch.runs)


def refuse(plan: Plan, runs: Path, accept_changed: bool, here: bool = True) -> None:
    """Raise SweepError where nothing may be launched: no data, over budget, changed defaults."""
    if plan.sweep.missing:
        raise SweepError(plan.sweep.missing)
    try:
        check_loggers(row.planned.spec for row in plan.left)
        check_tokenizers(row.planned.spec for row in plan.left)
    except MissingPackage as error:
        raise SweepError(f"{plan.sweep.path}: {error}") from None
    excess = over_budget(plan)
    if excess:
        raise SweepError(excess)
    for row in plan.left:
        spec = row.planned.spec
        if spec.kind not in TRAINED:
            raise SweepError(
                f"{plan.sweep.path}: stage {spec.stage}: kind={spec.kind} is planned only; "
                f"this version trains {' and '.join(TRAINED)}: leave the stage out"
            )
        if spec.kind == "decay":
            check_trunk(plan, row, runs)
        if here and spec.gpus > 1:
            raise SweepError(
                f"{plan.sweep.path}: gpus={spec.gpus}: a run here uses one device; allowed: 1, or "
                "a cluster"
            )
    changed = None if accept_changed else changed_defaults(plan, runs)
    if changed:
        raise SweepError(changed)


def check_trunk(plan: Plan, row: PlanRow, runs: Path) -> None:
    """SweepError for a decay run whose parent is done and kept no state that it could leave."""
    spec = row.planned.spec
    trunk = RunDir(runs / spec.parent)
    leaves = spec.samples - spec.decay_samples
    kept = trunk.kept_states()
    if trunk.done.exists() and not any(samples <= leaves for samples in kept):
        listed = ", ".join(map(str, kept)) or "none"
        raise SweepError(
            f"{plan.sweep.path}: stage {spec.stage}: {spec.parent} is done and kept no state at "
            f"sample {leaves} or before (kept: {listed}); plan decay stages before their parent is "
            "trained, remove its folder, or give another seed"
        )


def run_here(
    launch: Launch, plan: Plan, todo: list[PlanRow], inline: bool
) -> dict[str, rundir.RunState] | None:
    """Pack, then run; the runs' final states, or None when stopped while packing."""
    runs = launch.runs
    print_plan(launch.console, plan)
    say_removed(launch, plan)
    if not packs.make_packs(plan.sweep.packs, local.count_cores()):
        return None
    check_batches(plan)
    save_plan(plan, runs)
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


def check_batches(plan: Plan) -> None:
    """Raise SweepError where a batch would hold a pair twice, now that the pairs are counted."""
    for row in plan.left:
        spec = row.planned.spec
        head = rundir.read_json(Path(spec.pack) / "pack.json")
        if head is not None and spec.batch_size > head["pairs"]:
            raise SweepError(
                f"{plan.sweep.path}: batch_size={spec.batch_size} is more than the "
                f"{head['pairs']:,} pairs of the data; allowed: up to that, so that no batch "
                "holds a pair twice"
            )


def say_removed(launch: Launch, plan: Plan) -> None:
    """Name runs that the file had at the last launch and has no more: they stay as they are."""
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
    if all(row.state.name == "done" for row in plan.rows if launch.wants(row.planned)):
        return nothing_to_do(launch, plan)
    refuse(plan, launch.runs, launch.accept_changed, here=False)
    check_batches(plan)
    say_removed(launch, plan)
    launcher = follow.Launcher(plan.sweep, launch.runs, retry=launch.retry, wants=launch.wants)
    try:
        if launch.follow:
            found = follow.follow(launcher, say_in(launch), show_in(launch, plan))
        else:
            found = launcher.round()
            save_plan(plan, launch.runs)
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
        plan = make_plan(launcher.sweep, launch.runs)
        ended = follow.explain_failures(found, launcher)
        return finish(launch.console, plan, launch.runs, launch.results, ended)
    if found.stopped_by:
        say_in(launch)(follow.stop_line(found))
        return FAILED
    if not found.submitted.batches and not refused:
        said = f"nothing to submit: {follow.summary(found)}."
        launch.console.print(said, soft_wrap=True)
    launch.console.print("How it stands: --status; to stay and submit what follows: --follow")
    return FAILED if refused else OK


def say_in(launch: Launch) -> Callable[[str], None]:
    return lambda line: launch.console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_in(launch: Launch, plan: Plan) -> Callable[[follow.Round], None]:
    """A table on a terminal, a line elsewhere, and only when something changed."""
    last: list[str] = []

    def show(found: follow.Round) -> None:
        if not last:
            save_plan(plan, launch.runs)
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
