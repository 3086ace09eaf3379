"""A sweep file's cells: axes, zip, rules, exclude, include, seeds and stages -> RunSpecs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from clipa_scaling.branch import check_branch
from clipa_scaling.derive import equal_compute, make_relative
from clipa_scaling.evaluation import asked_of, plan_evaluation
from clipa_scaling.resolve import resolve
from clipa_scaling.schema import TRIAL_STAGES
from clipa_scaling.spec import RunSpec, SpecError, nearest, run_id
from clipa_scaling.spec import settable_fields as settable
from clipa_scaling.stage import Cell, Stage, read_fields, typed
from clipa_scaling.tuneblock import Tuned
from clipa_scaling.yamlfile import Document, Where

FIRST_STAGE = "pretrain"  # has no block of its own, so its name is its kind
# What a child has from its parent's weights, or from its own lengths.
NOT_INHERITED: dict[str, Any] = {
    "image_size": 0,
    "image_start": "",
    "text_start": "",
    "fresh_weights": (),
}
STAGE_KEYS = ("kind", "parent", "set", "axes", "zip", "rules", "exclude")


@dataclass(frozen=True)
class Excluded:
    """A cell left out on purpose; it stays in every table, with its reason."""

    stage: str
    values: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Planned:
    """A run, its id and what the file itself says of it (`asked`, defaults left out).

    waits: fields that tuning is still to find, of this run or one above it, so that the spec is
    good for a price alone, and the id is no folder's. unknown: those that it has from tuning
    itself. trial: of a short run, the field that it tries. lacks: the set that tuning judges by,
    where the short run is done without it.
    """

    id: str
    spec: RunSpec
    asked: Mapping[str, Any]
    waits: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    trial: str = ""
    lacks: str = ""


@dataclass(frozen=True)
class Grid:
    """All runs, parents before children, the excluded cells, and what looks like a mistake.

    tuned: what tuning found, or waits for, per combination.
    """

    runs: tuple[Planned, ...]
    excluded: tuple[Excluded, ...]
    warnings: tuple[str, ...]
    tuned: tuple[Tuned, ...] = ()


Given = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Tune = Callable[["Expansion", Stage, list[Cell]], None]


def make_grid(document: Document, given: Given, tune: Tune) -> Grid:
    """Expand a sweep file; `given` tells the fields that follow from its data and evaluation.

    `tune` adds short runs and puts what they found into the cells.
    Precedence: defaults < fixed < axes and zip < tuned < rules < stage set < stage axes < stage
    rules.
    Raises SweepError with the line of the key that is wrong.
    """
    values = document.values
    first = Stage(document, (), values, FIRST_STAGE)
    fixed = Cell()
    for name, value in read_fields(document, ("fixed",), values.get("fixed", {})).items():
        fixed.set(name, value, ("fixed", name))
    overridden = [
        str(document.error(("fixed", name), f"is overridden by axes.{name}"))
        for name in first.axes
        if name in fixed.values
    ]
    cells = [*first.expand(fixed), *included(document, fixed)]
    cells = [seeded for cell in cells for seeded in seeds(document, cell)]
    expanded = Expansion(document, given)
    tune(expanded, first, cells)
    expanded.add_stage(first, cells, {})
    expanded.warnings += [*overridden, *first.unused()]
    for name, body in stages(document):
        expanded.add_children(Stage(document, ("stages", name), body, name), body)
    return Grid(
        tuple(expanded.runs.values()),
        tuple(expanded.excluded),
        tuple(expanded.warnings),
        tuple(expanded.tuned),
    )


def included(document: Document, fixed: Cell) -> Iterator[Cell]:
    """The extra cells outside the product, over the fixed values."""
    body = document.values.get("include", [])
    if not isinstance(body, list):
        raise document.error(("include",), f"got {body!r}; allowed: a list of cells")
    for index, entry in enumerate(body):
        where = ("include", index)
        cell = fixed.copy()
        for name, value in read_fields(document, where, entry).items():
            cell.set(name, value, (*where, name))
        yield cell


def seeds(document: Document, cell: Cell) -> Iterator[Cell]:
    """The cell once per seed, unless it names its own."""
    if "seed" in cell.values:
        if "seeds" in document.values:
            message = "stands beside a field `seed` that already says which; remove one of them"
            raise document.error(("seeds",), message)
        yield cell
        return
    listed = document.check_list(("seeds",), document.values.get("seeds", [0]))
    for index, seed in enumerate(listed):
        seeded = cell.copy()
        where = ("seeds", index)
        if seed in listed[:index]:
            raise document.error(where, f"{seed} stands twice; remove one")
        seeded.set("seed", typed(document, where, "seed", seed), where)
        yield seeded


def stages(document: Document) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The later stages, in the file's order."""
    body = document.values.get("stages", {})
    if not isinstance(body, dict):
        raise document.error(("stages",), f"got {body!r}; allowed: a mapping of stages")
    for name, stage in body.items():
        where = ("stages", name)
        document.check_keys(where, stage, STAGE_KEYS)
        if name == FIRST_STAGE:
            message = "is the first stage's name, whose block is the file itself; give another"
            raise document.error(where, message)
        if name in TRIAL_STAGES:
            raise document.error(where, "is the name of tuning's own runs; give another")
        for needed in ("kind", "parent"):
            if needed not in stage:
                raise document.error(where, f"has no {needed}; allowed: {', '.join(STAGE_KEYS)}")
        yield str(name), stage


