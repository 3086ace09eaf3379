"""How fast one run would train: `python -m clipa_scaling.train.calibrate REQUEST.json`.

The request names the run's spec, the record to write and the minutes it may take. Started by srun
with one task per GPU, all train together as the run would, and the first alone writes.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from clipa_scaling import rundir
from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir
from clipa_scaling.source import DataError
from clipa_scaling.spec import RunSpec, spec_from_json
from clipa_scaling.speed import DRAWN, STEADY
from clipa_scaling.train.ending import Refused, name_kind, tell
from clipa_scaling.train.generated import GeneratedPack
from clipa_scaling.train.loop import environment
from clipa_scaling.train.model import build_of, make_model
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.step import NO_LIMIT, Step
from clipa_scaling.train.world import PeerLost, World, join_world

WARM_STEPS = 3  # not timed: memory, kernels and compiled code are made in them
WINDOW_SECONDS = 0.5  # of steps timed as one: short ones would time the clock
LEAST_WINDOWS = 7
PARENT_SECONDS = 0.5  # between two looks whether it is there


def main() -> int:
    """Measure and write the record, or why it could not be; DONE or FAILED as of rundir."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("request", type=Path)
    parser.add_argument("--parent", type=int, help="process that this one ends with")
    options = parser.parse_args()
    if options.parent is not None:
        threading.Thread(target=end_with, args=(options.parent,), daemon=True).start()
    path = options.request
    request = rundir.read_json(path)
    spec = spec_from_json(request["spec"])
    record, failure = (path.with_name(request[name]) for name in ("record", "failure"))
    meeting = path.with_suffix(".meeting")  # of several processes
    try:
        world = join_world(RunDir(meeting), spec.gpus)
        if world.size != spec.gpus:
            raise Refused(f"gpus={spec.gpus}: got {world.size} processes; allowed: one per GPU")
        found = measure(spec, world, 60 * request["minutes"])
    except Exception as error:
        said = {"reason": tell(error), "kind": name_kind(error), "time": time.time()}
        if not (isinstance(error, PeerLost) and failure.exists()):  # who is gone said why
            rundir.write_json(failure, said)
        return rundir.FAILED
    if world.leads:
        rundir.write_json(record, {"device": request["device"], **found})
        failure.unlink(missing_ok=True)
        shutil.rmtree(meeting, ignore_errors=True)
    world.leave()
    return rundir.DONE


def end_with(parent: int) -> None:
    """End this process once its parent is gone: a killed launcher tells nobody, and the next one
    would time its processes beside this one.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(rundir.FAILED)


def measure(spec: RunSpec, world: World, seconds: float) -> dict[str, Any]:
    """A run's rate on this machine and what it was measured with, the same on every rank.

    seconds: of steps at most. The steps are the run's own: batches from its pack, or drawn in the
    same shapes where that is not there, and an optimizer that updates a model from its seed.
    """
    pack = open_pack(spec)
    model = make_model(
        load_model(spec.model),
        spec.image_size,
        spec.text_tokens,
        spec.vocab_size,
        spec.seed,
        build_of(spec),
    ).to(world.device)
    model.set_grad_checkpointing(spec.grad_checkpointing)
    step = Step(spec, model, world, spec.seed, pack)
    numbers = (number % spec.steps * spec.batch_size for number in count())
    time_steps(step, numbers, WARM_STEPS, world)
    [started] = world.largest(time.time() - psutil.Process().create_time())
    last = time_steps(step, numbers, 1, world)
    each = max(1, round(WINDOW_SECONDS / last))
    windows: list[float] = []
    while not windows or (sum(windows) < seconds and not is_steady(windows)):
        windows.append(time_steps(step, numbers, each, world))
    step_seconds = float(np.median(windows)) / each
    here = environment(torch.get_num_threads())
    cores = here["threads"] if world.device.type == "cpu" else 1
    return {
        "samples_per_second": spec.batch_size / step_seconds,
        # What the first steps took beyond the others, such as compiling, a run also takes once.
        "startup_seconds": max(0.0, started - WARM_STEPS * step_seconds),
        "steady": is_steady(windows),
        "half_width": half_width(windows) if len(windows) >= LEAST_WINDOWS else None,
        "cores": cores,
        "measured_on": here.pop("device"),
        "peak_memory_bytes": world.largest(peak_memory(world))[0],
        "steps": each * len(windows),
        "seconds": sum(windows),
        "micro_batch": 0 if step.micro_batch == NO_LIMIT else step.micro_batch,
        "data": DRAWN if isinstance(pack, GeneratedPack) else str(pack.folder),
        "host": socket.gethostname(),
        **here,
    }


def open_pack(spec: RunSpec) -> Pack:
    """The run's own data where it is packed, else drawn in its shapes."""
    try:
        return Pack.open(Path(spec.pack), spec.data_fingerprint)
    except DataError:
        if spec.objective == "classify" and not spec.classes:
            raise Refused(
                "data.labelled has no classes, so nothing can be drawn; add them"
            ) from None
        return GeneratedPack(spec)


def time_steps(step: Step, positions: Iterator[int], steps: int, world: World) -> float:
    """Seconds that so many steps take on the slowest rank; the device has done them all."""
    began = time.perf_counter()
    for _ in range(steps):
        step.take(next(positions))
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
    return world.largest(time.perf_counter() - began)[0]


def is_steady(windows: list[float]) -> bool:
    """Whether the median of enough windows is known within STEADY of itself."""
    return len(windows) >= LEAST_WINDOWS and half_width(windows) < STEADY


def half_width(windows: list[float]) -> float:
    """Half the 95 % interval of the median over it, from the quartiles.

    1.57 x interquartile range / sqrt(n) (McGill, Tukey, Larsen 1978, doi:10.2307/2683468).
    """
    low, middle, high = np.quantile(windows, [0.25, 0.5, 0.75])
    return float(1.57 * (high - low) / np.sqrt(len(windows)) / middle)


def peak_memory(world: World) -> float:
    """Bytes: of the device's memory what tensors took; on a CPU what the process took."""
    if world.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(world.device))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main())
