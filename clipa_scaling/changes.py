"""What could be taken out of a planned sweep, or put in: what each change saves or costs, and what
it does to the verdict's interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from clipa_scaling.assumed import Truth
from clipa_scaling.compared import Compared
from clipa_scaling.foresee import Reckoned, Scatter, reckon
from clipa_scaling.layout import Change, Layout, Made, Only, redesign
from clipa_scaling.models import load_model
from clipa_scaling.slopes import FIXED_D
from clipa_scaling.spec import SHORTEST_TEXT, RunSpec, short_count

NEEDED = 3  # sample counts at full length, as `lacking.LEAST_LEVELS`
LEAST_SAVED = 0.005  # of the sweep's GPU-hours: less is not worth a line
FAMILIES = (("S", "B", "L", "H", "G"), ("T32", "T48", "T64", "T96", "T128"))


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


def find_drops(layout: Layout) -> Iterator[Change]:
    """Seeds, lengths, sample counts and sizes that could stay away, alone or of one model."""
    full, *short = layout.lengths
    found: dict[str, Only] = {}
    for (model, length), seeds in layout.seeds.items():
        if len(seeds) > 1:
            found[f"a seed of {model} at {length}"] = Only(model, length, seeds[-1], trials=False)
        if length != full:
            found[f"{model} at {length}"] = Only(model, length)
    for model in layout.models:
        seeds = layout.most_seeds(model)
        if len(seeds) > 1:
            found[f"a seed of {model}"] = Only(model, seed=seeds[-1], trials=False)
        found[model] = Only(model)
        for samples in layout.samples:
            found[f"{model} of {short_count(samples)} samples"] = Only(model, samples=samples)
    found |= {f"length {length}": Only(length=length) for length in short}
    found |= {
        f"{short_count(samples)} samples": Only(samples=samples) for samples in layout.samples
    }
    for what, chosen in found.items():
        change = layout.drop(what, chosen)
        if change is not None and change.hours < -LEAST_SAVED * layout.study.gpu_hours:
            yield change


def find_additions(layout: Layout) -> Iterator[Change]:
    """Another seed, sample count, length or size, from the neighbours of those there are."""
    for (model, length), seeds in layout.seeds.items():
        chosen = Only(model, length, seeds[0], trials=False)
        yield layout.add(f"a seed of {model} at {length}", [(chosen, seeded(seeds[-1] + 1))])
    for model in layout.models:
        seeds = layout.most_seeds(model)
        chosen = Only(model, seed=seeds[0], trials=False)
        yield layout.add(f"a seed of {model}", [(chosen, seeded(seeds[-1] + 1))])
    yield from more_samples(layout)
    for length, near in near_lengths(layout):
        made = partial(with_length, name=layout.study.length, length=length)
        yield layout.add(f"length {length}", [(Only(length=near), made)])
    for model, near_model in near_models(layout.models):
        made = partial(with_model, model=model)
        yield layout.add(f"model {model}", [(Only(near_model), made)])


def seeded(seed: int) -> Made:
    return lambda spec: replace(spec, seed=seed)


def with_model(spec: RunSpec, model: str) -> RunSpec:
    return replace(spec, model=model)


def more_samples(layout: Layout) -> Iterator[Change]:
    """As many counts as an answer lacks, else one: below, above; everywhere, or at full length."""
    count = max(1, NEEDED - layout.least_full)
    counts = layout.samples
    ratio = round(max((b / a for a, b in pairwise(counts)), default=2.0), 2)
    for near, step in ((counts[0], 1 / ratio), (counts[-1], ratio)):
        wanted = [round(near * step**power) for power in range(1, count + 1)]
        told = ", ".join(map(short_count, wanted))
        made = [partial(with_samples, samples=samples) for samples in wanted]
        for where, length in (("", None), (" at full length", layout.lengths[0])):
            chosen = Only(length=length, samples=near)
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
    if name == "image_tokens":
        return replace(spec, image_tokens=length)
    return replace(spec, text_tokens=length)


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
    changes: Iterable[Change],
    compared: Compared,
    truth: Truth,
    scatter: Scatter,
    path: str = FIXED_D,
) -> list[Weighed]:
    """Each change with the interval that it is reckoned to give on one path."""
    before = find_path(reckon(compared, truth, scatter), path).half
    found = []
    for change in changes:
        changed = redesign(compared, change.study)
        if changed.runs["model"].nunique() > 1 and changed.runs["length"].nunique() > 1:
            after = find_path(reckon(changed, truth, scatter), path)
            missing = tuple(dict.fromkeys(item.key for item in after.missing))
            found.append(Weighed(change, before, after.half, missing))
    return found


def find_path(found: Iterable[Reckoned], path: str) -> Reckoned:
    return next(item for item in found if item.path == path)


def best_drops(weighed: Iterable[Weighed], lacking: Sequence[str] | None = None) -> list[Weighed]:
    """The least widening per hour saved first; of what widens nothing, what saves most.

    lacking: what the design lacks anyhow; what would make it lack more is left out.
    """
    able = [
        each
        for each in weighed
        if math.isfinite(each.after) and (lacking is None or not {*each.lacks} - {*lacking})
    ]
    return sorted(able, key=lambda each: (max(each.rate, 0.0), each.change.hours))


def best_additions(weighed: Iterable[Weighed]) -> list[Weighed]:
    """What lets the design answer first, the cheapest before; then the most narrowing per hour."""

    def order(each: Weighed) -> tuple[float, ...]:
        if math.isfinite(each.before):
            return len(each.lacks), -each.rate
        return len(each.lacks), math.isnan(each.after), each.change.hours

    return sorted(weighed, key=order)
