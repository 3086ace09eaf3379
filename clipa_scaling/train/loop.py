"""One run, start to done: `python -m clipa_scaling.train.loop RUN_DIR`.

A process of its own claims the run, sets the machine up, trains and reports how it ended.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import clipa_scaling
from clipa_scaling import claim, rundir
from clipa_scaling.revision import find_revision
from clipa_scaling.rundir import DIVERGED, DONE, FAILED, HELD, STOPPED, RunDir
from clipa_scaling.spec import RunSpec, spec_from_json
from clipa_scaling.train.stopping import StopFlag
from clipa_scaling.train.trainer import Diverged, Trainer


def main() -> int:
    """Work on one run directory; the exit codes are rundir's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    run_dir = RunDir(parser.parse_args().run_dir)
    if run_dir.done.exists():
        return DONE
    stop = StopFlag()
    stop.listen()
    values = rundir.read_json(run_dir.spec)
    if values is None:
        print(
            f"{run_dir.path}: has no spec.json; launch the sweep, which makes it", file=sys.stderr
        )
        return FAILED
    spec = spec_from_json(values)
    threads = first_threads(run_dir)
    torch.set_num_threads(threads)
    try:
        folder = claim.take(
            run_dir.path.name, run_dir.attempts, run_dir.state, environment(threads)
        )
    except claim.HeldError as error:
        print(error, file=sys.stderr)
        return HELD
    note_running(run_dir, int(folder.name))
    redirect_output(folder / "log")
    code = run(spec, run_dir, int(folder.name), stop)
    rundir.write_json(folder / "exit.json", {"code": code, "time": time.time()})
    return code


def run(spec: RunSpec, run_dir: RunDir, number: int, stop: StopFlag) -> int:
    """Train; a failure becomes a state with its reason, its traceback goes to the attempt's log."""
    try:
        if spec.kind != "pretrain" or spec.gpus != 1:
            raise NotImplementedError(
                f"kind={spec.kind}, gpus={spec.gpus}: this version trains pretrain runs on 1 device"
            )
        return DONE if Trainer(spec, run_dir, number, stop).train() == "done" else STOPPED
    except Diverged as error:
        report(run_dir, number, "diverged", str(error))
        return DIVERGED
    except Exception as error:
        traceback.print_exc()
        report(run_dir, number, "failed", f"{type(error).__name__}: {error}")
        return FAILED


def note_running(run: RunDir, number: int) -> None:
    """Say so before the model is built, which takes a while."""
    last = rundir.read_json(run.state) or {"samples": 0}
    value = {**last, "state": "running", "reason": "", "attempt": number}
    rundir.write_json(run.state, {**value, "time": time.time()})


def report(run: RunDir, number: int, state: str, reason: str) -> None:
    """How the attempt ended, as an event and as the run's state."""
    reason = " ".join(reason.split())
    last = rundir.read_json(run.state) or {}
    samples = last.get("samples", 0)
    row = {"time": time.time(), "event": state, "attempt": number, "samples": samples}
    rundir.append_jsonl(run.events, {**row, "reason": reason})
    value = {**last, "state": state, "reason": reason, "attempt": number}
    rundir.write_json(run.state, {**value, "samples": samples, "time": time.time()})


def first_threads(run: RunDir) -> int:
    """The thread count of the run's first start: sums in another order give other last bits."""
    first = rundir.read_json(run.attempts / "1" / "env.json")
    return int(first["threads"]) if first else torch.get_num_threads()


def redirect_output(log: Path) -> None:
    """Both output streams of this process, its libraries included, go to the attempt's log."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())


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