class Expansion:
    """Cells on their way to runs; equal identities become one run."""

    def __init__(self, document: Document, given: Given):
        self.document, self.given = document, given
        self.runs: dict[str, Planned] = {}
        self.excluded: list[Excluded] = []
        self.warnings: list[str] = []
        self.by_stage: dict[str, dict[str, Cell]] = {}
        self.tuned: list[Tuned] = []

    def add_stage(self, stage: Stage, cells: list[Cell], extra: Mapping[str, Any]) -> None:
        """Apply a stage's rules and excludes to its cells and resolve the rest."""
        ids = self.by_stage.setdefault(stage.name, {})
        for cell in cells:
            stage.apply_rules(cell)
            reason = stage.reason_to_exclude(cell)
            if reason is not None:
                self.excluded.append(Excluded(stage.name, cell.values, reason))
                continue
            planned = self.resolve(cell, {**extra, "stage": stage.name})
            ids.setdefault(planned.id, cell)
            known = self.runs.get(planned.id)
            if known is None or known.trial:  # a cell that a short run happens to be is a cell
                self.runs[planned.id] = planned

    def add_trial(self, planned: Planned, field: str) -> None:
        """A run that tries a value of a field; one that is there already stays what it is."""
        self.runs.setdefault(planned.id, replace(planned, trial=field))

    def add_children(self, stage: Stage, body: Mapping[str, Any]) -> None:
        """A later stage: every parent cell overlaid with the stage's `set` and axes."""
        where = stage.where
        parent = self.document.check_scalar((*where, "parent"), body["parent"], str)
        if parent not in self.by_stage:
            message = f"no stage {parent!r} above it; {nearest(parent, self.by_stage)}"
            raise self.document.error((*where, "parent"), message)
        if any(self.runs[run].spec.kind == "evaluate" for run in self.by_stage[parent]):
            message = f"{parent} is an evaluation, which trains no weights; allowed: another stage"
            raise self.document.error((*where, "parent"), message)
        kind = typed(self.document, (*where, "kind"), "kind", body["kind"])
        if kind == FIRST_STAGE:
            message = f"{kind} has no parent, a later stage has; allowed: decay, finetune, evaluate"
            raise self.document.error((*where, "kind"), message)
        if kind == "evaluate":
            return self.add_evaluations(stage, body, parent)
        set_where = (*where, "set")
        overlay = self.document.check_keys(set_where, body.get("set", {}), settable())
        for parent_id, parent_cell in list(self.by_stage[parent].items()):
            base = parent_cell.copy()
            if kind == "decay":  # the same training, so all of it is inherited
                base.set("schedule", "wsd", set_where)
            else:
                for name, value in NOT_INHERITED.items():
                    base.set(name, value, set_where)
            for name, value in overlay.items():
                place = (*set_where, name)
                base.set(name, stage.read_choice(place, name, value), place)
            cells = list(stage.expand(base))
            for cell in cells:
                make_relative(cell, self.runs[parent_id].spec)
            self.add_stage(stage, cells, {"kind": kind, "parent": parent_id})
        if kind == "decay":
            self.branch_off(stage)
        self.exclude_children(stage, parent)

    def exclude_children(self, stage: Stage, parent: str) -> None:
        """Excluding a parent excludes its children."""
        for lost in [cell for cell in self.excluded if cell.stage == parent]:
            reason = f"its parent is excluded: {lost.reason}"
            self.excluded.append(Excluded(stage.name, lost.values, reason))
        self.warnings += stage.unused()

    def add_evaluations(self, stage: Stage, body: Mapping[str, Any], parent: str) -> None:
        """Runs that measure the file's sets on what another stage trained, as it is."""
        ids = self.by_stage.setdefault(stage.name, {})
        for key in ("set", "axes", "zip", "rules"):
            if key in body:
                message = "is for training, and an evaluation has its parent's fields; remove it"
                raise self.document.error((*stage.where, key), message)
        for parent_id, cell in self.by_stage[parent].items():
            reason = stage.reason_to_exclude(cell)
            if reason is not None:
                self.excluded.append(Excluded(stage.name, cell.values, reason))
                continue
            spec = self.runs[parent_id].spec
            asked = asked_of(spec)
            if not asked.evals:
                message = "has nothing to measure; add data.evals"
                raise self.document.error(stage.where, message)
            spec = plan_evaluation(parent_id, spec, asked, asked.evaluations(), stage.name)
            planned = plan_cell(cell, spec)
            ids.setdefault(planned.id, cell)
            self.runs.setdefault(planned.id, planned)
        self.exclude_children(stage, parent)

    def branch_off(self, stage: Stage) -> None:
        """Check that decay runs go on as their parents do, which shall keep where they leave."""
        for run, cell in self.by_stage[stage.name].items():
            spec = self.runs[run].spec
            trunk = self.runs[spec.parent]
            try:
                leaves = check_branch(spec, trunk.spec)
            except SpecError as error:
                where = cell.origin.get(error.field, stage.where)
                raise self.document.error(where, str(error)) from None
            kept = tuple(sorted({*trunk.spec.keep_samples, leaves}))
            self.runs[trunk.id] = replace(trunk, spec=replace(trunk.spec, keep_samples=kept))

    def resolve(self, cell: Cell, extra: Mapping[str, Any]) -> Planned:
        """A cell's RunSpec; a broken rule is placed where the file set the field."""
        try:
            values = {**cell.values, **self.given(cell.values), **extra, "tuned": cell.tuned}
            if values["start_fingerprint"] and "parent" not in values:
                # Both towers' weights from elsewhere: what follows is finetuning.
                whole = values["image_start"] and values["text_start"]
                values["kind"] = "finetune" if whole else "pretrain"
            if isinstance(values.get("samples"), dict):
                values["samples"] = equal_compute(values)
            spec = resolve(values)
        except SpecError as error:
            of_all: Where = ("evaluate", "full_px") if error.field == "full_px" else ()
            where = cell.origin.get(error.field, of_all)
            raise self.document.error(where, str(error)) from None
        return plan_cell(cell, spec)


def plan_cell(cell: Cell, spec: RunSpec) -> Planned:
    """A cell's run, under a name of its own while tuning is still to find something of it."""
    if not cell.waits:
        return Planned(run_id(spec), spec, dict(cell.values))
    known = {name: value for name, value in cell.values.items() if name not in cell.unknown}
    return Planned(f"{run_id(spec)}-untuned", spec, known, cell.waits, cell.unknown)
