"""What is going on with every run: its directory first, then the queue."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipa_scaling import rundir
from clipa_scaling.grid import Planned
from clipa_scaling.hours import used_hours
from clipa_scaling.launch.batch import Batch, files_of, latest_tasks
from clipa_scaling.launch.commands import STUCK, QueuedJob, parse_clock
from clipa_scaling.launch.queue import ENDED, Ended, Queue
from clipa_scaling.launch.retry import Failure, classify
from clipa_scaling.plan import Plan, PlanRow
from clipa_scaling.rundir import RunDir, RunState

STALL_SECONDS = 300.0  # without a heartbeat, which comes every few seconds
PACKING_FAILED = "packing failed"
OTHERS = ("submitit ", "srun: ", "slurmstepd")  # who else writes into a job's output
HELD_REASONS = ("JobHeldUser", "JobHeldAdmin", STUCK)
SETTLE_SECONDS = 60.0  # what a shared file system may be late


@dataclass(frozen=True)
class RunStatus:
    """A run as its directory and the queue have it.

    state: planned, blocked, held, pending, running, stalled, requeued, stopped, done, diverged,
    failed, cancelled, lost or unknown. failure: set where it may be tried again by its kind.
    gpu_hours: used so far by all attempts. submitted: when its last batch was made.
    """

    planned: Planned
    state: str
    reason: str
    samples: int
    attempt: int
    gpu_hours: float
    gpu_hours_planned: float
    progress: Mapping[str, Any]
    job: str = ""
    log: str = ""
    failure: Failure | None = None
    submitted: float = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether a job is, or may still be, at work on it or waiting to be."""
        return self.state in ("held", "pending", "running", "stalled", "requeued", "unknown")


@dataclass(frozen=True)
class Verdict:
    """A state with its reason, and the failure behind it."""

    state: str
    reason: str = ""
    failure: Failure | None = None


def read_statuses(
    plan: Plan, runs: Path, batches: Sequence[Batch], queue: Queue
) -> list[RunStatus]:
    """Every run of a plan, in its order."""
    tasks, packing = latest_tasks(batches), find_failed_packing(runs, batches, queue)
    return [read_status(row, runs, tasks.get(row.planned.id), queue, packing) for row in plan.rows]


def read_status(
    row: PlanRow,
    runs: Path,
    task: tuple[Batch, str] | None,
    queue: Queue,
    packing: Mapping[str, str],
) -> RunStatus:
    run, state = RunDir(runs / row.planned.id), row.state
    verdict = judge(run, state, task, queue)
    if task is not None and verdict == Verdict("cancelled"):
        reasons = [packing[job] for job in task[0].after if job in packing]
        verdict = replace(verdict, reason=reasons[0] if reasons else "")
    if task is not None and verdict == Verdict("pending", "Dependency"):
        verdict = replace(verdict, reason=f"packing first, job {', '.join(task[0].after)}")
    last = run.last_attempt() if state.name != "planned" or task else None
    log = last / "log" if last is not None else None
    if task is not None and task[1] and (last is None or not began_in(last, task[1])):
        log = output_of(runs, *task)
    return RunStatus(
        planned=row.planned,
        state=verdict.state,
        reason=verdict.reason,
        samples=state.samples,
        attempt=state.attempt,
        gpu_hours=used_hours(run, row.planned.spec.gpus) if last is not None else 0.0,
        gpu_hours_planned=row.cost.gpu_hours,
        progress=state.progress or {},
        job=task[1] if task else "",
        log=str(log) if log is not None and log.exists() else "",
        failure=verdict.failure,
        submitted=task[0].time if task else 0.0,
    )


def find_failed_packing(runs: Path, batches: Sequence[Batch], queue: Queue) -> dict[str, str]:
    """What failed packing jobs said last, by job: Slurm cancels the runs that waited for them."""
    failed = {}
    for batch in batches:
        for job in batch.task_jobs() if batch.kind == "pack" and batch.job else ():
            ended = queue.ended.get(job)
            if ended is not None and ended.state not in ("COMPLETED", "CANCELLED"):
                output = output_of(runs, batch, job)
                failed[batch.job] = f"{PACKING_FAILED}: {last_words(output) or ended.state}"
    return failed


