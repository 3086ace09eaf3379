"""A sweep file's cells: axes, zip, rules, exclude, include, seeds and stages -> RunSpecs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

from clipa_scaling import cost
from clipa_scaling.models import load_model
from clipa_scaling.spec import RunSpec, SpecError, check_type, nearest, resolve, run_id
from clipa_scaling.spec import settable_fields as settable
from clipa_scaling.yamlfile import Document, SweepError, Where

STAGE_KEYS = ("kind", "parent", "set", "axes", "rules", "exclude")


@dataclass(frozen=True)
class Excluded:
    """A cell left out on purpose; it stays in every table, with its reason."""

    stage: str
    values: Mapping[str, Any]
    reason: str


@dataclass
class Cell:
    """One point of the grid on its way to a RunSpec: values, and where the file set each."""

    values: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Where] = field(default_factory=dict)

    def set(self, name: str, value: Any, where: Where) -> None:
        self.values[name] = value
        self.origin[name] = where

    def copy(self) -> Cell:
        return Cell(dict(self.values), dict(self.origin))


@dataclass(frozen=True)
class Planned:
    """A run, its id and what the file itself says of it (`asked`, defaults left out)."""

    id: str
    spec: RunSpec
    asked: Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """All runs, parents before children, and the excluded cells."""

    runs: tuple[Planned, ...]
    excluded: tuple[Excluded, ...]


def make_grid(document: Document, given: Mapping[str, Any]) -> Grid:
    """Expand a sweep file; `given` are the fields that follow from its data and evaluation.

    Precedence: defaults < fixed < axes and zip < rules < stage set < stage axes.
    Raises SweepError with the line of the key that is wrong.
    """
    values = document.values
    first = Stage(document, (), values, stage_name(document))
    fixed = Cell()
    for name, value in document.check_keys(
        ("fixed",), values.get("fixed", {}), settable()
    ).items():
        fixed.set(name, typed(document, ("fixed", name), name, value), ("fixed", name))
    cells = [*first.expand(fixed), *included(document, fixed)]
    cells = [seeded for cell in cells for seeded in seeds(document, cell)]
    expanded = Expansion(document, given)
    expanded.add_stage(first, cells, {})
    for name, body in stages(document):
        expanded.add_children(Stage(document, ("stages", name), body, name), body)
    return Grid(tuple(expanded.runs.values()), tuple(expanded.excluded))


def stage_name(document: Document) -> str:
    """The first stage has no block of its own; its name is its kind."""
    return "pretrain"


def typed(document: Document, where: Where, name: str, value: Any) -> Any:
    """A field's value checked against its type, the error placed in the file."""
    try:
        return check_type(name, value)
    except SpecError as error:
        raise document.error(where, str(error)) from None


