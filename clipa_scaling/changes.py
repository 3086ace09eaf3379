"""What could be taken out of a planned sweep, or put in: what each change saves or costs, and what
it does to the verdict's interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from clipa_scaling.assumed import Truth
from clipa_scaling.foresee import Scatter, approximate, lacks
from clipa_scaling.grid import Planned
from clipa_scaling.models import load_model
from clipa_scaling.plan import PLANNED, PlanRow, price_run
from clipa_scaling.planned import Study, compare
from clipa_scaling.schema import TRIAL_STAGES
from clipa_scaling.slopes import FIXED_D
from clipa_scaling.spec import SHORTEST_TEXT, RunSpec, short_count

NEEDED = 3  # sample counts at full length, as `inverse.LEAST_LEVELS`
LEAST_SAVED = 0.005  # of the sweep's GPU-hours: less is not worth a line
FAMILIES = (("S", "B", "L", "H", "G"), ("T32", "T48", "T64", "T96", "T128"))


@dataclass(frozen=True)
class Change:
    """A study with runs taken out, or put in. hours: of a GPU, saved (negative) or spent."""

    what: str
    study: Study
    hours: float


@dataclass(frozen=True)
class Weighed:
    """A change, and half the interval's width before and after it; NaN where there is none.

    lacks: what the design lacks afterwards for any answer, as keys of the sweep file.
    """

    change: Change
    before: float
    after: float
    lacks: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Of the half-width by GPU-hour: narrowed per hour spent, or widened per hour saved."""
        return (self.before - self.after) / self.change.hours


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


Chosen = Callable[[Place], bool]
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

    def find_place(self, run: str) -> Place:
        root = spec = self.specs[run]
        while root.parent in self.specs:
            root = self.specs[root.parent]
        while spec.kind == "finetune" and spec.parent in self.specs:
            spec = self.specs[spec.parent]
        is_trial = spec.stage in TRIAL_STAGES
        samples = 0 if is_trial or spec.schedule == "constant" else spec.samples
        length = getattr(root, self.study.length)
        return Place(root.model, length, root.seed, samples, is_trial)

    def drop(self, what: str, chosen: Chosen) -> Change | None:
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

    def add(self, what: str, copies: Sequence[tuple[Chosen, Made]]) -> Change:
        """The study with copies of such places' runs, each made different."""
        rows = list(self.study.rows)
        for number, (chosen, made) in enumerate(copies):
            renamed: dict[str, str] = {}
            for row in self.study.rows:
                if chosen(self.places[row.planned.id]):
                    spec = made(row.planned.spec)
                    spec = replace(spec, parent=renamed.get(spec.parent, spec.parent))
                    renamed[row.planned.id] = f"{row.planned.id}+{number}"
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


def find_drops(layout: Layout) -> Iterator[Change]:
    """Seeds, lengths, sample counts and sizes that could stay away, alone or of one model."""
    full, *short = layout.lengths
    found: list[tuple[str, Chosen]] = []
    for (model, length), seeds in layout.seeds.items():
        if len(seeds) > 1:
            found.append(
                (
                    f"a seed of {model} at {length}",
                    lambda p, key=(model, length, seeds[-1]): (p.model, p.length, p.seed) == key,
                )
            )
        if length != full:
            found.append(
                (f"{model} at {length}", lambda p, key=(model, length): (p.model, p.length) == key)
            )
    for model in layout.models:
        seeds = max((layout.seeds[key] for key in layout.seeds if key[0] == model), key=len)
        if len(seeds) > 1:
            found.append(
                (
                    f"a seed of {model}",
                    lambda p, key=(model, seeds[-1]): (p.model, p.seed) == key and not p.is_trial,
                )
            )
        found.append((f"{model}", lambda p, key=model: p.model == key))
        found += [
            (
                f"{model} at {short_count(samples)} samples",
                lambda p, key=(model, samples): (p.model, p.samples) == key,
            )
            for samples in layout.samples
        ]
    found += [(f"length {length}", lambda p, key=length: p.length == key) for length in short]
    found += [
        (f"{short_count(samples)} samples", lambda p, key=samples: p.samples == key)
        for samples in layout.samples
    ]
    for what, chosen in found:
        change = layout.drop(what, chosen)
        if change is not None and change.hours < -LEAST_SAVED * layout.study.gpu_hours:
            yield change


def find_additions(layout: Layout) -> Iterator[Change]:
    """Another seed, sample count, length or size, from the neighbours of those there are."""
    for (model, length), seeds in layout.seeds.items():
        yield layout.add(f"a seed of {model} at {length}", [seed_of(model, [length], seeds)])
    for model in layout.models:
        lengths = [length for name, length in layout.seeds if name == model]
        seeds = [max((layout.seeds[(model, length)] for length in lengths), key=len)[-1]]
        yield layout.add(f"a seed of {model}", [seed_of(model, lengths, seeds)])
    yield from more_samples(layout)
    for length, near in near_lengths(layout):
        made = partial(with_length, name=layout.study.length, length=length)
        yield layout.add(f"length {length}", [(lambda p, key=near: p.length == key, made)])
    for model, near_model in near_models(layout.models):
        yield layout.add(
            f"model {model}",
            [
                (
                    lambda p, key=near_model: p.model == key,
                    lambda spec, name=model: replace(spec, model=name),
                )
            ],
        )


