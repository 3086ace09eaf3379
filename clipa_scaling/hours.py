"""Device hours that a run has used, from what its attempts left behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipa_scaling.rundir import RunDir, read_json, read_jsonl


def used_hours(run: RunDir, gpus: int) -> float:
    """GPU-hours of all attempts, from start to end each, evaluations and saves in.

    On CPUs they are core-hours: wall time times the threads of a process. An attempt that was
    killed ends with its last sign of life.
    """
    folders = run.attempts.iterdir() if run.attempts.is_dir() else ()
    numbers = sorted(int(folder.name) for folder in folders if folder.name.isdigit())
    records = {number: read_json(run.attempts / str(number) / "env.json") for number in numbers}
    total = 0.0
    for number, record in records.items():
        later = records.get(number + 1)
        limit = float("inf") if later is None else later["time"]
        end = min(limit, find_end(run, number, record))
        cores = record["threads"] if record["device"] == "cpu" else 1
        total += gpus * cores * max(0.0, end - record["time"])
    return total / 3600


def find_end(run: RunDir, number: int, record: Mapping[str, Any]) -> float:
    """When an attempt ended, or was last known to live: its own word, state, events, then log."""
    attempt = run.attempts / str(number)
    ended = read_json(attempt / "exit.json") or {}
    if ended and ended.get("by") != "launcher":  # who closes a dead attempt comes later
        return float(ended["time"])
    state = read_json(run.state) or {}
    if state.get("attempt") == number and "time" in state:
        return float(state["time"])
    events = [float(row["time"]) for row in read_jsonl(run.events) if row.get("attempt") == number]
    return max([float(record["time"]), *events, *last_touch(attempt / "log")])


def last_touch(path: Path) -> list[float]:
    """When a heartbeat last touched a file, if it is there."""
    return [path.stat().st_mtime] if path.exists() else []