class Stage:
    """One stage's axes, zip groups, rules and excludes, checked once."""

    def __init__(self, document: Document, where: Where, body: Mapping[str, Any], name: str):
        self.document, self.where, self.name = document, where, name
        self.axes = self.read_axes(body.get("axes", {}))
        self.zips = self.read_zips(body.get("zip", []))
        self.rules = self.read_whens("rules", body.get("rules", []), "set")
        self.exclude = self.read_whens("exclude", body.get("exclude", []), "because")

    def read_axes(self, body: Any) -> dict[str, list[Any]]:
        where = (*self.where, "axes")
        axes: dict[str, list[Any]] = {}
        for name, choices in self.document.check_keys(where, body, settable()).items():
            place = (*where, name)
            if isinstance(choices, dict) and name == "samples":
                self.document.check_keys(place, choices, ["train_flops"])
                budgets = self.document.check_list(
                    (*place, "train_flops"), choices["train_flops"]
                )
                axes[name] = [
                    {"train_flops": self.document.check_scalar((*place, "train_flops", i), b, float)}
                    for i, b in enumerate(budgets)
                ]
                continue
            listed = self.document.check_list(place, choices)
            axes[name] = [self.read_choice((*place, i), name, v) for i, v in enumerate(listed)]
            for index, value in enumerate(axes[name]):
                if value in axes[name][:index]:
                    raise self.document.error((*place, index), f"{value!r} stands twice; remove one")
        return axes

    def read_choice(self, where: Where, name: str, value: Any) -> Any:
        if isinstance(value, dict) and self.where:
            self.document.check_keys(where, value, ["parent"])
            self.document.check_scalar((*where, "parent"), value["parent"], float)
            return value
        return typed(self.document, where, name, value)

    def read_zips(self, body: Any) -> list[list[str]]:
        where = (*self.where, "zip")
        groups = []
        for index, group in enumerate(body if isinstance(body, list) else [body]):
            place = (*where, index)
            names = [str(name) for name in self.document.check_list(place, group)]
            for name in names:
                if name not in self.axes:
                    message = f"{name} is no axis; {nearest(name, self.axes)}"
                    raise self.document.error(place, message)
            lengths = {name: len(self.axes[name]) for name in names}
            if len(set(lengths.values())) > 1:
                raise self.document.error(place, f"lengths differ: {lengths}; make them equal")
            if set(names) & {name for taken in groups for name in taken}:
                raise self.document.error(place, f"{names} share a field with another group")
            groups.append(names)
        return groups

    def read_whens(self, key: str, body: Any, second: str) -> list[tuple[Where, Any, Any]]:
        """Entries {when, set} or {when, because}; a `when` field may have a value, list or range."""
        entries = []
        where = (*self.where, key)
        if not isinstance(body, list):
            raise self.document.error(where, f"got {body!r}; allowed: a list of {{when, {second}}}")
        for index, entry in enumerate(body):
            place = (*where, index)
            self.document.check_keys(place, entry, ["when", second])
            for needed in ("when", second):
                if needed not in entry:
                    raise self.document.error(place, f"has no {needed}; allowed: {{when, {second}}}")
            when_keys = [*settable(), "stage"]
            when = self.document.check_keys((*place, "when"), entry["when"], when_keys)
            for name, wanted in when.items():
                if isinstance(wanted, dict):
                    self.document.check_keys((*place, "when", name), wanted, ["min", "max"])
            action = entry[second]
            if second == "set":
                action = {
                    name: typed(self.document, (*place, "set", name), name, value)
                    for name, value in self.document.check_keys(
                        (*place, "set"), action, settable()
                    ).items()
                }
            entries.append((place, when, action))
        return entries

    def expand(self, base: Cell) -> Iterator[Cell]:
        """The product of axes and zip groups over a base cell, in the file's order."""
        zipped = {name: tuple(group) for group in self.zips for name in group}
        groups = dict.fromkeys(zipped.get(name, (name,)) for name in self.axes)
        choices = [range(len(self.axes[group[0]])) for group in groups]
        for picked in itertools.product(*choices):
            cell = base.copy()
            for group, index in zip(groups, picked, strict=True):
                for name in group:
                    place = (*self.where, "axes", name, index)
                    cell.set(name, self.axes[name][index], place)
            yield cell

    def apply_rules(self, cell: Cell) -> None:
        """Later rules win; each sees what the ones before it set."""
        for place, when, action in self.rules:
            if matches(cell.values, when):
                for name, value in action.items():
                    cell.set(name, value, (*place, "set", name))

    def reason_to_exclude(self, cell: Cell) -> str | None:
        for _, when, reason in self.exclude:
            if matches(cell.values, when):
                return str(reason)
        return None


def matches(values: Mapping[str, Any], when: Mapping[str, Any]) -> bool:
    """Whether a cell has, for every field, the value, one of the list, or one within {min, max}."""
    for name, wanted in when.items():
        value = values.get(name, default_of(name))
        if isinstance(wanted, dict):
            if value is None or value < wanted.get("min", value) or value > wanted.get("max", value):
                return False
        elif value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def default_of(name: str) -> Any:
    """A field's default, or None for one that every sweep must set."""
    default = RunSpec.__dataclass_fields__[name].default
    return None if repr(default).endswith("MISSING_TYPE object>") else default


def included(document: Document, fixed: Cell) -> Iterator[Cell]:
    """The extra cells outside the product, over the fixed values."""
    body = document.values.get("include", [])
    if not isinstance(body, list):
        raise document.error(("include",), f"got {body!r}; allowed: a list of cells")
    for index, entry in enumerate(body):
        where = ("include", index)
        cell = fixed.copy()
        for name, value in document.check_keys(where, entry, settable()).items():
            cell.set(name, typed(document, (*where, name), name, value), (*where, name))
        yield cell


