"""What a run's folder says of how good it is, in a number of which lower is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clipa_scaling.children import Child, join_rows
from clipa_scaling.rundir import RunDir, read_json, read_state
from clipa_scaling.spec import EvalSet, RunSpec

TASKS = {"loss": "retrieve", "accuracy": "classify"}  # measures, the first is the default


@dataclass(frozen=True)
class Judge:
    """A measure, and the evaluation set that it is taken on."""

    measure: str
    item: EvalSet


@dataclass(frozen=True)
class Outcome:
    """How a run stands, with its own evaluations at its end and those made later."""

    state: str
    rows: Sequence[dict[str, Any]] = ()

    def rows_by(self, judge: Judge) -> list[dict[str, Any]]:
        wanted = (judge.item.name, judge.item.benchmark, judge.measure)
        return [row for row in self.rows if (row["set"], row["fingerprint"], row["name"]) == wanted]


def find_judges(measure: str, sets: Sequence[EvalSet]) -> list[Judge]:
    """All that can judge, in order: held-out loss before accuracy where no measure is given.

    ValueError where nothing can.
    """
    found = [
        Judge(name, item)
        for name in ([measure] if measure else TASKS)
        for item in sets
        if item.task == TASKS[name]
    ]
    if not found:
        what = f"a {TASKS[measure]} set" if measure else "an evaluation set"
        raise ValueError(f"has nothing to judge by; add {what} to data.evals")
    return found


def choose_judge(judges: Sequence[Judge], outcomes: Sequence[Outcome]) -> Judge:
    """The first that every finished run was evaluated by, else the first.

    So a set that the file has since put first does not undo what runs have decided.
    """
    done = [outcome for outcome in outcomes if outcome.state == "done"]
    common = (judge for judge in judges if all(outcome.rows_by(judge) for outcome in done))
    return next(common, judges[0])


def read_outcome(run: RunDir, spec: RunSpec, children: Sequence[Child]) -> Outcome:
    """A run's state and evaluations of its last checkpoint."""
    state = read_state(run).name
    if state != "done":
        return Outcome(state)
    rows = join_rows((read_json(run.evals) or {"rows": []})["rows"], children)
    at_end = [row for row in rows if row["samples"] == spec.samples and not row.get("positions")]
    return Outcome(state, at_end)


def read_score(outcome: Outcome, judge: Judge) -> float | None:
    """Held-out loss, or the logarithm of the error, at the end; infinite where the run diverged.

    None while it is not over, or where it is and was not evaluated so.
    """
    if outcome.state != "done":
        return math.inf if outcome.state == "diverged" else None
    rows = outcome.rows_by(judge)
    if not rows:
        return None
    # As in tables and figures: the file's prompts before CLIP's; and the training size first.
    row = min(rows, key=lambda row: (row["protocol"] != "common", row.get("size") == "full"))
    if row["value"] is None:
        return math.inf
    if judge.measure == "loss":
        return float(row["value"])
    # A set without a mistake says that the error is below that of half an example.
    return math.log(max(1 - row["value"], 0.5 / row["n"]))