def last_words(output: Path) -> str:
    """The last line of a job's output that is neither submitit's nor Slurm's."""
    if not output.exists():
        return ""
    lines = output.read_text(errors="replace").splitlines()
    ours = [line for line in lines if line.strip() and not line.startswith(OTHERS)]
    return ours[-1].strip() if ours else ""


def judge(run: RunDir, state: RunState, task: tuple[Batch, str] | None, queue: Queue) -> Verdict:
    """One run's state and why."""
    if state.name == "done" or task is None:
        return Verdict(state.name, state.reason)
    batch, job = task
    if not job:
        return Verdict(
            "unknown", f"a launch of {batch.sweep} died submitting it; launch that again"
        )
    queued = queue.find(job, batch.name)
    if queued is not None and queued.state not in ENDED:
        return judge_queued(run, queued)
    ended = queue.end_of(job, batch.name)
    if ended is not None:
        return judge_ended(run, state, job, ended)
    if batch.time > queue.time:
        return Verdict("held" if batch.state == "recorded" else "pending", "just submitted")
    return judge_absent(run, state, queue, job)


def judge_queued(run: RunDir, queued: QueuedJob) -> Verdict:
    """A job that waits or is at work."""
    last = run.last_attempt()
    begun = last is not None and began_in(last, queued.id)
    if queued.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"):
        if queued.reason in HELD_REASONS:
            return Verdict("held", queued.reason)
        return Verdict("requeued" if begun else "pending", queued.reason)
    if queued.state != "RUNNING":  # configuring its nodes, suspended, or about to end
        return Verdict("running", queued.state.lower())
    silent = time.time() - last_sign(run) if begun else parse_clock(queued.elapsed) or 0.0
    if silent > STALL_SECONDS:
        return Verdict("stalled", f"no sign of life for {silent / 60:.0f} min; see its log")
    return Verdict("running", "" if begun else "starting")


def judge_ended(run: RunDir, state: RunState, job: str, ended: Ended) -> Verdict:
    """A job that is over and whose run is not done."""
    last = run.last_attempt()
    begun = last is not None and began_in(last, job)
    if state.name == "running" and not begun:
        return Verdict("running", "by a process that is none of its job's")
    if ended.state == "COMPLETED" and time.time() - ended.seen < SETTLE_SECONDS:
        return Verdict("unknown", "its job completed; done.json may not be visible here yet")
    if not begun:
        state = RunState("planned")  # what an earlier batch left tells nothing of this one
    if state.name == "diverged":
        return Verdict("diverged", state.reason)
    if ended.state == "CANCELLED" and state.name != "failed":
        return Verdict("cancelled", ended.reason if ended.reason.startswith("by ") else "")
    failure = replace(classify(ended, state), begun=begun)
    return Verdict("failed", f"{failure.kind}: {failure.reason}", failure)


def judge_absent(run: RunDir, state: RunState, queue: Queue, job: str) -> Verdict:
    """A job of which the queue says nothing: unknown until that is sure."""
    if not queue.is_gone(job):
        return Verdict("unknown", queue.error or "not in the queue's last answer")
    last = run.last_attempt()
    begun = last is not None and began_in(last, job)
    if begun and state.name in ("failed", "diverged"):
        failure = classify(Ended("FAILED"), state)
        if state.name == "diverged":
            return Verdict("diverged", state.reason)
        return Verdict("failed", f"{failure.kind}: {failure.reason}", failure)
    if begun and state.name == "running" and time.time() - last_sign(run) < STALL_SECONDS:
        return Verdict("unknown", "not in the queue, and yet showed signs of life")
    return Verdict("lost", "its job left the queue and nobody knows how it ended")


def began_in(attempt: Path, job: str) -> bool:
    """Whether an attempt is that of a job."""
    record = rundir.read_json(attempt / "env.json")
    return bool(record and record.get("job") == job)


def last_sign(run: RunDir) -> float:
    """When the run last wrote its state."""
    try:
        return run.state.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def output_of(runs: Path, batch: Batch, job: str) -> Path:
    """What a job printed before its run had a log: submitit's name for it."""
    return files_of(runs, batch) / f"{job}_0_log.out"
