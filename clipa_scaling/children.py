"""Evaluation runs made later of a run, and its evaluations with theirs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipa_scaling.evaluation import TRAINING
from clipa_scaling.rundir import RunDir, read_json
from clipa_scaling.schema import TableError
from clipa_scaling.spec import RunSpec, spec_from_json

PREFIX = "evaluate-"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Child:
    """An evaluation run on disk."""

    run: RunDir
    spec: RunSpec

    @property
    def id(self) -> str:
        return self.run.path.name

    @property
    def is_done(self) -> bool:
        return self.run.done.exists()


def find_children(runs: Path, parents: Iterable[str]) -> dict[str, list[Child]]:
    """The evaluation runs of each parent that has any, in the order in which they began.

    Their folders are named as their parents', but for the kind and the digits: only those that can
    be are opened.
    """
    parents = set(parents)
    slugs = {slug_of(parent) for parent in parents}
    names = os.listdir(runs) if runs.is_dir() else []
    found: dict[str, list[Child]] = {}
    for name in sorted(name for name in names if name.startswith(PREFIX)):
        if slug_of(name) not in slugs:
            continue
        run = RunDir(runs / name)
        values = read_json(run.spec)
        if values is not None and values["parent"] in parents:
            child = Child(run, read_spec(run, values))
            found.setdefault(child.spec.parent, []).append(child)
    return {parent: sorted(listed, key=began) for parent, listed in found.items()}


def read_spec(run: RunDir, values: Mapping[str, Any]) -> RunSpec:
    try:
        return spec_from_json(values)
    except ValueError as error:
        raise TableError(f"{run.path}: {error}; use that version, or move this run away") from None


def began(child: Child) -> float:
    """When its first attempt began; those that have not come last."""
    first = read_json(child.run.attempts / "1" / "env.json")
    return float(first["time"]) if first else math.inf


def slug_of(run: str) -> str:
    """A run id without its kind and digits."""
    return run.partition("-")[2].rpartition("-")[0]


def join_rows(own: Sequence[Row], children: Sequence[Child]) -> list[dict[str, Any]]:
    """A run's rows, then those that its evaluation runs made, `by` whom; what is twice stands once.

    The run's own comes first; one made otherwise, by other prompts for instance, stands beside it.
    """
    rows = [dict(row) for row in own]
    for child in children:
        found = read_json(child.run.evals) or {"rows": []}
        rows += [{**row, "by": child.id} for row in found["rows"]]
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        kept.setdefault(key_of(row), row)
    return list(kept.values())


def key_of(row: Row) -> tuple[Any, ...]:
    """What tells two evaluations of one run apart, and two measures of one evaluation.

    One that kept no `evaluation` may have named its classes otherwise.
    """
    names = ("samples", "set", "fingerprint", "protocol", "name", "positions", "eval_image_tokens")
    defaults = (row.get("size") or TRAINING, row.get("evaluator") or 1, not row.get("evaluation"))
    return (*(row.get(name) for name in names), *defaults)
