"""Launching on Slurm: one round of heal, choose, submit, release; or rounds until all is over."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from clipa_scaling.claim import HeldError
from clipa_scaling.grid import Planned
from clipa_scaling.launch import commands
from clipa_scaling.launch.batch import Batch, load_all_batches, load_batches
from clipa_scaling.launch.choose import choose_runs
from clipa_scaling.launch.commands import Limits, QueuedJob, QueueError, Refused
from clipa_scaling.launch.lock import lock
from clipa_scaling.launch.queue import POLL_SECONDS, Queue, refresh_queue, remember_ended
from clipa_scaling.launch.retry import common_error, refuse_retry
from clipa_scaling.launch.status import PACKING_FAILED, RunStatus, read_statuses
from clipa_scaling.launch.submit import Submitted, awaited, count_alive, heal, release_stuck, submit
from clipa_scaling.plan import Plan, make_plan
from clipa_scaling.rundir import RunDir, RunState
from clipa_scaling.show import count_states
from clipa_scaling.sweepfile import Sweep


@dataclass
class Round:
    """What one round found and did."""

    plan: Plan
    statuses: list[RunStatus]
    queue: Queue
    wants: Callable[[Planned], bool]
    submitted: Submitted = field(default_factory=Submitted)
    stopped_by: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing that is wanted is in the queue, was added to it, or waits for what is."""
        alive = {status.planned.id for status in self.statuses if status.is_alive}
        wanted = [status.planned for status in self.statuses if self.wants(status.planned)]
        at_work = any(alive & {planned.id, planned.spec.parent} for planned in wanted)
        return not self.submitted.batches and not at_work


class Launcher:
    """Rounds over one sweep."""

    def __init__(
        self, sweep: Sweep, runs: Path, *, retry: bool, wants: Callable[[Planned], bool]
    ) -> None:
        self.sweep, self.runs, self.retry, self.wants = sweep, runs, retry, wants
        self.limits: Limits | None = None
        self.rounds = 0

    def round(self) -> Round:
        """Heal, look, submit what is due, release, under the launch lock.

        Raises QueueError where Slurm does not answer, and HeldError where another launch is at it.
        """
        with lock(self.runs, self.sweep.name):
            if self.limits is None:
                self.limits = commands.ask_limits(self.sweep.slurm.partition)
            batches, queue = heal(self.runs, self.sweep)
            release_stuck(batches, queue)
            found = self.look(queue)
            again = self.retry and self.rounds == 0
            found.stopped_by = "" if again else self.stopping_error(found.statuses, batches)
            if found.stopped_by:
                self.cancel_waiting(batches, queue)
            else:
                self.submit_due(found, batches, again)
            self.rounds += 1
            return found

    def look(self, queue: Queue) -> Round:
        """Every run as it stands; what another sweep has in the queue counts as there."""
        while True:
            plan = make_plan(self.sweep, self.runs)
            statuses = read_statuses(plan, self.runs, load_all_batches(self.runs), queue)
            # Made again after the look: what tuning has found with the runs that it saw over.
            before, self.sweep = self.sweep, self.sweep.again()
            if [run.id for run in before.grid.runs] == [run.id for run in self.sweep.grid.runs]:
                return Round(plan, statuses, queue, self.wants)

    def submit_due(self, found: Round, batches: Sequence[Batch], again: bool) -> None:
        """Submit what is due, and note it in the round."""
        assert self.limits is not None
        wanted = choose_runs(
            found.plan, found.statuses, self.runs, batches, self.limits,
            by_hand=self.rounds == 0, retry=again, wants=self.wants,
        )  # fmt: skip
        done = submit(self.runs, self.sweep, wanted, batches, found.queue, self.limits, again)
        found.submitted = done
        found.statuses = [as_submitted(status, done.batches) for status in found.statuses]

    def stopping_error(self, statuses: Sequence[RunStatus], batches: Sequence[Batch]) -> str:
        """What the first runs to end all died of, each beyond another try; empty if nothing.

        Failures before runs were last asked for again by hand are no news.
        """
        since = max((batch.time for batch in batches if batch.by_hand), default=0.0)
        news = [
            RunState(status.state, reason=status.reason)
            for status in statuses
            if self.wants(status.planned) and status.submitted >= since
            if status.failure is None or self.why_not(status, batches)
        ]
        return common_error(news) or ""

    def why_not(self, status: RunStatus, batches: Sequence[Batch]) -> str | None:
        """Why a failed run is not tried again by itself; None where it is."""
        if status.failure is None:
            return None
        run = RunDir(self.runs / status.planned.id)
        return refuse_retry(run, status.failure, batches, self.sweep.slurm)

    def cancel_waiting(self, batches: Sequence[Batch], queue: Queue) -> None:
        """End what has not started: it would die of the same."""
        waiting = [
            job
            for batch in batches
            if batch.kind == "runs" and batch.state in ("recorded", "released")
            for job in batch.task_jobs()
            if is_waiting(queue.find(job, batch.name))
        ]
        if waiting:
            commands.cancel(waiting)
            remember_ended(self.runs, waiting, "CANCELLED", "by the launch, as all failed alike")


