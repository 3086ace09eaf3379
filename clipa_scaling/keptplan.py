"""The plan that the last launch kept beside the runs, and what has changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipa_scaling.plan import Plan
from clipa_scaling.rundir import RunDir, read_json, write_json
from clipa_scaling.spec import identity, spec_to_json


def sweep_folder(runs: Path, name: str) -> Path:
    """What the launcher knows of a sweep, beside the runs."""
    return runs / ".sweeps" / name


def save_plan(plan: Plan, runs: Path) -> None:
    """Keep the plan, so that a later one can tell what became of its runs."""
    path = plan_path(plan, runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, kept_plan(plan))


def is_saved(plan: Plan, runs: Path) -> bool:
    """Whether the plan last kept is this one, so that tables made since are its own."""
    return bool(read_json(plan_path(plan, runs)) == json.loads(json.dumps(kept_plan(plan))))


def plan_path(plan: Plan, runs: Path) -> Path:
    return sweep_folder(runs, plan.sweep.name) / "plan.json"


def kept_plan(plan: Plan) -> dict[str, Any]:
    """What a later call needs of a plan: what the file asked for, and what that meant."""
    excluded = [{"asked": dict(cell.values), "reason": cell.reason} for cell in plan.excluded]
    return {
        "sweep": plan.sweep.name,
        "data": dict(plan.sweep.data),
        "resources": asdict(plan.sweep.resources),
        "runs": kept_runs(plan),
        "excluded": excluded,
    }


def kept_runs(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "run": row.planned.id,
            "asked": dict(row.planned.asked),
            "spec": spec_to_json(row.planned.spec),
        }
        for row in plan.rows
    ]


def key_by_words(kept: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Runs by what the file says of each and of those it starts from: as JSON, as plans are kept.

    Children of several parents are told apart by their parents' words, for the ids may change. A
    parent that is no run of the plan counts by its id.
    """
    by_id = {run["run"]: run for run in kept}

    def words(run: Mapping[str, Any]) -> list[Any]:
        parent = run["spec"]["parent"]
        above = words(by_id[parent]) if parent in by_id else parent
        return [run["spec"]["stage"], run["asked"], above]

    return {json.dumps(words(run), sort_keys=True): run for run in kept}


def removed_runs(plan: Plan, runs: Path) -> list[str]:
    """Runs of the plan last kept that the file no longer asks for, and that were ever made."""
    before = read_json(plan_path(plan, runs))
    now = {row.planned.id for row in plan.rows}
    listed = [old["run"] for old in before["runs"]] if before is not None else []
    return [run for run in listed if run not in now and (runs / run).is_dir()]


def changed_defaults(plan: Plan, runs: Path) -> str | None:
    """Why a launch would redo finished runs that the file asks for in the same words; or None.

    The file's words for a cell are the same as in the last plan, that run is done, and yet the id
    is new: then a default of this package, or the data, changed underneath.
    """
    before = read_json(plan_path(plan, runs))
    if before is None or before["data"] != plan.sweep.data:
        return None
    known = key_by_words(before["runs"])
    keys = {old["run"]: key for key, old in key_by_words(kept_runs(plan)).items()}
    for row in plan.left:
        old = known.get(keys.get(row.planned.id, ""))
        if old is None or old["run"] == row.planned.id:
            continue
        if not RunDir(runs / old["run"]).done.exists():
            continue
        new = spec_to_json(row.planned.spec)
        names = identity(row.planned.spec)
        changed = [
            f"{name}: {old['spec'].get(name)!r} -> {new[name]!r}"
            for name in names
            if old["spec"].get(name) != new[name]
        ]
        return (
            f"{plan.sweep.path}: {row.planned.id} would redo the finished {old['run']}, though the "
            f"file asks the same; changed: {'; '.join(changed)}; set the old value, or pass "
            "--accept-changed"
        )
    return None
