"""Looking at a sweep at work, or ending it: --status, --logs, --cancel."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from clipa_scaling.finish import FAILED, OK, shown
from clipa_scaling.grid import Planned
from clipa_scaling.launch import commands, follow
from clipa_scaling.launch.batch import load_all_batches
from clipa_scaling.launch.calibrate_jobs import living_jobs
from clipa_scaling.launch.queue import POLL_SECONDS, Queue, load_queue, refresh_queue
from clipa_scaling.launch.status import RunStatus, read_statuses
from clipa_scaling.launch.submit import awaited
from clipa_scaling.launch.table import headline, status_json, status_table
from clipa_scaling.plan import Plan, make_plan
from clipa_scaling.sweepfile import Sweep
from clipa_scaling.yamlfile import SweepError

TAIL_LINES = 40

Wants = Callable[[Planned], bool]


def look(sweep: Sweep, runs: Path, wants: Wants) -> tuple[Plan, list[RunStatus], Queue, bool]:
    """The plan, its runs' statuses, the queue and whether any sweep here ever submitted to it."""
    plan = make_plan(sweep.again(), runs)
    batches = load_all_batches(runs)
    queue = Queue()
    if batches:
        queue = refresh_queue(runs, awaited(batches, queue))
    statuses = read_statuses(plan, runs, batches, queue)
    return plan, [status for status in statuses if wants(status.planned)], queue, bool(batches)


def print_status(
    console: Console, sweep: Sweep, runs: Path, wants: Wants, *, as_json: bool, watch: bool
) -> int:
    """The status once, or again and again until Ctrl-C."""
    if as_json:
        print(json.dumps(status_json(*look(sweep, runs, wants)), indent=1))
        return OK
    if not watch:
        plan, statuses, queue, has_batches = look(sweep, runs, wants)
        title = headline(plan, statuses, queue, has_batches)
        console.print(status_table(title, statuses, max(40, console.height - 6)))
        return OK
    with Live(console=console, auto_refresh=False) as live:
        while True:
            plan, statuses, queue, has_batches = look(sweep, runs, wants)
            title = headline(plan, statuses, queue, has_batches)
            most = max(4, console.height - 6)
            live.update(status_table(title, statuses, most), refresh=True)
            time.sleep(min(POLL_SECONDS, 5.0))


def print_logs(console: Console, sweep: Sweep, runs: Path, run: str) -> int:
    """The end of a run's log, and where it is. `run`: an id, or a part of just one."""
    batches = load_all_batches(runs)
    statuses = read_statuses(make_plan(sweep, runs), runs, batches, load_queue(runs))
    chosen = find_run(sweep, statuses, run)
    if not chosen.log:
        console.print(f"{chosen.planned.id}: has no log yet; it is {chosen.state}", markup=False)
        return FAILED
    lines = Path(chosen.log).read_text(errors="replace").splitlines()
    for line in lines[-TAIL_LINES:] or ["(nothing in it yet)"]:
        print(line)
    console.print(f"[dim]{shown(Path(chosen.log))}[/]", soft_wrap=True)
    return OK


def find_run(sweep: Sweep, statuses: Sequence[RunStatus], run: str) -> RunStatus:
    """The one run whose id is, or has in it, the given text."""
    exact = [status for status in statuses if status.planned.id == run]
    found = exact or [status for status in statuses if run in status.planned.id]
    if len(found) == 1:
        return found[0]
    some = ", ".join(status.planned.id for status in (found or list(statuses))[:3])
    raise SweepError(
        f"{sweep.path}: --logs {run} fits {len(found)} runs; allowed: an id or a part of just one, "
        f"such as {some}"
    )


def cancel(
    console: Console, sweep: Sweep, runs: Path, wants: Callable[[str], bool], packing: bool
) -> int:
    """End the jobs of a sweep, those of its packing too."""
    try:
        ended = follow.cancel_runs(sweep, runs, wants, packing)
        measuring = sorted(job.id for job in living_jobs(runs).values())
    except commands.QueueError as error:
        console.print(f"nothing cancelled: Slurm does not answer: {error}", markup=False)
        return FAILED
    said = (
        f"cancelled {follow.count_runs(len(ended))}" if ended else "no runs in the queue to cancel"
    )
    console.print(said)
    if measuring:  # for all sweeps of this runs folder
        console.print(
            f"jobs of --calibrate go on: {len(measuring)}; to end them: scancel "
            f"{' '.join(measuring)}",
            soft_wrap=True,
        )
    return OK
