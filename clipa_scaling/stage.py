"""One stage of a sweep file: its axes, zip groups, rules and excludes, checked once -> cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from typing import Any

from clipa_scaling.models import load_model
from clipa_scaling.spec import RunSpec, check_type, field_types, nearest
from clipa_scaling.spec import settable_fields as settable
from clipa_scaling.yamlfile import Document, Where


@dataclass
class Cell:
    """One point of the grid on its way to a RunSpec: values, and where the file set each.

    waits: fields whose values tuning is still to find; until then they are the ladder's middle.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Where] = field(default_factory=dict)
    waits: tuple[str, ...] = ()

    def set(self, name: str, value: Any, where: Where) -> None:
        self.values[name] = value
        self.origin[name] = where

    def copy(self) -> Cell:
        return Cell(dict(self.values), dict(self.origin), self.waits)

    @property
    def tuned(self) -> tuple[str, ...]:
        """The fields whose values tuning chose, and nothing since overrode."""
        return tuple(name for name, where in self.origin.items() if where == ("tune", name))

    @property
    def unknown(self) -> tuple[str, ...]:
        """The fields that wait, less those of which a later stage has said its own value."""
        return tuple(name for name in self.waits if self.origin[name][:2] == ("tune", name))


def typed(document: Document, where: Where, name: str, value: Any) -> Any:
    """A field's value checked against its type, the error placed in the file."""
    try:
        checked = check_type(name, value)
        if name == "model":
            load_model(checked)
    except ValueError as error:
        raise document.error(where, str(error)) from None
    return checked


def read_fields(document: Document, where: Where, body: Any) -> dict[str, Any]:
    """A mapping of fields to values, all checked."""
    given = document.check_keys(where, body, settable())
    return {name: typed(document, (*where, name), name, value) for name, value in given.items()}


@dataclass
class Choice:
    """An entry of `rules` or `exclude`: when it holds, what follows, and whether it ever did."""

    where: Where
    when: Mapping[str, Any]
    then: Any
    used: bool = False

    def holds(self, cell: Cell) -> bool:
        """Whether it holds for a cell, noted in `used`."""
        held = matches(cell.values, self.when)
        self.used |= held
        return held


