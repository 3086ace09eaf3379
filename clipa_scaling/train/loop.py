"""One run, start to done: `python -m clipa_scaling.train.loop RUN_DIR`.

A process of its own claims the run, sets the machine up, trains and reports how it ended. Started
by srun with one task per GPU, they train it together, and the first alone claims and reports.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO

import torch

import clipa_scaling
from clipa_scaling import claim, rundir
from clipa_scaling.revision import find_revision
from clipa_scaling.rundir import DIVERGED, DONE, FAILED, HELD, STOPPED, RunDir
from clipa_scaling.spec import RunSpec, spec_from_json
from clipa_scaling.train.ending import Diverged, Refused, leave_word, report
from clipa_scaling.train.evaluation import Evaluation
from clipa_scaling.train.stopping import StopFlag
from clipa_scaling.train.trainer import Trainer
from clipa_scaling.train.world import World, choose_device, find_seat, join_world


class Entry(NamedTuple):
    """What rank 0 found at the door: an attempt to work on, or 0 and the code to leave with."""

    attempt: int
    code: int = 0
    threads: int = 0


def main() -> int:
    """Work on one run directory; the exit codes are rundir's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    run_dir = RunDir(parser.parse_args().run_dir)
    StopFlag().listen()  # a signal after the work must not change the exit code
    return work(run_dir)[0]


def work(run_dir: RunDir, keep_output: bool = False) -> tuple[int, int | None]:
    """Work on one run directory: the exit code, and the signal's number when one stopped it.

    Output goes to the attempt's log, unless it is to be kept; output and signal handlers are the
    caller's again afterwards. Of several ranks all return the
    same, the others only once rank 0 has written all that it writes.
    """
    with StopFlag() as stop, Output(keep_output) as output:
        values = rundir.read_json(run_dir.spec)
        if values is None:
            if run_dir.done.exists():
                return DONE, None
            say(f"{run_dir.path}: has no spec.json; launch the sweep, which makes it")
            return FAILED, None
        return take_part(spec_from_json(values), run_dir, stop, output)


def take_part(
    spec: RunSpec, run_dir: RunDir, stop: StopFlag, output: Output
) -> tuple[int, int | None]:
    """One rank's part of an attempt; a failure becomes a state with its reason."""
    seat = find_seat(spec.gpus)
    choose_device(seat.local_rank)  # before anything asks CUDA for the current one
    entry = enter(run_dir, spec) if seat.rank == 0 else Entry(0, FAILED)
    output.to_log(run_dir, entry.attempt, seat.rank)
    world, number = None, None
    try:
        joined = join_world(run_dir, spec.gpus)
        entry = Entry(*(int(value) for value in joined.from_first(*entry)))
        output.to_log(run_dir, entry.attempt, seat.rank)
        code = entry.code
        if entry.attempt:
            code, number = train(spec, run_dir, entry, stop, joined)
        world = joined
    except Exception as error:
        if seat.rank == 0:
            code = report(run_dir, entry.attempt, error) if entry.attempt else entry.code
        else:
            code = leave_word(run_dir, entry.attempt, seat.rank, error)
    if seat.rank == 0 and entry.attempt:
        ending = {"code": code, "time": time.time(), "samples": rundir.read_state(run_dir).samples}
        rundir.write_json(run_dir.attempts / str(entry.attempt) / "exit.json", ending)
    if world is not None:  # where a rank failed alone, nobody waits for it
        world.leave()
    return code, number


def enter(run_dir: RunDir, spec: RunSpec) -> Entry:
    """Claim the run, unless it is done or held."""
    if run_dir.done.exists():
        return Entry(0, DONE)
    threads = first_threads(run_dir, spec)
    try:
        folder = claim.take(
            run_dir.path.name, run_dir.attempts, run_dir.state, environment(threads)
        )
    except claim.HeldError as error:
        say(str(error))
        return Entry(0, HELD)
    note_running(run_dir, int(folder.name))
    return Entry(int(folder.name), threads=threads)


def train(
    spec: RunSpec, run_dir: RunDir, entry: Entry, stop: StopFlag, world: World
) -> tuple[int, int | None]:
    """Train or evaluate, all ranks alike: the exit code, and the number of a signal."""
    torch.set_num_threads(entry.threads)
    try:
        check(spec, run_dir, world)
    except Refused as error:
        return report(run_dir, entry.attempt, error) if world.leads else FAILED, None
    try:
        if spec.kind == "evaluate":
            number = Evaluation(spec, run_dir, entry.attempt, stop, world.device).evaluate()
        else:
            number = Trainer(spec, run_dir, entry.attempt, stop, world).train()
    except Diverged as error:  # the loss is the same on every rank
        return report(run_dir, entry.attempt, error) if world.leads else DIVERGED, None
    return (DONE, None) if number is None else (STOPPED, number)


def check(spec: RunSpec, run_dir: RunDir, world: World) -> None:
    """Refused where these processes cannot train the run."""
    name = run_dir.path.name
    if world.size != spec.gpus:
        raise Refused(
            f"{name}: got {world.size} tasks for gpus={spec.gpus}; allowed: one task per GPU; "
            f"start it by srun --ntasks={spec.gpus}, or plan it with gpus: {world.size}"
        )


def note_running(run: RunDir, number: int) -> None:
    """Say so before the model is built, which takes a while."""
    last = rundir.read_json(run.state) or {"samples": 0}
    value = {**last, "state": "running", "reason": "", "kind": "", "attempt": number}
    rundir.write_json(run.state, {**value, "time": time.time()})


def first_threads(run: RunDir, spec: RunSpec) -> int:
    """The thread count of the run's first start: sums in another order give other last bits.

    An evaluation takes its parent's, whose values it shares.
    """
    measured = RunDir(run.path.parent / spec.parent) if spec.kind == "evaluate" else run
    first = rundir.read_json(measured.attempts / "1" / "env.json")
    return int(first["threads"]) if first else torch.get_num_threads()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Output:
    """Both output streams of this process, its libraries' included; given back at the end."""

    def __init__(self, keep: bool = False) -> None:
        self.keep = keep

    def __enter__(self) -> Output:
        self.streams = sys.stdout, sys.stderr
        self.descriptors = os.dup(1), os.dup(2)
        self.log: TextIO | None = None
        return self

    def to_log(self, run: RunDir, attempt: int, rank: int) -> None:
        """Send them to the attempt's log, each rank's to its own; without an attempt, nowhere."""
        if attempt and self.log is None and not self.keep:
            path = run.attempts / str(attempt) / ("log" if rank == 0 else f"log.{rank}")
            self.log = open(path, "a", buffering=1)  # noqa: SIM115
            self.point(self.log.fileno(), self.log.fileno())
            sys.stdout = sys.stderr = self.log  # a caller's need not be the descriptors 1 and 2

    def point(self, out: int, error: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(out, 1)
        os.dup2(error, 2)

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self.log is not None:
            self.point(*self.descriptors)
            sys.stdout, sys.stderr = self.streams
            self.log.close()
        for descriptor in self.descriptors:
            os.close(descriptor)


def environment(threads: int) -> dict[str, Any]:
    """What ran this attempt: revision, versions, device, command."""
    cuda = torch.cuda.is_available()
    return {
        "threads": threads,
        "revision": find_revision(),
        "version": clipa_scaling.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": version("open_clip_torch"),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "host_cpu": cpu_name(),
        "slurm_node": os.environ.get("SLURMD_NODENAME", ""),
        "command": sys.orig_argv,
        "time": time.time(),
    }


def cpu_name() -> str:
    """The processor's name; on one CPU type a resume is bit-exact."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
