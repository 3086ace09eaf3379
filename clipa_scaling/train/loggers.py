"""Metrics and evaluations to TensorBoard and Weights & Biases too, where the sweep file asks.

What the run's folder says is the truth, and these follow it: on resume each is brought to the
checkpoint, so that every row is there once. The x axis of both is `samples`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clipa_scaling import rundir
from clipa_scaling.extras import check_loggers
from clipa_scaling.rundir import RunDir
from clipa_scaling.spec import RunSpec, spec_to_json

if TYPE_CHECKING:
    import wandb

Point = tuple[int, dict[str, float]]  # samples, and values by name

# W&B as a follower: silent, and never long in the way of a run. Whoever sets one decides.
WANDB_DEFAULTS = {
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",  # the attempt has its log
    "WANDB_INIT_TIMEOUT": "20",  # seconds
    "WANDB_FINISH_TIMEOUT": "20",
}


class Logger(Protocol):
    """One place that metrics go to."""

    known: int  # it has all that happened up to so many samples

    def add(self, samples: int, values: Mapping[str, float]) -> None: ...

    def complete(self) -> None: ...

    def close(self) -> None: ...


class Loggers:
    """The loggers of one attempt, resumed at `samples`; MissingPackage where one is not there."""

    def __init__(self, spec: RunSpec, run: RunDir, attempt: int, samples: int):
        check_loggers([spec])
        self.all: list[Logger] = []
        if spec.tensorboard:
            self.all.append(TensorBoard(run.path / "tensorboard", attempt, samples))
        if spec.wandb:
            self.all.append(Wandb(spec, run))
        for logger in self.all:
            for at, values in read_history(run):
                if at > logger.known:
                    logger.add(at, values)

    def row(self, row: Mapping[str, Any]) -> None:
        """A row of metrics."""
        self.add(row_point(row))

    def evals(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows of evaluations."""
        for row in rows:
            self.add(eval_point(row))

    def add(self, point: Point) -> None:
        for logger in self.all:
            logger.add(*point)

    def complete(self) -> None:
        """The run is at its end: nothing will be added to the last samples either."""
        for logger in self.all:
            logger.complete()

    def close(self) -> None:
        for logger in self.all:
            logger.close()


def row_point(row: Mapping[str, Any]) -> Point:
    """A row of metrics as a point."""
    return row["samples"], {name: value for name, value in row.items() if name != "samples"}


def eval_point(row: Mapping[str, Any]) -> Point:
    """A row of evaluations as a point, `set/protocol/name`, `set/protocol/full/name` at full size.

    Empty where there is no value.
    """
    size = "full/" if row.get("size") == "full" else ""
    name, value = f"{row['set']}/{row['protocol']}/{size}{row['name']}", row["value"]
    return row["samples"], {} if value is None else {name: value}


def read_history(run: RunDir) -> list[Point]:
    """All that the run's folder has, in the order of samples, metrics before evaluations."""
    evals = rundir.read_json(run.evals) or {"rows": []}
    points = [*map(row_point, rundir.read_jsonl(run.metrics)), *map(eval_point, evals["rows"])]
    return sorted(points, key=lambda point: point[0])


