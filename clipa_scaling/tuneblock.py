"""The `tune` block of a sweep file: which fields, over which values, by what; and what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipa_scaling.optimum import ALL_DIVERGED, Optimum, Ratio
from clipa_scaling.scores import TASKS, Judge
from clipa_scaling.spec import field_types, nearest, settable_fields
from clipa_scaling.stage import Stage, read_fields, typed
from clipa_scaling.yamlfile import Document, Where

KEYS = ("over", "at_samples", "per", "measure", "extend", "seeds", "transfer_samples", "set")
LEAST_VALUES = 3
TRANSFER = 4  # times at_samples: how much longer the runs are that check a tuned value


@dataclass(frozen=True)
class Tuning:
    """One field to tune, checked; `measure` is empty where the file leaves the choice.

    over: rising. transfer_samples: None where the file does not say. changes: fields of the short
    runs alone, such as a schedule that ends low where the cells' decay comes in a later stage.
    """

    field: str
    over: tuple[float, ...]
    at_samples: int
    per: tuple[str, ...]
    measure: str
    extend: int
    seeds: tuple[int, ...]
    transfer_samples: int | None
    changes: Mapping[str, Any]

    @property
    def where(self) -> Where:
        return ("tune", self.field)

    @property
    def middle(self) -> float:
        """What runs that wait are priced with."""
        return self.over[len(self.over) // 2]

    @property
    def step(self) -> float:
        """From one value of the ladder to the next, on average."""
        return float((self.over[-1] / self.over[0]) ** (1 / (len(self.over) - 1)))


@dataclass(frozen=True)
class Transfer:
    """The optimum of longer runs, over that of the short ones; None and NaN: not known yet."""

    samples: int
    optimum: Optimum | None = None
    ratio: Ratio = Ratio(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Tuned:
    """What tuning found for one combination of the `per` fields.

    value: what its cells take, NaN while they wait. optimum: None until all short runs are over.
    waits: what for. over: the ladder with what was added to it. judge: what decided. runs: by
    which, those of the transfer too.
    """

    tuning: Tuning
    per: Mapping[str, Any]
    judge: Judge
    at_samples: int
    over: tuple[float, ...]
    value: float = math.nan
    optimum: Optimum | None = None
    waits: str = ""
    transfer: Transfer | None = None
    runs: tuple[str, ...] = ()

    @property
    def measured(self) -> tuple[str, str]:
        """Measure and set."""
        return self.judge.measure, self.judge.item.name

    @property
    def name(self) -> str:
        """The combination in words."""
        told = ", ".join(f"{name}={value}" for name, value in self.per.items())
        return f"{self.tuning.field} for {told}" if told else self.tuning.field

    def warnings(self) -> list[str]:
        """What a reader should know before trusting the value."""
        said, span = [], f"{self.over[0]:g} to {self.over[-1]:g}"
        if self.optimum is not None and self.optimum.flag == ALL_DIVERGED:
            said.append(f"{self.name}: all runs diverged ({span}), so its cells wait; lower over")
        elif self.optimum is not None and self.optimum.flag:
            said.append(f"{self.name}: {self.optimum.flag} of {span}; {self.value:g} is taken")
        if self.transfer is None or self.transfer.optimum is None:
            return said
        field, ratio, step = self.tuning.field, self.transfer.ratio, self.tuning.step
        edge, where = self.transfer.optimum.edge, f"{self.transfer.samples:,} samples"
        if ratio.low > step or ratio.high < 1 / step:
            said.append(
                f"tuning of {field} does not transfer to longer training: at {where} the best is "
                f"{ratio.value:.2g} times that at {self.at_samples:,} ({ratio.low:.2g} to "
                f"{ratio.high:.2g}), of {self.name}"
            )
        elif edge:
            said.append(
                f"whether tuning of {field} transfers is open: at {where} the best of three values "
                f"is the {'lower' if edge < 0 else 'higher'} one, of {self.name}"
            )
        return said


def read_tunings(document: Document, first: Stage) -> list[Tuning]:
    """Every entry of the block; SweepError with its line for any mistake in it."""
    known = [name for name in settable_fields() if field_types()[name] is float]
    body = document.check_mapping(("tune",), document.values.get("tune", {}))
    for name in body:
        if name not in known:
            message = f"is no field that can be tuned; {nearest(str(name), known)}"
            raise document.error(("tune", name), message)
        if name in first.axes:
            message = "is an axis too, which says the values itself; remove one of them"
            raise document.error(("tune", name), message)
    return [read_tuning(document, first, name, entry) for name, entry in body.items()]


def read_tuning(document: Document, first: Stage, field: str, body: Any) -> Tuning:
    where: Where = ("tune", field)
    document.check_keys(where, body, KEYS)
    for needed in ("over", "at_samples", "per"):
        if needed not in body:
            raise document.error(where, f"has no {needed}; allowed: {', '.join(KEYS)}")
    measure = body.get("measure", "")
    if measure not in (*TASKS, ""):
        message = f"{measure!r} is no measure; {nearest(str(measure), TASKS)}"
        raise document.error((*where, "measure"), message)
    longer = body.get("transfer_samples")
    return Tuning(
        field=field,
        over=read_ladder(document, (*where, "over"), field, body["over"]),
        at_samples=read_count(document, (*where, "at_samples"), body["at_samples"], 1),
        per=read_per(document, (*where, "per"), first, body["per"]),
        measure=measure,
        extend=read_count(document, (*where, "extend"), body.get("extend", 2), 0),
        seeds=read_seeds(document, (*where, "seeds"), body.get("seeds", [0])),
        transfer_samples=None
        if longer is None
        else read_count(document, (*where, "transfer_samples"), longer, 0),
        changes=read_changes(document, (*where, "set"), field, body.get("set", {})),
    )


def read_ladder(document: Document, where: Where, field: str, body: Any) -> tuple[float, ...]:
    """Three or more positive values, each above the one before."""
    listed = document.check_list(where, body)
    values: list[float] = []
    for index, entry in enumerate(listed):
        value = typed(document, (*where, index), field, entry)
        if value <= 0:
            raise document.error((*where, index), f"{value} is not positive; allowed: above 0")
        if values and value <= values[-1]:
            message = f"{value} does not rise above {values[-1]}; allowed: rising values"
            raise document.error((*where, index), message)
        values.append(value)
    if len(values) < LEAST_VALUES:
        message = f"{len(values)} values make no parabola; allowed: {LEAST_VALUES} or more"
        raise document.error(where, message)
    return tuple(values)


def read_changes(document: Document, where: Where, field: str, body: Any) -> Mapping[str, Any]:
    """Fields of the short runs alone; what tuning itself decides is none of them."""
    changes = read_fields(document, where, body)
    for name in (field, "samples", "seed"):
        if name in changes:
            raise document.error((*where, name), "is tuning's own to say; remove it")
    return changes


def read_per(document: Document, where: Where, first: Stage, body: Any) -> tuple[str, ...]:
    """Axes, one optimum for each combination; an empty list is one optimum for all cells."""
    if body == []:
        return ()
    names = document.check_list(where, body)
    for index, name in enumerate(names):
        if name not in first.axes:
            axes = nearest(str(name), first.axes) if first.axes else "the file has no axes"
            raise document.error((*where, index), f"{name} is no axis; {axes}")
        if name in names[:index]:
            raise document.error((*where, index), f"{name} stands twice; remove one")
    return tuple(names)


def read_seeds(document: Document, where: Where, body: Any) -> tuple[int, ...]:
    seeds = document.check_list(where, body)
    for index, seed in enumerate(seeds):
        read_count(document, (*where, index), seed, 0)
        if seed in seeds[:index]:
            raise document.error((*where, index), f"{seed} stands twice; remove one")
    return tuple(seeds)


def read_count(document: Document, where: Where, body: Any, least: int) -> int:
    count: int = document.check_scalar(where, body, int)
    if count < least:
        raise document.error(where, f"{count}; allowed: {least} or more")
    return count
