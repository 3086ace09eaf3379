"""What of a sweep's runs is measured: by themselves, and by evaluation runs made later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clipa_scaling.children import Child, Row, find_children
from clipa_scaling.evaluation import Asked, name_row
from clipa_scaling.grid import Planned
from clipa_scaling.rundir import RunDir, read_json
from clipa_scaling.spec import RunSpec
from clipa_scaling.sweepfile import Sweep


def with_children(sweep: Sweep, runs: Path) -> Sweep:
    """The sweep and, behind its runs, their evaluation runs on disk that its file does not plan."""
    planned = {run.id for run in sweep.grid.runs}
    children = [
        Planned(child.id, child.spec, {})
        for listed in find_children(runs, planned).values()
        for child in listed
        if child.id not in planned
    ]
    grid = replace(sweep.grid, runs=(*sweep.grid.runs, *children))
    return replace(sweep, grid=grid) if children else sweep


def find_missing(
    asked: Asked, run: RunDir, spec: RunSpec, children: Sequence[Child]
) -> list[list[str]]:
    """Evaluations that are asked for and not made of a done run yet, one list per run to make them.

    One that was begun for some of them alone goes on; the rest are one run more.
    """
    names = asked.evaluations()
    made = {name_row(row, spec, asked.full_px) for row in rows_at_end(run, spec)}
    made |= {name for child in children if child.is_done for name in child.spec.evaluations}
    missing = [name for name in names if name not in made]
    found: list[list[str]] = []
    for child in children:
        begun = list(child.spec.evaluations)
        if not child.is_done and set(begun) <= set(missing):
            found.append(begun)
            missing = [name for name in missing if name not in begun]
    return [*found, missing] if missing else found


def rows_at_end(run: RunDir, spec: RunSpec) -> list[Row]:
    """A run's own evaluations of its last checkpoint."""
    found = read_json(run.evals) or {"rows": []}
    rows = [row for row in found["rows"] if row["samples"] == spec.samples]
    return [row for row in rows if not row.get("positions")]