def seeds(document: Document, cell: Cell) -> Iterator[Cell]:
    """The cell once per seed, unless it names its own."""
    if "seed" in cell.values:
        yield cell
        return
    listed = document.check_list(("seeds",), document.values.get("seeds", [0]))
    for index, seed in enumerate(listed):
        seeded = cell.copy()
        where = ("seeds", index)
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
        for needed in ("kind", "parent"):
            if needed not in stage:
                raise document.error(where, f"has no {needed}; allowed: {', '.join(STAGE_KEYS)}")
        yield str(name), stage


class Expansion:
    """Cells on their way to runs; equal identities become one run."""

    def __init__(self, document: Document, given: Mapping[str, Any]):
        self.document, self.given = document, given
        self.runs: dict[str, Planned] = {}
        self.excluded: list[Excluded] = []
        self.by_stage: dict[str, list[tuple[Cell, str]]] = {}

    def add_stage(self, stage: Stage, cells: list[Cell], extra: Mapping[str, Any]) -> None:
        """Apply a stage's rules and excludes to its cells and resolve the rest."""
        ids = self.by_stage.setdefault(stage.name, [])
        for cell in cells:
            stage.apply_rules(cell)
            reason = stage.reason_to_exclude(cell)
            if reason is not None:
                self.excluded.append(Excluded(stage.name, cell.values, reason))
                continue
            planned = self.resolve(cell, {**extra, "stage": stage.name})
            if planned.id not in self.runs:
                ids.append((cell, planned.id))
            self.runs.setdefault(planned.id, planned)

    def add_children(self, stage: Stage, body: Mapping[str, Any]) -> None:
        """A later stage: every parent cell overlaid with the stage's `set` and axes."""
        where, parent = stage.where, body["parent"]
        if parent not in self.by_stage:
            message = f"no stage {parent!r} above it; {nearest(str(parent), self.by_stage)}"
            raise self.document.error((*where, "parent"), message)
        kind = typed(self.document, (*where, "kind"), "kind", body["kind"])
        set_where = (*where, "set")
        overlay = self.document.check_keys(set_where, body.get("set", {}), settable())
        for parent_cell, parent_id in list(self.by_stage[parent]):
            base = parent_cell.copy()
            base.set("image_size", 0, set_where)
            for name, value in overlay.items():
                place = (*set_where, name)
                base.set(name, stage.read_choice(place, name, value), place)
            cells = list(stage.expand(base))
            for cell in cells:
                self.make_relative(cell, parent_cell)
            self.add_stage(stage, cells, {"kind": kind, "parent": parent_id})
        for lost in [cell for cell in self.excluded if cell.stage == parent]:
            reason = f"its parent is excluded: {lost.reason}"
            self.excluded.append(Excluded(stage.name, lost.values, reason))

    def make_relative(self, cell: Cell, parent: Cell) -> None:
        """`{parent: 0.5}` becomes a number, rounded to what the field can be."""
        for name, value in cell.values.items():
            if not isinstance(value, dict):
                continue
            exact = value["parent"] * parent.values[name]
            whole = isinstance(parent.values[name], int)
            cell.values[name] = max(1, round(exact)) if whole else exact
            if name == "image_tokens" and cell.values.get("image_reduction") != "random":
                side = isqrt(int(exact))
                squares = [max(1, side) ** 2, (side + 1) ** 2]
                cell.values[name] = min(squares, key=lambda square: abs(square - exact))

    def resolve(self, cell: Cell, extra: Mapping[str, Any]) -> Planned:
        """A cell's RunSpec; a broken rule is placed where the file set the field."""
        values = {**self.given, **cell.values, **extra}
        try:
            if isinstance(values.get("samples"), dict):
                values["samples"] = equal_compute(values)
            spec = resolve(values)
        except SpecError as error:
            where = cell.origin.get(error.field, ())
            raise self.document.error(where, str(error)) from None
        return Planned(run_id(spec), spec, dict(cell.values))


def equal_compute(values: Mapping[str, Any]) -> int:
    """The samples that spend a budget of training FLOPs at this cell's model and lengths."""
    probe = resolve({**values, "samples": values.get("batch_size", 1), "warmup_samples": 0})
    size = load_model(probe.model).size
    patch = load_model(probe.model).patch
    per_sample = cost.image_flops(
        size.image, patch, size.embed_dim, probe.image_tokens
    ) + cost.text_flops(size.text, size.embed_dim, probe.text_tokens)
    return max(1, round(values["samples"]["train_flops"] / (3 * per_sample)))


__all__ = ["Excluded", "Grid", "Planned", "SweepError", "make_grid"]
