"""Batches of jobs, and what the launcher keeps of each: written before it is submitted."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from clipa_scaling import rundir
from clipa_scaling.keptplan import sweep_folder

PREFIX = "clipa"
# intent: written before sbatch, which may or may not have happened. recorded: its job's id is
# known, and the job is held. released: it may start. void: it never reached the queue.
BatchState = Literal["intent", "recorded", "released", "void"]


@dataclass(frozen=True, order=True)
class Ask:
    """What one job of a batch asks for; jobs that ask the same share an array.

    exclude: nodes to keep away from. mem_gb: per node, 0 for the cluster's default.
    """

    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    minutes: int
    mem_gb: float = 0.0
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """One job, or one array with a task per run.

    tasks: run ids, or the shares of a packing. why: the failure after which a run is submitted
    again, by run id. after: jobs that must succeed first. code: the snapshot it runs. at_once: how
    many tasks may be at work, 0 for all. by_hand: whether failed runs were asked for again.
    """

    id: str
    sweep: str
    kind: Literal["runs", "pack"]
    tasks: tuple[str, ...]
    ask: Ask
    code: str
    time: float
    why: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    packs: tuple[str, ...] = ()
    at_once: int = 0
    by_hand: bool = False
    state: BatchState = "intent"
    job: str = ""

    @property
    def name(self) -> str:
        """The job's name in the queue: by it a batch is found whose id nobody wrote down."""
        return f"{PREFIX}:{self.sweep}:{self.id}"

    def task_job(self, index: int) -> str:
        """The id of one task's job as the queue prints it; submitit makes no array of one."""
        if not self.job:
            return ""
        return self.job if len(self.tasks) == 1 else f"{self.job}_{index}"

    def task_jobs(self) -> list[str]:
        return [self.task_job(index) for index in range(len(self.tasks))]


def make_batch(runs: Path, sweep: str, kind: Literal["runs", "pack"], **more: Any) -> Batch:
    """A batch with an id of its own; of the twelve digits six name the runs folder."""
    identity = folder_digits(runs) + secrets.token_hex(3)
    return Batch(id=identity, sweep=sweep, kind=kind, time=time.time(), **more)


def folder_digits(runs: Path) -> str:
    """Six hex digits of a runs folder: two folders may hold sweeps of one name."""
    return hashlib.sha256(str(runs).encode()).hexdigest()[:6]


def submissions(runs: Path, sweep: str) -> Path:
    return sweep_folder(runs, sweep) / "submissions"


def files_of(runs: Path, batch: Batch) -> Path:
    """Where a batch's script, pickles and early output lie."""
    return submissions(runs, batch.sweep) / batch.id


def save_batch(runs: Path, batch: Batch) -> Batch:
    """Keep a batch, replacing what was kept of it."""
    folder = submissions(runs, batch.sweep)
    folder.mkdir(parents=True, exist_ok=True)
    rundir.write_json(folder / f"{batch.id}.json", asdict(batch))
    return batch


def change(runs: Path, batch: Batch, **changes: Any) -> Batch:
    """Keep a batch with some fields changed."""
    return save_batch(runs, replace(batch, **changes))


def load_batches(runs: Path, sweep: str) -> list[Batch]:
    """All batches of a sweep, the oldest first."""
    folder = submissions(runs, sweep)
    found = [rundir.read_json(path) for path in folder.glob("*.json")] if folder.is_dir() else []
    return sorted((batch_from_json(value) for value in found), key=lambda batch: batch.time)


def load_all_batches(runs: Path) -> list[Batch]:
    """The batches of all sweeps of a runs folder, which may share runs; the oldest first."""
    names = [folder.parent.name for folder in (runs / ".sweeps").glob("*/submissions")]
    found = [batch for name in names for batch in load_batches(runs, name)]
    return sorted(found, key=lambda batch: batch.time)


def batch_from_json(value: Mapping[str, Any]) -> Batch:
    ask = value["ask"] | {"exclude": tuple(value["ask"]["exclude"])}
    lists = {name: tuple(value[name]) for name in ("tasks", "after", "packs")}
    return Batch(**(dict(value) | lists | {"ask": Ask(**ask)}))


def latest_tasks(batches: Sequence[Batch]) -> dict[str, tuple[Batch, str]]:
    """For every run its latest batch, and its job there; none where only the intent is known."""
    found: dict[str, tuple[Batch, str]] = {}
    for batch, index, run in list_tasks(batches):
        found[run] = (batch, batch.task_job(index))
    return found


def list_tasks(batches: Sequence[Batch]) -> Iterator[tuple[Batch, int, str]]:
    """Every run's tasks, the oldest first, of batches that reached the queue, or may have."""
    for batch in batches:
        if batch.kind == "runs" and batch.state != "void":
            for index, run in enumerate(batch.tasks):
                yield batch, index, run


def count_retries(batches: Sequence[Batch], run: str, kind: str) -> int:
    """How often a run was submitted again after this kind of failure."""
    return sum(batch.why.get(run) == kind for batch in batches if batch.state != "void")
