"""Where a run lives on disk: names, atomic writes, state. All that crosses to the trainer."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipa_scaling.claim import is_alive, load_owner

# How a run's process ends; 75 is sysexits' EX_TEMPFAIL.
DONE, FAILED, STOPPED, DIVERGED, HELD = 0, 1, 75, 76, 77
OPTIMIZER = "optimizer.pt"  # of a checkpoint that training can go on from


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically: temporary name in the same folder, fsync, rename, fsync folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically; NaN becomes null, since JSON has none."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file, or None where there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row with one write: a reader sees it whole or torn at the end, never mixed."""
    line = json.dumps(row, allow_nan=False) + "\n"
    drop_torn_line(path)
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())
        os.fsync(file.fileno())


def drop_torn_line(path: Path) -> None:
    """Cut off the last line if a kill tore it, lest the next row be glued to it."""
    if path.exists() and path.stat().st_size:
        with open(path, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a JSONL file; a torn last line, which a kill can leave, is dropped."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1] if line]


def cut_jsonl(path: Path, samples: int) -> None:
    """Drop the rows past a checkpoint, and a torn last line, atomically."""
    if path.exists():
        rows = [row for row in read_jsonl(path) if row["samples"] <= samples]
        write_jsonl(path, rows)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSONL file atomically."""
    write_bytes(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())


@dataclass(frozen=True)
class RunDir:
    """One run's folder and the names in it; `done.json` alone proves success."""

    path: Path

    @property
    def spec(self) -> Path:
        return self.path / "spec.json"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def evals(self) -> Path:
        return self.path / "evals.json"

    @property
    def done(self) -> Path:
        return self.path / "done.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    def last_checkpoint(self) -> Path | None:
        """The checkpoint with the most samples; folders get their final name once complete."""
        if not self.checkpoints.is_dir():
            return None
        whole = [folder for folder in self.checkpoints.iterdir() if folder.name.isdigit()]
        return max(whole, key=lambda folder: int(folder.name), default=None)

    def kept_states(self) -> list[int]:
        """The samples of the checkpoints that training can go on from, rising."""
        found = self.checkpoints.glob(f"*/{OPTIMIZER}")
        return sorted(int(path.parent.name) for path in found if path.parent.name.isdigit())

    def last_attempt(self) -> Path | None:
        """The folder of the latest attempt, or None before the first."""
        if not self.attempts.is_dir():
            return None
        taken = [folder for folder in self.attempts.iterdir() if folder.name.isdigit()]
        return max(taken, key=lambda folder: int(folder.name), default=None)


@dataclass(frozen=True)
class RunState:
    """What a run's folder says of it: planned, running, stopped, lost, failed, diverged or done."""

    name: str
    samples: int = 0
    reason: str = ""
    attempt: int = 0
    progress: Mapping[str, Any] | None = None
    kind: str = ""  # of a failure: oom_gpu, oom_host, nccl, dist, diverged or error


def read_state(run: RunDir) -> RunState:
    """A run's state from its folder: done.json, then the heartbeat, then its owner's pulse."""
    done = read_json(run.done)
    if done is not None:
        return RunState("done", done["samples"], attempt=done["attempt"], progress=done)
    state = read_json(run.state)
    if state is None:
        return RunState("planned")
    name, reason, kind = state["state"], state.get("reason", ""), state.get("kind", "")
    if name == "running":
        last = run.last_attempt()
        if last is None or not is_alive(load_owner(last), run.state):
            if run.done.exists():  # it came and its owner left between the two looks
                return read_state(run)
            name, reason = "lost", "its process is gone; the same command resumes it"
            failure = None if last is None else read_failure(last)
            if failure is not None:  # the others were killed before rank 0 could say so
                name, reason, kind = "failed", failure["reason"], failure["kind"]
    return RunState(name, state["samples"], reason, state["attempt"], state, kind)


def read_failure(attempt: Path) -> dict[str, str] | None:
    """Kind and reason of the failure of a rank other than 0, which alone writes the state."""
    found = [read_json(path) for path in sorted(attempt.glob("failed.*.json"))]
    return min(found, key=lambda failure: failure["time"]) if found else None


def make_run(run: RunDir, spec: Mapping[str, Any]) -> None:
    """Make a run's folder with its spec; states that another sweep asked it to keep stay asked."""
    run.path.mkdir(parents=True, exist_ok=True)
    before = read_json(run.spec) or {}
    kept = {*spec.get("keep_samples", ()), *before.get("keep_samples", ())}
    write_json(run.spec, {**spec, "keep_samples": sorted(kept)} if kept else spec)


def find_project(start: Path | None = None) -> Path:
    """The clone that holds the current folder, or the current folder itself outside a clone."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").exists() and (folder / "sweeps").is_dir():
            return folder
    return here


def find_runs(given: str | None) -> Path:
    """The runs folder: `--runs`, else CLIPA_RUNS, else `runs/` of the project."""
    chosen = given or os.environ.get("CLIPA_RUNS")
    return Path(chosen).expanduser().resolve() if chosen else find_project() / "runs"


def find_packs(runs: Path) -> Path:
    """Packs are shared by the sweeps of one runs folder, so they lie beside the runs."""
    return runs / ".packs"


def find_snapshots(runs: Path) -> Path:
    """Code that runs were launched with."""
    return runs / ".code"
