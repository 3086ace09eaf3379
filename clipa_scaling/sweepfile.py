"""A sweep file as a whole: its data, evaluation sets, grid, resources and budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from clipa_scaling.datablock import DataBlock
from clipa_scaling.evaluation import Asked
from clipa_scaling.grid import Grid, make_grid
from clipa_scaling.packrequest import PackRequest
from clipa_scaling.resources import Budget, Resources, Slurm, read_resources, read_slurm
from clipa_scaling.spec import nearest
from clipa_scaling.tune import tune_cells
from clipa_scaling.yamlfile import Document, load_document

KEYS = (
    "name", "data", "fixed", "axes", "zip", "tune", "rules", "exclude", "include", "seeds",
    "stages", "evaluate", "resources", "budget", "slurm",
)  # fmt: skip
PROTOCOLS = ("common", "paper")
EVAL_SIZES = ("training", "full")


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and expanded.

    data: the file's own words on data; block: what they mean. missing: which of it is not there, if
    any. asked: what runs are to be evaluated on, and how.
    expand: the grid made again, from the same file and what the run folders hold by then.
    """

    path: Path
    name: str
    data: Mapping[str, Any]
    grid: Grid
    packs: tuple[PackRequest, ...]
    resources: Resources
    budget: Budget
    slurm: Slurm
    missing: str | None
    block: DataBlock
    asked: Asked
    expand: Callable[[], Grid] = field(repr=False, compare=False)

    def again(self) -> Sweep:
        """The sweep with what tuning has found since; itself where nothing is tuned."""
        return replace(self, grid=self.expand()) if self.grid.tuned else self


def load_sweep(path: Path, packs: Path, max_parallel: int | None = None) -> Sweep:
    """Read a sweep file; `packs` is the folder of packs, in that of the runs, of which those that
    tune a field are looked up. SweepError for any mistake in the file.

    max_parallel: takes the place of the file's slurm.max_parallel.

    Missing data is no mistake of the file: it is named in `missing`, and the runs' data
    fingerprints say so.
    """
    document = load_document(path)
    document.check_keys((), document.values, KEYS)
    for needed in ("name", "data"):
        if needed not in document.values:
            raise document.error((), f"has no {needed}; add it, see the sweep files in sweeps/")
    name = document.check_scalar(("name",), document.values["name"], str)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise document.error(
            ("name",), f"{name!r} makes no folder name; allowed: letters, 0-9 _ . -"
        )
    data = DataBlock(document, packs)
    evaluation = read_evaluation(document)

    def expand() -> Grid:
        tune = partial(tune_cells, document, packs.parent)
        return make_grid(document, lambda values: {**data.fields(values), **evaluation}, tune)

    grid = expand()
    resources, budget = read_resources(document)
    slurm = read_slurm(document)
    if max_parallel is not None:
        slurm = replace(slurm, max_parallel=max_parallel)
    return Sweep(
        path=path,
        name=name,
        data=document.values["data"],
        grid=grid,
        packs=data.packs_needed(),
        resources=resources,
        budget=budget,
        slurm=slurm,
        missing=data.missing,
        block=data,
        asked=Asked(tuple(data.evals), **evaluation),
        expand=expand,
    )


def read_evaluation(document: Document) -> dict[str, Any]:
    """The fields of the `evaluate` block: whose prompts, at which sizes, and what full size is."""
    keys = ("protocol", "size", "full_px")
    body = document.check_keys(("evaluate",), document.values.get("evaluate", {}), keys)
    full_px = document.check_scalar(("evaluate", "full_px"), body.get("full_px", 224), int)
    if full_px < 1:
        raise document.error(("evaluate", "full_px"), f"{full_px} px; allowed: 1 or more")
    return {
        "protocols": read_words(document, "protocol", body.get("protocol", ["common"]), PROTOCOLS),
        "eval_sizes": read_words(document, "size", body.get("size", ["training"]), EVAL_SIZES),
        "full_px": full_px,
    }


def read_words(
    document: Document, key: str, body: Any, allowed: tuple[str, ...]
) -> tuple[str, ...]:
    """A list of known words of the `evaluate` block, each once."""
    listed = document.check_list(("evaluate", key), body)
    for index, name in enumerate(listed):
        place = ("evaluate", key, index)
        if name not in allowed:
            raise document.error(place, f"{name!r} is no {key}; {nearest(str(name), allowed)}")
        if name in listed[:index]:
            raise document.error(place, f"{name!r} stands twice; remove one")
    return tuple(listed)
