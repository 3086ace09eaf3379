"""One run's state from its folder and the queue: every way that the two can stand."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import psutil
import pytest

from clipa_scaling.launch.batch import Ask, Batch
from clipa_scaling.launch.commands import STUCK, QueuedJob, QueueError
from clipa_scaling.launch.queue import Ended, Queue, load_queue, refresh_queue
from clipa_scaling.launch.status import judge
from clipa_scaling.rundir import RunDir, read_state, write_json

ASK = Ask(nodes=1, tasks_per_node=1, gpus_per_node=1, minutes=60)
BATCH = Batch("b1", "s", "runs", ("run", "other"), ASK, "", 100.0, state="released", job="7")
LONG_AGO = time.time() - 10_000


def make_run(
    folder: Path, state: str = "", job: str = "", alive: bool = False, old: bool = False
) -> RunDir:
    """A run with one attempt, by a job or none; alive: its owner is this very process."""
    run = RunDir(folder)
    if not state:
        return run
    (run.attempts / "1").mkdir(parents=True)

    started = psutil.Process().create_time() if alive else 0.0
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": started}
    write_json(run.attempts / "1/env.json", {"claim": owner, "job": job, "time": 1.0})
    write_json(run.state, {"state": state, "reason": "why", "samples": 5, "attempt": 1})
    if old:
        os.utime(run.state, (LONG_AGO, LONG_AGO))
    return run


def queued(
    state: str, reason: str = "None", elapsed: str = "1:00", name: str = BATCH.name
) -> Queue:
    job = QueuedJob("7_0", state, reason, "n1", elapsed, name)
    return Queue(time=time.time(), jobs={job.id: job})


def ended(state: str, seen: float = 0.0, name: str = BATCH.name) -> Queue:
    return Queue(time=time.time(), ended={"7_0": Ended(state, name=name, seen=seen)})


def absent(times: int) -> Queue:
    return Queue(time=time.time(), absent={"7_0": times})


CASES = {
    "held": ("", "", False, queued("PENDING", "JobHeldUser"), "held"),
    "held by Slurm": ("", "", False, queued("PENDING", STUCK), "held"),
    "pending": ("", "", False, queued("PENDING", "Priority"), "pending"),
    "requeued": ("stopped", "7_0", False, queued("PENDING", "BeginTime"), "requeued"),
    "pending again": ("failed", "3_1", False, queued("PENDING", "BeginTime"), "pending"),
    "starting": ("", "", False, queued("RUNNING"), "running"),
    "slow to start": ("", "", False, queued("RUNNING", elapsed="10:00"), "stalled"),
    "configuring": ("", "", False, queued("CONFIGURING", elapsed="10:00"), "running"),
    "completing": ("running", "7_0", True, queued("COMPLETING", elapsed="9:00:00"), "running"),
    "running": ("running", "7_0", False, queued("RUNNING", elapsed="9:00:00"), "running"),
    "stalled": ("running", "7_0", True, queued("RUNNING", elapsed="9:00:00"), "stalled"),
    "diverged": ("diverged", "7_0", False, ended("FAILED"), "diverged"),
    "its own error": ("failed", "7_0", False, ended("FAILED"), "failed error"),
    "killed": ("running", "7_0", False, ended("FAILED"), "failed killed"),
    "of an earlier job": ("failed", "3_1", False, ended("FAILED"), "failed killed"),
    "time limit": ("running", "7_0", False, ended("TIMEOUT"), "failed timeout"),
    "node": ("running", "7_0", False, ended("NODE_FAIL"), "failed node"),
    "preempted for good": ("stopped", "7_0", False, ended("PREEMPTED"), "failed preempted"),
    "cancelled": ("stopped", "7_0", False, ended("CANCELLED"), "cancelled"),
    "done not seen yet": ("", "", False, ended("COMPLETED", time.time() + 1e6), "unknown"),
    "completed undone": ("running", "7_0", False, ended("COMPLETED"), "failed killed"),
    "absent once": ("running", "7_0", True, absent(1), "unknown"),
    "absent, silent": ("running", "7_0", True, absent(2), "lost"),
    "absent, its word": ("failed", "7_0", False, absent(2), "failed error"),
    "another's job": ("", "", False, queued("RUNNING", name="clipa:x:1"), "unknown"),
    "another's end": ("", "", False, ended("CANCELLED", name="clipa:x:1"), "unknown"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_runs_state_is_what_its_folder_and_the_queue_say(tmp_path: Path, case: str) -> None:
    state, job, old, queue, wanted = CASES[case]
    run = make_run(tmp_path, state, job, old=old)
    verdict = judge(run, read_state(run), (BATCH, "7_0"), queue)
    kind = f" {verdict.failure.kind}" if verdict.failure else ""
    assert verdict.state + kind == wanted, verdict


def test_a_living_owner_that_is_none_of_the_jobs_keeps_its_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, "running", job="", alive=True)
    verdict = judge(run, read_state(run), (BATCH, "7_0"), ended("FAILED"))
    assert (verdict.state, verdict.failure) == ("running", None)


def test_done_json_beats_all(tmp_path: Path) -> None:
    run = make_run(tmp_path, "running", "7_0")
    write_json(run.done, {"samples": 9, "attempt": 1})
    for queue in (ended("CANCELLED"), queued("RUNNING"), absent(9)):
        assert judge(run, read_state(run), (BATCH, "7_0"), queue).state == "done"


def test_a_half_submitted_batch_of_another_sweep_is_unknown(tmp_path: Path) -> None:
    verdict = judge(RunDir(tmp_path), read_state(RunDir(tmp_path)), (BATCH, ""), Queue())
    assert verdict.state == "unknown" and "a launch of s died" in verdict.reason


def test_a_question_that_fails_changes_nothing_and_is_not_asked_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[dict[str, QueuedJob] | QueueError] = [
        {"7_0": QueuedJob("7_0", "RUNNING", "None", "n1", "0:01", BATCH.name)},
        QueueError("away"),
        {},
    ]

    def answer() -> dict[str, QueuedJob]:
        found = answers.pop(0)
        if isinstance(found, QueueError):
            raise found
        return found

    monkeypatch.setattr("clipa_scaling.launch.queue.ask_queue", answer)
    monkeypatch.setattr("clipa_scaling.launch.queue.POLL_SECONDS", 60.0)
    first = refresh_queue(tmp_path, ["7_0"], now=True)
    away = refresh_queue(tmp_path, ["7_0"], now=True)
    assert (away.jobs, away.time, away.error) == (first.jobs, first.time, "away")
    assert refresh_queue(tmp_path, ["7_0"]).error == "away", "asked again too soon"
    gone = refresh_queue(tmp_path, ["7_0"], now=True)
    assert not gone.jobs and not gone.is_gone("7_0"), "looks within the interval are one"
    assert load_queue(tmp_path).error == ""
