"""Measuring how fast a sweep's runs train, each speed once: processes here, or jobs on Slurm.

All that is kept lies in `runs/.calibration`, never among the runs, and a record is written last and
at once: a launcher killed at any time is asked again.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipa_scaling import rundir
from clipa_scaling.launch.local import LOOK_SECONDS, Slot
from clipa_scaling.plan import PlanRow
from clipa_scaling.revision import take_snapshot
from clipa_scaling.show import clock, si
from clipa_scaling.spec import spec_to_json
from clipa_scaling.speed import (
    DRAWN,
    ON_DRAWN,
    failure_path,
    find_calibration,
    is_device,
    load_rates,
    record_path,
    request_path,
    speed_key,
)

Say = Callable[[str], None]
STOP_SECONDS = 10.0  # for a process told to end; nothing of it is needed


@dataclass(frozen=True)
class Cell:
    """Runs of one speed: the key, one of them, and how many there are."""

    key: str
    row: PlanRow
    count: int

    @property
    def name(self) -> str:
        others = f" and {self.count - 1} more of its speed" if self.count > 1 else ""
        return f"{self.row.planned.id}{others}"


class Calibration:
    """What a sweep's cells still lack, and what is said as each of them is measured."""

    def __init__(self, runs: Path, device: str, minutes: float, say: Say):
        self.runs, self.device, self.minutes, self.say = runs, device, minutes, say
        self.folder = find_calibration(runs)
        self.code = take_snapshot(rundir.find_snapshots(runs))
        self.failed: list[Cell] = []
        self.measured: list[Cell] = []

    def request(self, cell: Cell) -> Path:
        """Say in a file what is to be measured; what an earlier try left is forgotten."""
        self.folder.mkdir(parents=True, exist_ok=True)
        failure_path(self.runs, cell.key).unlink(missing_ok=True)
        path = request_path(self.runs, cell.key)
        value = {
            "device": self.device,
            "minutes": self.minutes,
            "record": record_path(self.runs, cell.key).name,
            "failure": failure_path(self.runs, cell.key).name,
            "spec": spec_to_json(cell.row.planned.spec),
        }
        rundir.write_json(path, value)
        return path

    def log(self, cell: Cell) -> Path:
        return self.folder / f"{cell.key}.log"

    def end(self, cell: Cell, ended: str, log: Path) -> None:
        """Say what became of a cell; `ended` where neither a record nor a failure tells.

        A record from before the last request was of another device; it is no success now.
        """
        failure = rundir.read_json(failure_path(self.runs, cell.key))
        record = rundir.read_json(record_path(self.runs, cell.key))
        if failure is None and record is not None and not ended:
            self.measured.append(cell)
            self.say(f"{cell.name}: {describe(record)}")
            if not is_device(self.device, record["measured_on"]):
                self.say(
                    f"measured on {record['measured_on']}, which is not resources.gpu="
                    f"{self.device}: the plan does not use it"
                )
            return
        self.failed.append(cell)
        self.say(f"failed {cell.name}: {failure['reason'] if failure else ended} (log: {log})")


def list_cells(rows: Iterable[PlanRow], device: str) -> list[Cell]:
    """The distinct speeds of runs that train, in the plan's order."""
    by_key: dict[str, list[PlanRow]] = {}
    for row in rows:
        if row.planned.spec.kind != "evaluate":
            by_key.setdefault(speed_key(row.planned.spec, device), []).append(row)
    return [Cell(key, next(filter(is_packed, rows), rows[0]), len(rows))
            for key, rows in by_key.items()]  # fmt: skip


def is_packed(row: PlanRow) -> bool:
    """Whether a run's own data can be read."""
    return Path(row.planned.spec.pack, "pack.json").exists()


def missing_cells(cells: Sequence[Cell], runs: Path, device: str) -> list[Cell]:
    """Those without a steady record of this device, made on their own data once it is packed."""
    rates = load_rates(runs, device)

    def is_missing(cell: Cell) -> bool:
        rate = rates.get(cell.key)
        return rate is None or not rate.steady or (rate.drawn and is_packed(cell.row))

    return [cell for cell in cells if is_missing(cell)]


def describe(record: Mapping[str, Any]) -> str:
    """A record in one line."""
    width = record["half_width"]
    spread = "in too few windows to tell how steady" if width is None else f"± {width:.1%}"
    unsteady = "" if record.get("steady", True) else "; not steady: asked again, measured again"
    on = record["measured_on"]
    if on == "cpu":
        on = f"{record['cores']} core{'s' * (record['cores'] > 1)} of {record['host_cpu']}"
    drawn = f", {ON_DRAWN}" if record["data"] == DRAWN else ""
    return (
        f"{si(record['samples_per_second'])} samples/s {spread} on {on}, {record['steps']} steps "
        f"in {clock(record['seconds'])}, {si(record['peak_memory_bytes'], 'B')}{drawn}{unsteady}"
    )


def measure_here(work: Calibration, cells: Sequence[Cell], slots: Sequence[Slot]) -> bool:
    """Measure in processes here, as many at a time as there are slots; False after Ctrl-C."""
    waiting = list(cells)
    free = list(slots)
    at_work: dict[str, tuple[Cell, subprocess.Popen[bytes], Slot]] = {}
    try:
        while waiting or at_work:
            while waiting and free:
                cell, slot = waiting.pop(0), free.pop(0)
                at_work[cell.key] = (cell, start(work, cell, slot), slot)
            for key, (cell, process, slot) in list(at_work.items()):
                code = process.poll()
                if code is not None:
                    del at_work[key]
                    free.append(slot)
                    ended = f"exit code {code}" if code else ""
                    work.end(cell, ended, work.log(cell))
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        return False
    finally:
        for _, process, _ in at_work.values():
            end_process(process)
    return True


def start(work: Calibration, cell: Cell, slot: Slot) -> subprocess.Popen[bytes]:
    """One cell's process; its output goes to the cell's log."""
    request = work.request(cell)
    with open(work.log(cell), "wb") as log:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "clipa_scaling.train.calibrate",
                str(request),
                "--parent",
                str(os.getpid()),
            ],  # fmt: skip
            cwd=work.code,  # where `-m` looks first
            env=os.environ | {"PYTHONSAFEPATH": ""} | slot.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # a terminal's Ctrl-C reaches this launcher alone
        )


def end_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def most_minutes(minutes: float) -> int:
    """A job's time limit: steps for so long, and assumed: ten minutes to load, build, compile."""
    return math.ceil(minutes) + 10
