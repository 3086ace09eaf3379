"""What the queue says of our jobs, kept between calls so that none asks too often."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from clipa_scaling import rundir
from clipa_scaling.launch.batch import PREFIX
from clipa_scaling.launch.commands import QueuedJob, QueueError, ask_accounting, ask_queue

POLL_SECONDS = float(os.environ.get("CLIPA_POLL_SECONDS", "30"))  # at least, between two queries
LOST_LOOKS = 2  # answers without a job before it counts as gone; one may be a controller's hiccup
MOST_REMEMBERED = 50_000
FORGOTTEN_SECONDS = 120.0  # well below MinJobAge, the least time that an ended job is shown
ENDED = (
    "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL",
    "DEADLINE", "REVOKED", "PREEMPTED",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a job ended, remembered after the controller forgot it; seen: when we first knew.

    name: the job's, where known: another cluster may give the same id to another job.
    """

    state: str
    reason: str = ""
    nodes: str = ""
    name: str = ""
    seen: float = 0.0


@dataclass
class Queue:
    """The last answer and what earlier ones told.

    time: of the last answer, 0 before the first. asked: when we last asked. absent: how many
    answers in a row lacked a job that is still awaited. error: why the last question was not
    answered.
    """

    time: float = 0.0
    jobs: dict[str, QueuedJob] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    asked: float = 0.0
    error: str = ""

    @property
    def age(self) -> float:
        """Seconds since the last answer."""
        return time.time() - self.time

    def find(self, job: str, name: str) -> QueuedJob | None:
        """A job that the last answer had, if it is the one of that name."""
        found = self.jobs.get(job)
        return found if found is not None and found.name == name else None

    def end_of(self, job: str, name: str) -> Ended | None:
        """How a job ended, if that is known and it is the one of that name."""
        found = self.ended.get(job)
        return found if found is not None and found.name in ("", name) else None

    def is_gone(self, job: str) -> bool:
        """Whether several answers lacked the job, and none said how it ended."""
        return self.absent.get(job, 0) >= LOST_LOOKS


def queue_path(runs: Path) -> Path:
    return runs / ".sweeps" / ".queue.json"


def load_queue(runs: Path) -> Queue:
    """What was kept, without asking."""
    kept: dict[str, Any] | None = rundir.read_json(queue_path(runs))
    if kept is None:
        return Queue()
    return Queue(
        time=kept["time"],
        jobs={job: QueuedJob(job, *values) for job, values in kept["jobs"].items()},
        ended={job: Ended(*values) for job, values in kept["ended"].items()},
        absent=kept["absent"],
        asked=kept["asked"],
        error=kept["error"],
    )


def refresh_queue(runs: Path, awaited: Sequence[str], now: bool = False) -> Queue:
    """The queue, asked anew if the last answer is old enough, or `now`.

    awaited: jobs that should be there. A question that fails changes nothing but `error`.
    """
    queue = load_queue(runs)
    asked = time.time()  # what is submitted while the answer is on its way is younger than it
    if not now and 0 <= asked - queue.asked < POLL_SECONDS:  # a clock may have been set back
        return queue
    try:
        jobs = {job.id: job for job in ask_queue().values() if job.name.startswith(f"{PREFIX}:")}
    except QueueError as error:
        queue.asked, queue.error = asked, str(error)
        save_queue(runs, queue)
        return queue
    before, queue = queue, load_queue(runs)  # others may have noted something meanwhile
    queue.time = queue.asked = asked
    queue.jobs, queue.error = jobs, ""
    for job in jobs.values():
        if job.state not in ENDED:  # perhaps at work again after a requeue by hand
            queue.ended.pop(job.id, None)
        elif queue.end_of(job.id, job.name) is None:
            queue.ended[job.id] = Ended(job.state, job.reason, job.nodes, job.name, asked)
    note_absent(queue, awaited, before)
    save_queue(runs, queue)
    return queue


def note_absent(queue: Queue, awaited: Sequence[str], before: Queue) -> None:
    """Count the answers that lack a job; accounting, where there is one, may know its end."""
    passed = queue.time - before.time
    missing = [job for job in awaited if job not in queue.jobs and job not in queue.ended]
    try:
        known = ask_accounting(missing) if missing else {}
    except QueueError:  # no accounting here, or none now
        known = {}
    for job, state in known.items():
        if state in ENDED:
            queue.ended[job] = Ended(state, seen=queue.time)
    for job in missing:
        waited = job in before.jobs and before.jobs[job].state == "PENDING"
        # Of a task cancelled before it began the controller keeps nothing; of all else it does,
        # for a while.
        vanished = waited and passed < FORGOTTEN_SECONDS
        if job not in known and (vanished or is_cancelled_whole(queue, job)):
            queue.ended[job] = Ended("CANCELLED", seen=queue.time)
    left = [job for job in missing if job not in queue.ended]
    once_more = 1 if passed >= POLL_SECONDS / 2 else 0  # two calls at once are one look
    queue.absent = {job: queue.absent.get(job, 0) + once_more for job in left}


def is_cancelled_whole(queue: Queue, job: str) -> bool:
    """Whether a task's array was cancelled before it began: one record then stands for all."""
    array, bar, _ = job.partition("_")
    return bool(bar) and array in queue.jobs and queue.jobs[array].state == "CANCELLED"


def remember_queued(runs: Path, name: str, jobs: Sequence[str]) -> None:
    """Keep that we submitted jobs: one cancelled before the next look leaves no trace of itself."""
    queue = load_queue(runs)
    for job in jobs:
        queue.jobs.setdefault(job, QueuedJob(job, "PENDING", "just submitted", "", "0:00", name))
    save_queue(runs, queue)


def remember_ended(runs: Path, jobs: Sequence[str], state: str, reason: str) -> None:
    """Keep that we ended jobs ourselves: a cluster without accounting soon forgets them."""
    queue = load_queue(runs)
    for job in jobs:
        queue.ended[job] = Ended(state, reason, seen=time.time())
        queue.jobs.pop(job, None)
    save_queue(runs, queue)


def save_queue(runs: Path, queue: Queue) -> None:
    queue_path(runs).parent.mkdir(parents=True, exist_ok=True)
    ended = list(queue.ended.items())[-MOST_REMEMBERED:]
    value = {
        "time": queue.time,
        "jobs": {job.id: astuple(job)[1:] for job in queue.jobs.values()},
        "ended": {job: astuple(end) for job, end in ended},
        "absent": queue.absent,
        "asked": queue.asked,
        "error": queue.error,
    }
    rundir.write_json(queue_path(runs), value)