def seed_of(model: str, lengths: Sequence[int], seeds: Sequence[int]) -> tuple[Chosen, Made]:
    """Copies of a model's first seed, with the next one."""

    def chosen(place: Place) -> bool:
        is_cell = place.model == model and place.length in lengths and not place.is_trial
        return is_cell and place.seed == 0

    return chosen, lambda spec: replace(spec, seed=seeds[-1] + 1)


def more_samples(layout: Layout) -> Iterator[Change]:
    """As many counts as an answer lacks, else one: below, above; everywhere, or at full length."""
    count = max(1, NEEDED - layout.least_full)
    counts = layout.samples
    ratio = round(max((b / a for a, b in pairwise(counts)), default=2.0), 2)
    for near, step in ((counts[0], 1 / ratio), (counts[-1], ratio)):
        wanted = [round(near * step**power) for power in range(1, count + 1)]
        told = ", ".join(map(short_count, wanted))
        made = [partial(with_samples, samples=samples) for samples in wanted]
        for where, lengths in (("", layout.lengths), (" at full length", layout.lengths[:1])):

            def chosen(p: Place, key: int = near, lengths: Sequence[int] = lengths) -> bool:
                return p.samples == key and p.length in lengths

            yield layout.add(f"{told} samples{where}", [(chosen, each) for each in made])


def with_samples(spec: RunSpec, samples: int) -> RunSpec:
    """Of as many samples, whole steps; what is finetuned stays as it is."""
    if spec.kind == "finetune":
        return spec
    whole = -(-samples // spec.batch_size) * spec.batch_size
    warmup = min(spec.warmup_samples, whole // 2)
    decay = max(spec.batch_size, round(whole / 5 / spec.batch_size) * spec.batch_size)
    decay = decay if spec.schedule == "wsd" else 0
    return replace(spec, samples=whole, warmup_samples=warmup, decay_samples=decay)


def near_lengths(layout: Layout) -> Iterator[tuple[int, int]]:
    """Possible lengths between two neighbours and below the last, each with the one beside it."""
    known = layout.lengths
    image = layout.study.length == "image_tokens"
    least = 4 if image else SHORTEST_TEXT
    wanted = [(math.sqrt(a * b), b) for a, b in pairwise(known)]
    if len(known) > 1:
        wanted.append((known[-1] ** 2 / known[-2], known[-1]))
    for value, near in wanted:
        length = max(least, round(math.sqrt(value)) ** 2 if image else round(value))
        if length not in known:
            yield length, near


def with_length(spec: RunSpec, name: str, length: int) -> RunSpec:
    """Of that length; what is finetuned stays at its own."""
    if spec.kind == "finetune":
        return spec
    if name == "image_tokens" and spec.image_reduction == "resize":
        side = math.isqrt(length) * load_model(spec.model).patch
        return replace(spec, image_tokens=length, image_size=side)
    return replace(spec, **{name: length})


def near_models(models: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The next size above the largest and below the smallest, each with the one beside it."""
    names = [model.rpartition("/") for model in models]
    for family in FAMILIES:
        at = sorted(family.index(size) for size, _, _ in names if size in family)
        if len(at) < len(models):
            continue
        patches = {family.index(size): patch for size, _, patch in names}
        for near, other in ((at[-1], at[-1] + 1), (at[0], at[0] - 1)):
            if 0 <= other < len(family):
                patch = patches[near]
                yield f"{family[other]}/{patch}", f"{family[near]}/{patch}"


def weigh(
    changes: Iterable[Change], study: Study, truth: Truth, scatter: Scatter, path: str = FIXED_D
) -> list[Weighed]:
    """Each change with the interval that it is reckoned to give on one path."""
    before = half_width(study, truth, scatter, path)[0]
    found = []
    for change in changes:
        after, lacking = half_width(change.study, truth, scatter, path)
        found.append(Weighed(change, before, after, lacking))
    return found


def half_width(
    study: Study, truth: Truth, scatter: Scatter, path: str
) -> tuple[float, tuple[str, ...]]:
    """Half the interval's width in the first comparison, and what the design lacks."""
    compared = compare(study)[0]
    missing = tuple(item.key for item in lacks(compared, truth))
    [found] = approximate(compared, truth, scatter, [path])
    return found.half, missing


def best_drops(weighed: Iterable[Weighed], lacking: Sequence[str]) -> list[Weighed]:
    """Those after which the design lacks no more than before, the least widening per hour first."""
    able = [each for each in weighed if not {*each.lacks} - {*lacking}]
    return sorted(
        (each for each in able if math.isfinite(each.after) or math.isnan(each.before)),
        key=lambda each: each.rate if math.isfinite(each.rate) else each.change.hours,
    )


def best_additions(weighed: Iterable[Weighed]) -> list[Weighed]:
    """What lets the design answer first, the cheapest before; then the most narrowing per hour."""

    def order(each: Weighed) -> tuple[float, ...]:
        if math.isfinite(each.before):
            return len(each.lacks), -each.rate
        return len(each.lacks), math.isnan(each.after), each.change.hours

    return sorted(weighed, key=order)
