"""A planned study by its places, and the studies that differ from it by a few runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from clipa_scaling.compared import Compared, same_size
from clipa_scaling.grid import Planned
from clipa_scaling.plan import PLANNED, PlanRow, price_run
from clipa_scaling.planned import Study
from clipa_scaling.schema import TRIAL_STAGES
from clipa_scaling.spec import RunSpec

COPY = " copy "  # in the id of a run that was put in, after that of the run it is like


@dataclass(frozen=True)
class Change:
    """A study with runs taken out, or put in. hours: of a GPU, saved (negative) or spent."""

    what: str
    study: Study
    hours: float


@dataclass(frozen=True)
class Place:
    """Where a run stands: model, length and seed of its first ancestor, samples it is compared at.

    samples: 0 of trunks and of the short runs that tune.
    """

    model: str
    length: int
    seed: int
    samples: int
    is_trial: bool


@dataclass(frozen=True)
class Only:
    """Which places; None is any. trials: short runs that tune, too."""

    model: str | None = None
    length: int | None = None
    seed: int | None = None
    samples: int | None = None
    trials: bool = True

    def __call__(self, place: Place) -> bool:
        wanted = ((self.model, place.model), (self.length, place.length),
                  (self.seed, place.seed), (self.samples, place.samples))  # fmt: skip
        fits = all(value is None or value == held for value, held in wanted)
        return fits and (self.trials or not place.is_trial)


Made = Callable[[RunSpec], RunSpec]


class Layout:
    """A study's runs by their places, and the studies that differ from it by a few of them."""

    def __init__(self, study: Study):
        self.study = study
        self.specs = {row.planned.id: row.planned.spec for row in study.rows}
        self.places = {run: self.find_place(run) for run in self.specs}
        cells = [place for place in self.places.values() if place.samples]
        self.models = list(dict.fromkeys(place.model for place in cells))
        self.lengths = sorted({place.length for place in cells}, reverse=True)
        self.samples = sorted({place.samples for place in cells})
        self.seeds = {
            key: sorted({each.seed for each in cells if (each.model, each.length) == key})
            for key in dict.fromkeys((place.model, place.length) for place in cells)
        }
        self.least_full = min(
            (
                len({p.samples for p in cells if (p.model, p.length) == (model, self.lengths[0])})
                for model in self.models
            ),
            default=0,
        )

    def most_seeds(self, model: str) -> list[int]:
        return max((self.seeds[key] for key in self.seeds if key[0] == model), key=len)

    def find_place(self, run: str) -> Place:
        root, spec = self.specs[self.find_root(run)], self.specs[self.find_source(run)]
        is_trial = spec.stage in TRIAL_STAGES
        samples = 0 if is_trial or spec.schedule == "constant" else spec.samples
        length = getattr(root, self.study.length)
        return Place(root.model, length, root.seed, samples, is_trial)

    def find_root(self, run: str) -> str:
        while self.specs[run].parent in self.specs:
            run = self.specs[run].parent
        return run

    def find_source(self, run: str) -> str:
        """Of a finetune the run that it goes back to, at whose length and samples it stands."""
        while self.specs[run].kind == "finetune" and self.specs[run].parent in self.specs:
            run = self.specs[run].parent
        return run

    def drop(self, what: str, chosen: Only) -> Change | None:
        """The study without the runs of such places that are not done, and what hangs on them."""
        gone = {
            row.planned.id
            for row in self.study.rows
            if chosen(self.places[row.planned.id]) and not self.study.is_done(row)
        }
        kept = [
            row
            for row in self.study.rows
            if row.planned.id not in gone and row.planned.spec.parent not in gone
        ]
        used = {(place.model, place.length) for place in self.of(kept) if place.samples}
        kept = [
            row
            for row in kept
            if not (place := self.places[row.planned.id]).is_trial
            or (place.model, place.length) in used
        ]
        return self.change(what, kept) if len(kept) < len(self.study.rows) else None

    def add(self, what: str, copies: Sequence[tuple[Only, Made]]) -> Change:
        """The study with copies of such places' runs, each made different."""
        rows = list(self.study.rows)
        for number, (chosen, made) in enumerate(copies):
            renamed: dict[str, str] = {}
            for row in self.study.rows:
                if chosen(self.places[row.planned.id]):
                    spec = made(row.planned.spec)
                    spec = replace(spec, parent=renamed.get(spec.parent, spec.parent))
                    renamed[row.planned.id] = f"{row.planned.id}{COPY}{number}"
                    rows.append(self.price(replace(row.planned, id=renamed[row.planned.id]), spec))
        return self.change(what, rows)

    def change(self, what: str, rows: list[PlanRow]) -> Change:
        """With trunks as long as their branches need."""
        leaves: dict[str, int] = {}
        for row in rows:
            spec = row.planned.spec
            if spec.kind == "decay":
                leave = spec.samples - spec.decay_samples
                leaves[spec.parent] = max(leave, leaves.get(spec.parent, 0))
        for at, row in enumerate(rows):
            leave = leaves.get(row.planned.id, row.planned.spec.samples)
            if leave > row.planned.spec.samples or (
                leave < row.planned.spec.samples and not self.study.is_done(row)
            ):
                rows[at] = self.price(row.planned, replace(row.planned.spec, samples=leave))
        study = replace(self.study, rows=tuple(rows))
        return Change(what, study, study.gpu_hours - self.study.gpu_hours)

    def price(self, planned: Planned, spec: RunSpec) -> PlanRow:
        cost = price_run(spec, self.study.sweep, self.study.rates)
        return PlanRow(replace(planned, spec=spec), cost, PLANNED)

    def of(self, rows: Sequence[PlanRow]) -> list[Place]:
        return [self.places[row.planned.id] for row in rows]


def redesign(compared: Compared, study: Study) -> Compared:
    """The comparison as it becomes by a change of its study; values are those measured, else NaN.

    Without the rules of `find_compared`, which the unchanged study has passed.
    """
    layout = Layout(study)
    costs = {row.planned.id: row.cost for row in study.rows}
    known = compared.runs.set_index("run").to_dict("index")
    full = dict(compared.full)
    rows = []
    for run, place in layout.places.items():
        template = run.partition(COPY)[0]
        if template not in known:
            continue
        row = {"run": run, **known[template]}
        if template != run:
            before, source = layout.find_source(template), layout.find_source(run)
            each = (row["flops"] - row["fixed_flops"]) / row["samples"]
            each *= costs[source].flops_per_sample / costs[before].flops_per_sample
            row |= {"model": place.model, "length": place.length, "seed": place.seed}
            row |= {"samples": place.samples, "root": layout.find_root(run)}
            row |= {"flops": row["fixed_flops"] + each * place.samples, "done": False}
            row |= {"value": float("nan")}
            if place.model != known[template]["model"]:
                row["size"] = float(getattr(costs[source], compared.size))
                full.setdefault(place.model, full[known[template]["model"]])
        rows.append(row)
    runs = pd.DataFrame(rows, columns=compared.runs.columns)
    return replace(compared, runs=same_size(runs), full=full)
