"""What a run writes of itself while it works: state, events, metrics, evaluations."""

from __future__ import annotations

import time
from typing import Any

from clipa_scaling import rundir
from clipa_scaling.rundir import RunDir
from clipa_scaling.spec import RunSpec
from clipa_scaling.train.loggers import Loggers

HEARTBEAT_SECONDS = 2.0


class Record:
    """One attempt's writer; `writes` is false on every rank but 0, whose record stays silent."""

    def __init__(self, spec: RunSpec, run: RunDir, attempt: int, writes: bool):
        self.spec, self.run, self.attempt, self.writes = spec, run, attempt, writes
        self.loggers: Loggers | None = None
        self.last_row: dict[str, Any] = {}
        self.losses: list[dict[str, Any]] = []  # of every row, those of earlier attempts too
        self.last_beat = 0.0

    def begin(self, samples: int, keep: int | None = None, **more: Any) -> None:
        """Cut off what was written past the checkpoint that the attempt starts from.

        keep: up to where evaluations stay, where that is further: nothing of them is trained again.
        """
        if not self.writes:
            return
        rundir.cut_jsonl(self.run.metrics, samples)
        kept = [row for row in self.evals() if row["samples"] <= (keep or samples)]
        rundir.write_json(self.run.evals, {"rows": kept})
        rows = rundir.read_jsonl(self.run.metrics)
        self.last_row = rows[-1] if rows else {}
        self.losses = [{"samples": row["samples"], "loss": row["loss"]} for row in rows]
        self.loggers = Loggers(self.spec, self.run, self.attempt, samples)
        begun = samples or (keep and kept)
        more |= {"evals": len(kept)} if keep else {}
        self.event("resumed" if begun else "started", samples, **more)
        self.state("running", samples)

    def beat(self, samples: int) -> None:
        """A sign of life, if the last is old: the state, and the log's time."""
        if self.writes and time.monotonic() - self.last_beat > HEARTBEAT_SECONDS:
            self.state("running", samples)
            (self.run.attempts / str(self.attempt) / "log").touch()

    def state(self, state: str, samples: int, reason: str = "") -> None:
        """Where the run is, for whoever looks."""
        if not self.writes:
            return
        shown = ("loss", "samples_per_second")
        progress = {name: self.last_row.get(name) for name in shown}
        value = {"state": state, "reason": reason, "attempt": self.attempt, **progress}
        rundir.write_json(self.run.state, {**value, "samples": samples, "time": time.time()})
        self.last_beat = time.monotonic()

    def event(self, name: str, samples: int, **more: Any) -> None:
        if self.writes:
            row = {"time": time.time(), "event": name, "attempt": self.attempt}
            rundir.append_jsonl(self.run.events, {**row, "samples": samples, **more})

    def row(self, row: dict[str, Any]) -> None:
        """A row of metrics."""
        self.last_row = {**row, "attempt": self.attempt}
        self.losses.append({"samples": row["samples"], "loss": row["loss"]})
        if self.writes:
            rundir.append_jsonl(self.run.metrics, self.last_row)
        if self.loggers:
            self.loggers.row(self.last_row)

    def evals(self) -> list[dict[str, Any]]:
        found = rundir.read_json(self.run.evals)
        return [] if found is None else list(found["rows"])

    def add_evals(self, rows: list[dict[str, Any]]) -> None:
        if self.writes:
            rundir.write_json(self.run.evals, {"rows": self.evals() + rows})
        if self.loggers:  # which draw one value per measure and sample
            self.loggers.evals(row for row in rows if not row.get("positions"))

    def close(self, is_complete: bool) -> None:
        """Let the loggers go; a run at its end has nothing to add to its last samples."""
        if self.loggers and is_complete:
            self.loggers.complete()
        if self.loggers:
            self.loggers.close()

    def done(self, samples: int, seconds: float) -> None:
        """Prove success; done.json is written last."""
        if self.writes:
            self.event("done", samples)
            done = {"samples": samples, "attempt": self.attempt, "seconds": seconds}
            rundir.write_json(self.run.done, {**done, "loss": self.last_row.get("loss")})
