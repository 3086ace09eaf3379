"""`--calibrate`: measure how fast a sweep's runs train, so that its plan is priced by that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from clipa_scaling.finish import FAILED, OK, STOPPED, shown
from clipa_scaling.launch import commands
from clipa_scaling.launch.calibrate import (
    Calibration,
    Cell,
    list_cells,
    measure_here,
    missing_cells,
)
from clipa_scaling.launch.choose import matches
from clipa_scaling.launch.local import find_slots, visible_gpus
from clipa_scaling.launch.lock import lock
from clipa_scaling.plan import make_plan
from clipa_scaling.show import hours, say_pricing
from clipa_scaling.speed import find_calibration
from clipa_scaling.sweepfile import Sweep
from clipa_scaling.yamlfile import SweepError


@dataclass(frozen=True)
class Asked:
    """One call: minutes of steps for each cell, which runs, and where; jobs: at a time, here."""

    minutes: float
    only: Sequence[str]
    on_slurm: bool
    jobs: int | None


def calibrate(console: Console, sweep: Sweep, runs: Path, asked: Asked) -> int:
    """Measure what is not measured yet; say the price before and after; the exit code."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    before = make_plan(sweep, runs)
    device = sweep.resources.device
    rows = [row for row in before.rows if matches(row.planned, asked.only)]
    if not rows:
        raise SweepError(f"{sweep.path}: --only {' '.join(asked.only)} fits none of its runs")
    cells = list_cells(rows, device)
    todo = missing_cells(cells, runs, device)
    if len(todo) < len(cells):
        say(
            f"measured already: {len(cells) - len(todo)} of {len(cells)}; to measure one again, "
            f"delete its file in {shown(find_calibration(runs))}"
        )
    if not todo:
        say(say_pricing(before))
        return OK
    work = Calibration(runs, device, asked.minutes, say)
    is_over = on_slurm(work, sweep, todo) if asked.on_slurm else here(work, sweep, todo, asked.jobs)
    if not is_over:
        return STOPPED
    after = make_plan(sweep, runs)
    was, now = hours(before.total("gpu_hours")), hours(after.total("gpu_hours"))
    say(
        f"measured {len(work.measured)} of {len(todo)}; GPU-hours of the sweep: {was} before, {now}"
    )
    say(say_pricing(after))
    return FAILED if work.failed else OK


def here(work: Calibration, sweep: Sweep, cells: Sequence[Cell], jobs: int | None) -> bool:
    """In processes of this machine, one at a time unless told otherwise; False after Ctrl-C.

    Each has the cores that a run of the sweep would have here.
    """
    if not work.device.startswith("cpu") and not visible_gpus():
        raise SweepError(
            f"{sweep.path}: resources.gpu={work.device} is not here: no GPU is visible; allowed: "
            "cpu-core, or a machine or cluster that has one"
        )
    several = next((cell for cell in cells if cell.row.planned.spec.gpus > 1), None)
    if several is not None:
        raise SweepError(
            f"{sweep.path}: {several.name} trains on gpus={several.row.planned.spec.gpus}, and "
            "here each measurement has one; measure it with --cluster slurm, or others with "
            "--only gpus=1"
        )
    slots = find_slots(jobs)
    with lock(work.runs, sweep.name):
        is_over = measure_here(work, cells, slots if jobs else slots[:1])
    if not is_over:
        work.say("stopped; what is measured is kept, and the same command goes on")
    return is_over


def on_slurm(work: Calibration, sweep: Sweep, cells: Sequence[Cell]) -> bool:
    """In jobs of the sweep's partition, waited for; False when Ctrl-C left them to themselves."""
    from clipa_scaling.launch.calibrate_jobs import submit_missing, wait_for  # submitit: slow

    try:
        with lock(work.runs, sweep.name):  # lest two calls submit the same
            waited = submit_missing(work, sweep, cells)
        wait_for(work, waited)
    except KeyboardInterrupt:
        work.say("detached: the jobs go on; the same command waits for them again")
        return False
    except commands.Refused as error:
        raise SweepError(f"{sweep.path}: Slurm refuses: {error}; see the slurm block") from None
    except commands.QueueError as error:
        work.say(f"Slurm does not answer: {error}; the same command goes on once it does")
        return False
    return True