def is_waiting(queued: QueuedJob | None) -> bool:
    return queued is not None and queued.state == "PENDING"


def as_submitted(status: RunStatus, batches: Sequence[Batch]) -> RunStatus:
    """A status as it is after a submission that it was read before."""
    run = status.planned.id
    if not any(run in batch.tasks for batch in batches):
        return status
    return replace(status, state="pending", reason="just submitted", failure=None)


def describe(found: Round) -> list[str]:
    """What a round did, in lines."""
    lines = []
    for batch in found.submitted.batches:
        array = f"array {batch.job}" if len(batch.tasks) > 1 else f"job {batch.job}"
        what = "packing" if batch.kind == "pack" else count_runs(len(batch.tasks))
        again = f", {len(batch.why)} of them again" if batch.why else ""
        lines.append(f"submitted {what} as {array}{again} ({batch.ask.minutes} min at most)")
    lines += [
        f"Slurm refused {what}; the same command tries again" for what in found.submitted.refused
    ]
    if found.submitted.left_out:
        lines.append(
            f"{found.submitted.left_out} runs wait for room under slurm.max_submit; "
            "the same command, or --follow, submits them"
        )
    return lines


def follow(launcher: Launcher, say: Callable[[str], None], show: Callable[[Round], None]) -> Round:
    """Rounds until nothing is left in the queue; an unanswered question changes nothing.

    KeyboardInterrupt detaches: jobs go on.
    """
    silent_since = 0.0
    told: list[str] = []
    while True:
        try:
            found = launcher.round()
        except Refused:
            raise
        except HeldError:
            if not launcher.rounds:
                raise
            time.sleep(POLL_SECONDS)
            continue
        except QueueError as error:
            if not silent_since:
                silent_since = time.time()
                say(f"Slurm does not answer, so nothing changes until it does: {error}")
            time.sleep(POLL_SECONDS)
            continue
        if silent_since:
            say("Slurm answers again")
            silent_since = 0.0
        lines = describe(found)
        for line in lines:
            if line not in told:  # what is refused or has no room is so in every round
                say(line)
        told = lines
        show(found)
        if found.is_over:
            return found
        time.sleep(POLL_SECONDS)


def stop_line(found: Round) -> str:
    """Why no more is launched."""
    alike = [status for status in found.statuses if status.state == "failed"]
    return (
        f"the first {len(alike)} runs to end all failed alike, so no more are launched: "
        f"{found.stopped_by} (log: {alike[0].log}); once mended: --retry failed"
    )


def explain_failures(found: Round, launcher: Launcher) -> list[str]:
    """A line for every failed run: what it died of, and why it is not tried again.

    One line for all where the first several died alike, which ended the launch.
    """
    if found.stopped_by:
        return [stop_line(found)]
    lines = sorted(
        {s.reason for s in found.statuses if s.state == "cancelled" and PACKING_FAILED in s.reason}
    )
    batches = load_batches(launcher.runs, launcher.sweep.name)
    for status in found.statuses:
        if status.state not in ("failed", "diverged", "lost"):
            continue
        if status.state == "diverged" and status.planned.trial:  # a result, as tuning goes
            continue
        refusal = launcher.why_not(status, batches)
        left = f"; not tried again: {refusal}" if refusal else ""
        where = f" (log: {status.log})" if status.log else ""
        lines.append(f"{status.state} {status.planned.id}: {status.reason}{left}{where}")
    left_over = Counter(
        status.state
        for status in found.statuses
        if found.wants(status.planned) and status.state in ("cancelled", "blocked")
    )
    if left_over:
        lines.append(f"not done: {count_states(left_over.elements())}; the same command goes on")
    return lines


def summary(found: Round) -> str:
    """One line: how many are in which state."""
    return count_states(status.state for status in found.statuses)


def cancel_runs(sweep: Sweep, runs: Path, wants: Callable[[str], bool], packing: bool) -> list[str]:
    """End the jobs of runs, also of runs that the file no longer has, and of packing; the runs.

    A launch at work is left what it has open: only it can tell what that becomes.
    """
    try:
        with lock(runs, sweep.name):
            batches, queue = heal(runs, sweep)
    except HeldError:
        batches = load_batches(runs, sweep.name)
        queue = refresh_queue(runs, awaited(load_all_batches(runs), Queue()), now=True)
        if queue.error:
            raise QueueError(queue.error) from None
    chosen = [
        (batch, job, run)
        for batch in batches
        if count_alive(batch, queue)
        for job, run in zip(batch.task_jobs(), batch.tasks, strict=True)
        if queue.find(job, batch.name) is not None and queue.end_of(job, batch.name) is None
        if (packing if batch.kind == "pack" else wants(run))
    ]
    jobs = [job for _, job, _ in chosen]
    if jobs:
        commands.cancel(jobs)
        remember_ended(runs, jobs, "CANCELLED", "by --cancel")
    return [run for batch, _, run in chosen if batch.kind == "runs"]


def count_runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
