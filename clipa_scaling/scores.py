"""What a run's folder says of how good it is, in a number of which lower is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipa_scaling.rundir import RunDir, read_json, read_state
from clipa_scaling.spec import EvalSet, RunSpec

TASKS = {"loss": "retrieve", "accuracy": "classify"}  # measures, the first is the default


class NotEvaluated(ValueError):
    """A done run without the evaluation that is asked for."""


def find_sets(measure: str, sets: Sequence[EvalSet]) -> list[tuple[str, EvalSet]]:
    """The measure, where none is given the first that there is, with each set that has it.

    ValueError where no set has.
    """
    for name in [measure] if measure else TASKS:
        found = [(name, item) for item in sets if item.task == TASKS[name]]
        if found:
            return found
    what = f"a {TASKS[measure]} set" if measure else "an evaluation set"
    raise ValueError(f"has nothing to judge by; add {what} to data.evals")


def read_score(run: RunDir, spec: RunSpec, name: str, item: EvalSet) -> float | None:
    """By one set: held-out loss, or the logarithm of the error, at the end; infinite: it diverged.

    None while it is not over. NotEvaluated where it is, and the evaluation is missing.
    """
    state = read_state(run).name
    if state != "done":
        return math.inf if state == "diverged" else None
    found = read_json(run.evals) or {"rows": []}
    wanted = (spec.samples, item.name, item.benchmark, name)
    rows = [
        row
        for row in found["rows"]
        if (row["samples"], row["set"], row["fingerprint"], row["name"]) == wanted
        and not row.get("positions")
    ]
    if not rows:
        raise NotEvaluated(f"{run.path.name} was never evaluated on {item.name}")
    # As in tables and figures: the file's prompts before CLIP's; and the training size first.
    row = min(rows, key=lambda row: (row["protocol"] != "common", row.get("size") == "full"))
    if row["value"] is None:
        return math.inf
    if name == "loss":
        return float(row["value"])
    # A set without a mistake says that the error is below that of half an example.
    return math.log(max(1 - row["value"], 0.5 / row["n"]))