class TensorBoard:
    """Event files, one an attempt, named so that TensorBoard reads them in order.

    Nothing is ever deleted: a file begins with the mark at which TensorBoard drops what earlier
    ones have past the checkpoint.
    """

    def __init__(self, folder: Path, attempt: int, samples: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.known = samples if folder.exists() else -1
        self.event, self.summary = Event, Summary
        folder.mkdir(exist_ok=True)
        self.records = RecordWriter(FileIO(folder / f"events.out.tfevents.{attempt:010d}", "w"))
        self.write(file_version="brain.Event:2")
        self.write(step=samples + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, **event: Any) -> None:
        """One record, in the file before the run goes on: a kill tears none."""
        self.records.write(self.event(wall_time=time.time(), **event).SerializeToString())

    def add(self, samples: int, values: Mapping[str, float]) -> None:
        shown = [self.summary.Value(tag=name, simple_value=values[name]) for name in values]
        self.write(step=samples, summary=self.summary(value=shown))

    def complete(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        self.records.close()


class Wandb:
    """A run of W&B under the run's own id; whatever fails in it is a warning in the log.

    Online, its server knows which rows it has. Offline, every attempt leaves a folder of its own
    to upload, and `sent.json` says up to where closed ones reach; a killed attempt's, of which an
    unknown part is on disk, makes room for the next one's. A row is sent once no value can come to
    its samples any more, since W&B takes nothing afterwards.
    """

    def __init__(self, spec: RunSpec, run: RunDir):
        for name, value in WANDB_DEFAULTS.items():
            os.environ.setdefault(name, value)
        self.folder = run.path / "wandb"
        self.sent = self.folder / "sent.json"
        self.folder.mkdir(exist_ok=True)
        self.known = self.samples = -1
        self.waiting: dict[str, float] = {}
        self.done = False
        self.run = self.start(spec, run)
        self.safely(self.prepare)

    def start(self, spec: RunSpec, run: RunDir) -> wandb.Run | None:
        """Online as the environment says; offline where that fails."""
        import wandb

        entity, _, project = spec.wandb.rpartition("/")

        def init(mode: Any = None) -> wandb.Run:
            return wandb.init(
                project=project,
                entity=entity or None,
                id=run.path.name,
                name=run.path.name,
                resume="allow",
                dir=run.path,
                config=spec_to_json(spec),
                allow_val_change=True,
                mode=mode,
            )

        try:
            started = init()
        except Exception as error:
            warn(error, f"offline instead; to upload: wandb sync {self.folder}/offline-run-*")
            try:
                wandb.teardown()
                started = init("offline")
            except Exception as second:
                warn(second, "the run goes on without it")
                return None
        return None if started.disabled else started

    def prepare(self, started: wandb.Run) -> None:
        """Find out what W&B has."""
        started.define_metric("samples")
        started.define_metric("*", step_metric="samples")
        self.known = started.starting_step - 1
        if started.offline:
            sent = rundir.read_json(self.sent) or {"samples": -1, "open": ""}
            if sent["open"]:
                shutil.rmtree(self.folder / sent["open"], ignore_errors=True)
            self.known = sent["samples"]
            self.note(Path(started.dir).parent.name)

    def note(self, folder: str) -> None:
        """Say how far closed folders reach, and which one is open."""
        rundir.write_json(self.sent, {"samples": self.known, "open": folder})

    def add(self, samples: int, values: Mapping[str, float]) -> None:
        if samples > self.known:
            if samples > self.samples:
                self.send()
            self.samples = samples
            self.waiting.update(values)

    def send(self) -> None:
        """Send what waits, as one row."""
        row, self.waiting = {"samples": self.samples, **self.waiting}, {}
        if len(row) > 1 and self.safely(lambda run: run.log(row, step=self.samples, commit=True)):
            self.known = self.samples

    def complete(self) -> None:
        self.send()
        self.done = True

    def close(self) -> None:
        """Finish within the time limit; an unfinished run's last row waits for the next attempt."""
        if self.safely(lambda run: run.finish(exit_code=0 if self.done else 1)):
            self.note("")
        import wandb

        try:
            wandb.teardown()
        except Exception as error:
            warn(error, "nothing to do")

    def safely(self, action: Callable[[wandb.Run], object]) -> bool:
        """Whether it worked; where it did not, this attempt goes on without W&B."""
        if self.run is None:
            return False
        try:
            action(self.run)
        except Exception as error:
            self.run = None
            warn(error, "the run goes on without it; metrics.jsonl has every row")
            return False
        return True


def warn(error: Exception, consequence: str) -> None:
    """One line in the attempt's log."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"wandb: {reason}; {consequence}", file=sys.stderr)
