"""What runs inside a Slurm job: the callables that submitit pickles, plain values only."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from clipa_scaling import rundir
from clipa_scaling.claim import own_job
from clipa_scaling.launch.commands import QueueError, requeue_self, seconds_left
from clipa_scaling.launch.retry import count_events, made_progress
from clipa_scaling.rundir import DONE, STOPPED, RunDir

SLACK = 65.0  # seconds; a warning may come a minute early (sbatch --signal)


class EarlySignals:
    """Notes a warning that comes before the trainer listens, which takes seconds of imports."""

    def __init__(self) -> None:
        self.number = 0
        signal.signal(signal.SIGUSR2, self.note)
        signal.signal(signal.SIGTERM, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number


@dataclass(frozen=True)
class TrainJob:
    """Work on a run directory, whatever is left of it; asked to stop, go back into the queue.

    Not by submitit's handler: below ten minutes it takes every preemption for a timeout, and it
    replaces the pickle in two steps, so that a kill in between loses it. Nothing in the pickle
    changes, and all that a resume needs lies in the run directory.
    """

    run_dir: str
    minutes: int
    signal_seconds: int
    retries: Mapping[str, int]

    def __call__(self) -> None:
        began = time.monotonic()
        run = RunDir(Path(self.run_dir))
        if run.done.exists():
            print(f"{run.path.name} is done: nothing to do")
            return
        early = EarlySignals()
        from clipa_scaling.train import loop

        if early.number:
            warned = early.number == signal.SIGUSR2
            sys.exit(self.leave(run, began) if warned else STOPPED)
        code, number = loop.work(run)
        if code == STOPPED and number == signal.SIGUSR2:
            code = self.leave(run, began)
        if code != DONE:
            sys.exit(code)

    def leave(self, run: RunDir, began: float) -> int:
        """After a warning: back into the queue, unless that would only go round; the exit code."""
        if os.environ.get("SLURM_PROCID", "0") != "0":
            return DONE
        kind = "timeout" if self.seconds_left(began) < self.signal_seconds + SLACK else "preempted"
        limit = self.retries[kind]
        if kind == "timeout" and not made_progress(run):
            reason = f"no progress within the time limit of {self.minutes} min; raise hours"
        elif count_events(run, "requeued", kind) >= limit:
            reason = f"stopped by {kind} more than retries.{kind}={limit} times"
        else:
            note(run, "requeued", kind)
            self.requeue()
            return DONE
        note(run, "failed", kind)
        state = rundir.read_json(run.state) or {"samples": 0, "attempt": 0}
        rundir.write_json(run.state, state | {"state": "failed", "kind": kind, "reason": reason})
        return rundir.FAILED

    def requeue(self) -> None:
        """Back into the queue; a controller that is away is asked again while there is time."""
        deadline = time.monotonic() + self.signal_seconds / 2
        while True:
            try:
                return requeue_self()
            except QueueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(5)

    def seconds_left(self, began: float) -> float:
        """Of the job's time: the controller's word, for limits can be changed; else our clock."""
        try:
            left = seconds_left(own_job())
        except QueueError:
            left = 60 * self.minutes - (time.monotonic() - began)
        return math.inf if left is None else left


def note(run: RunDir, event: str, kind: str) -> None:
    row = {"time": time.time(), "event": event, "kind": kind, "job": own_job()}
    rundir.append_jsonl(run.events, row)


@dataclass(frozen=True)
class PackJob:
    """Pack a share of the parts of some packs; the last to end writes their heads."""

    packs: tuple[str, ...]
    share: str
    workers: int

    def __call__(self) -> None:
        command = [sys.executable, "-m", "clipa_scaling.train.pack", *self.packs]
        process = subprocess.Popen(
            [*command, "--share", self.share, "--workers", str(self.workers)]
        )
        warned = []

        def stop(number: int, frame: FrameType | None) -> None:
            warned.append(number)
            process.terminate()

        signal.signal(signal.SIGUSR2, stop)
        signal.signal(signal.SIGTERM, stop)
        code = process.wait()
        if signal.SIGUSR2 in warned and code:
            requeue_self()  # finished parts stay
        elif code:
            sys.exit(code)


@dataclass(frozen=True)
class CalibrateJob:
    """Measure how fast a run trains: one task's process of it."""

    request: str

    def __call__(self) -> None:
        command = [sys.executable, "-m", "clipa_scaling.train.calibrate", self.request]
        code = subprocess.run(command, check=False).returncode
        if code:
            sys.exit(code)


def run_inline(run: Path) -> int:
    """Work on a run in this process, output to the terminal; the exit code. For debugging."""
    from clipa_scaling.train import loop

    return loop.work(RunDir(run), keep_output=True)[0]