class Stage:
    """One stage's axes, zip groups, rules and excludes, checked once."""

    def __init__(self, document: Document, where: Where, body: Mapping[str, Any], name: str):
        self.document, self.where, self.name = document, where, name
        self.axes = self.read_axes(body.get("axes", {}), body.get("zip", []))
        self.zips = self.read_zips(body.get("zip", []))
        self.rules = [
            replace(rule, then=read_fields(document, (*rule.where, "set"), rule.then))
            for rule in self.read_choices("rules", body.get("rules", []), "set")
        ]
        self.exclude = list(self.read_choices("exclude", body.get("exclude", []), "because"))

    def read_axes(self, body: Any, zips: Any) -> dict[str, list[Any]]:
        where = (*self.where, "axes")
        groups = [group for group in zips if isinstance(group, list)] if type(zips) is list else []
        zipped = {name for group in groups for name in group}  # may hold a value twice
        axes: dict[str, list[Any]] = {}
        for name, choices in self.document.check_keys(where, body, settable()).items():
            place = (*where, name)
            if isinstance(choices, dict) and name == "samples":
                axes[name] = self.read_budgets(place, choices)
                continue
            listed = self.document.check_list(place, choices)
            axes[name] = [self.read_choice((*place, i), name, v) for i, v in enumerate(listed)]
            for index, value in enumerate(axes[name]):
                if name not in zipped and value in axes[name][:index]:
                    raise self.document.error(
                        (*place, index), f"{value!r} stands twice; remove one"
                    )
        return axes

    def read_budgets(self, where: Where, body: Any) -> list[Any]:
        """`samples: {train_flops: [...]}`: budgets that become samples once the rest is known."""
        place = (*where, "train_flops")
        self.document.check_keys(where, body, ["train_flops"])
        budgets = self.document.check_list(place, body.get("train_flops"))
        for index, budget in enumerate(budgets):
            number = self.document.check_scalar((*place, index), budget, float)
            if not 0 < number < math.inf or budget in budgets[:index]:
                message = f"{budget} FLOPs; allowed: above 0, finite, each once"
                raise self.document.error((*place, index), message)
        return [{"train_flops": float(budget)} for budget in budgets]

    def read_choice(self, where: Where, name: str, value: Any) -> Any:
        """A field's value; in a later stage a number may be relative, `{parent: 0.5}`."""
        if not (isinstance(value, dict) and self.where):
            return typed(self.document, where, name, value)
        self.document.check_keys(where, value, ["parent"])
        share = self.document.check_scalar((*where, "parent"), value.get("parent"), float)
        if not is_number(name) or not 0 < share < math.inf:
            message = f"{name}={value!r} is not allowed; allowed: a positive share of a number"
            raise self.document.error(where, message)
        return value

    def read_zips(self, body: Any) -> list[list[str]]:
        where = (*self.where, "zip")
        if not isinstance(body, list):
            message = f"got {body!r}; allowed: a list of groups, e.g. [[model, lr]]"
            raise self.document.error(where, message)
        groups: list[list[str]] = []
        for index, group in enumerate(body):
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

    def read_choices(self, key: str, body: Any, then: str) -> Iterator[Choice]:
        """Entries {when, set} or {when, because}."""
        where = (*self.where, key)
        if not isinstance(body, list):
            raise self.document.error(where, f"got {body!r}; allowed: a list of {{when, {then}}}")
        for index, entry in enumerate(body):
            place = (*where, index)
            self.document.check_keys(place, entry, ["when", then])
            for needed in ("when", then):
                if needed not in entry:
                    raise self.document.error(place, f"has no {needed}; allowed: {{when, {then}}}")
            if then == "because":
                self.document.check_scalar((*place, then), entry[then], str)
            yield Choice(place, self.read_when((*place, "when"), entry["when"]), entry[then])

    def read_when(self, where: Where, body: Any) -> dict[str, Any]:
        """Fields with a value, a list of them, or for numbers {min, max}."""
        when: dict[str, Any] = {}
        for name, wanted in self.document.check_keys(where, body, settable()).items():
            place = (*where, name)
            if isinstance(wanted, dict):
                if not is_number(name):
                    raise self.document.error(
                        place, f"{name} is no number; allowed: a value or list"
                    )
                limits = self.document.check_keys(place, wanted, ["min", "max"])
                when[name] = {
                    limit: self.document.check_scalar((*place, limit), value, float)
                    for limit, value in limits.items()
                }
                continue
            listed = wanted if isinstance(wanted, list) else [wanted]
            when[name] = [typed(self.document, place, name, value) for value in listed]
        return when

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
        for rule in self.rules:
            if rule.holds(cell):
                for name, value in rule.then.items():
                    cell.set(name, value, (*rule.where, "set", name))

    def reason_to_exclude(self, cell: Cell) -> str | None:
        """The reason of the first exclude that holds, if any."""
        held = [choice for choice in self.exclude if choice.holds(cell)]
        return held[0].then if held else None

    def unused(self) -> Iterator[str]:
        """Rules and excludes that hold for no cell: perhaps a slip of the pen."""
        for choice in (*self.rules, *self.exclude):
            if not choice.used:
                yield str(self.document.error(choice.where, "holds for no cell"))


def matches(values: Mapping[str, Any], when: Mapping[str, Any]) -> bool:
    """Whether a cell has, for every field, one of the values, or one within {min, max}."""
    for name, wanted in when.items():
        value = values.get(name, default_of(name))
        if not (value in wanted if isinstance(wanted, list) else is_within(value, wanted)):
            return False
    return True


def is_within(value: Any, limits: Mapping[str, float]) -> bool:
    """Whether a number is; samples that a budget of FLOPs decides are not known yet, so are not."""
    if value is None or isinstance(value, dict):
        return False
    return bool(limits.get("min", value) <= value <= limits.get("max", value))


@cache
def is_number(name: str) -> bool:
    return field_types()[name] in (int, float)


@cache
def default_of(name: str) -> Any:
    """A field's default, or None for one that every sweep must set."""
    [default] = [item.default for item in fields(RunSpec) if item.name == name]
    return None if default is MISSING else default
