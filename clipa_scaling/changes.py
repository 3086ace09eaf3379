"""What could be taken out of a planned sweep, or put in: what each change saves or costs, and what
it does to the verdict's interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from clipa_scaling.assumed import Truth
from clipa_scaling.foresee import PATHS, Approximation, Scatter, approximate, lacks
from clipa_scaling.grid import Planned
from clipa_scaling.models import SIZES, load_model
from clipa_scaling.plan import PlanRow, price_run
from clipa_scaling.planned import Study, compare
from clipa_scaling.resolve import find_decay
from clipa_scaling.schema import TRIAL_STAGES
from clipa_scaling.slopes import FIXED_D
from clipa_scaling.spec import RunSpec

NEEDED = 3  # sample counts at full length, as `inverse.LEAST_LEVELS`
FAMILIES = (("S", "B", "L", "H", "G"), ("T32", "T48", "T64", "T96", "T128"))

Chosen = Callable[[RunSpec], bool]
Made = Callable[[RunSpec], RunSpec]


@dataclass(frozen=True)
class Change:
    """A study with runs taken out, or put in. hours: of a GPU, saved (negative) or spent."""

    what: str
    study: Study
    hours: float


@dataclass(frozen=True)
class Weighed:
    """A change and the interval's half-width before and after; removes, adds: what it lacks."""

    change: Change
    before: float
    after: float
    removes: tuple[str, ...]
    adds: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Of the half-width by GPU-hour: narrowed per hour spent, or widened per hour saved."""
        return (self.before - self.after) / self.change.hours


class Layout:
    """The cells of a study: which first-stage runs there are, and what goes on from them."""

    def __init__(self, study: Study):
        self.study = study
        self.specs = {row.planned.id: row.planned.spec for row in study.rows}
        cells = [self.cell(row.planned.id) for row in study.rows if not self.is_trial(row)]
        self.models = list(dict.fromkeys(model for model, _, _ in cells))
        self.lengths = sorted({length for _, length, _ in cells}, reverse=True)
        self.samples = sorted({samples for samples in map(self.samples_of, study.rows) if samples})

    def root(self, run: str) -> RunSpec:
        spec = self.specs[run]
        while spec.parent in self.specs:
            spec = self.specs[spec.parent]
        return spec

    def cell(self, run: str) -> tuple[str, int, int]:
        """Model, length and seed of the run's first ancestor."""
        root = self.root(run)
        return root.model, getattr(root, self.study.length), root.seed

    def is_trial(self, row: PlanRow) -> bool:
        return row.planned.spec.stage in TRIAL_STAGES

    def samples_of(self, row: PlanRow) -> int:
        """The samples that a run is compared at: its own, or of what it was finetuned from."""
        spec = row.planned.spec
        while spec.kind == "finetune" and spec.parent in self.specs:
            spec = self.specs[spec.parent]
        return 0 if self.is_trial(row) or spec.schedule == "constant" else spec.samples
