"""Tuning: short runs over a ladder of values, and what they found put into the cells.

A pure function of the sweep file and the run folders, so the grid is made again as runs end.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from clipa_scaling.children import find_children
from clipa_scaling.derive import flops_per_sample
from clipa_scaling.grid import Expansion, Planned
from clipa_scaling.optimum import ALL_DIVERGED, Optimum, find_optimum, find_ratio, round_value
from clipa_scaling.rundir import RunDir
from clipa_scaling.schema import TRIAL_STAGES
from clipa_scaling.scores import Judge, choose_judge, find_judges, read_outcome, read_score
from clipa_scaling.spec import RunSpec
from clipa_scaling.stage import Cell, Stage, default_of
from clipa_scaling.tuneblock import TRANSFER, Transfer, Tuned, Tuning, read_tunings
from clipa_scaling.yamlfile import Document, SweepError

TUNE, LONGER = TRIAL_STAGES


def tune_cells(
    document: Document, runs: Path, expansion: Expansion, first: Stage, cells: list[Cell]
) -> None:
    """Add the runs that tune the block's fields, and set those found in the first stage's cells.

    Each field is tuned with the others at the file's values. Raises SweepError for a wrong block.
    """
    tunings = read_tunings(document, first)
    tuners = [Tuner(document, runs, expansion, first, tuning, cells) for tuning in tunings]
    for tuner in tuners:  # once all have seen the cells as the file has them
        tuner.settle()
    for name in document.values.get("fixed", {}):
        if [tuning.field for tuning in tunings] == [name]:  # else it is what others are tuned at
            message = str(document.error(("fixed", name), f"is overridden by tune.{name}"))
            expansion.warnings.append(message)


@dataclass
class Group:
    """The cells that share one optimum; `first`: the first of them as the file has it.

    base: that cell with the ladder's middle value.
    """

    first: Cell
    base: RunSpec
    cells: list[Cell]


class Trial(NamedTuple):
    """A run that tries a value."""

    value: float
    run: Planned


def ids_of(trials: Sequence[Trial]) -> tuple[str, ...]:
    return tuple(trial.run.id for trial in trials)


class Tuner:
    """The tuning of one field."""

    def __init__(
        self, document: Document, runs: Path, expansion: Expansion, first: Stage, tuning: Tuning,
        cells: list[Cell],
    ):  # fmt: skip
        self.document, self.runs, self.expansion = document, runs, expansion
        self.first, self.tuning = first, tuning
        self.unevaluated: dict[str, str] = {}  # and the set that decides
        self.groups = self.group(cells)
        for group in self.groups:
            self.check(group.base)

    def group(self, cells: list[Cell]) -> list[Group]:
        """The cells by the `per` fields, less those whose value a rule or `include` sets."""
        tuning, groups, own = self.tuning, dict[str, Group](), 0
        for cell in cells:
            ruled = cell.copy()
            ruled.set(tuning.field, tuning.middle, tuning.where)
            self.first.apply_rules(ruled)
            if self.first.reason_to_exclude(ruled) is not None:
                continue
            if ruled.origin[tuning.field] != tuning.where or is_included(cell, tuning.field):
                own += 1
                continue
            key = repr([ruled.values.get(name, default_of(name)) for name in tuning.per])
            if key not in groups:
                base = self.expansion.resolve(ruled, {"stage": TUNE}).spec
                groups[key] = Group(cell.copy(), base, [])
            groups[key].cells.append(cell)
        if own:
            message = f"{own} cells are not tuned: a rule or include sets their {tuning.field}"
            self.expansion.warnings.append(str(self.document.error(tuning.where, message)))
        return list(groups.values())

    def check(self, base: RunSpec) -> None:
        """Raise SweepError where a combination's runs cannot be short, longer, or judged."""
        tuning = self.tuning
        if tuning.at_samples > base.samples:
            message = f"{tuning.at_samples:,} is more than the {base.samples:,} samples of "
            message += f"{base.model} at image_tokens={base.image_tokens}; allowed: up to that"
            raise self.document.error((*tuning.where, "at_samples"), message)
        longer = tuning.transfer_samples
        if longer and longer <= tuning.at_samples:
            message = f"{longer:,} is not above at_samples; allowed: more than "
            message += f"{tuning.at_samples:,}, or 0 for no check"
            raise self.document.error((*tuning.where, "transfer_samples"), message)
        try:
            find_judges(tuning.measure, base.evals)
        except ValueError as error:
            raise self.document.error(tuning.where, str(error)) from None

    def settle(self) -> None:
        """Every combination's optimum, or what it waits for, into its cells."""
        found = [self.tune_group(group) for group in self.groups]
        self.check_transfer(found)
        for group, tuned in zip(self.groups, found, strict=True):
            self.expansion.warnings += tuned.warnings()
            for cell in group.cells:
                known = math.isfinite(tuned.value)
                value = tuned.value if known else self.tuning.middle
                cell.set(self.tuning.field, value, self.tuning.where)
                cell.waits += () if known else (self.tuning.field,)
        for run, name in sorted(self.unevaluated.items()):
            self.expansion.runs[run] = replace(self.expansion.runs[run], lacks=name)
            message = f"{run} is done and was never evaluated by what tuning asks for, {name}; "
            message += "pass --evaluate to do so, or judge by a set and measure that it has"
            self.expansion.warnings.append(str(self.document.error(self.tuning.where, message)))
        self.expansion.tuned += found

    def tune_group(self, group: Group) -> Tuned:
        """The runs of a ladder, with further values while its best is at an edge."""
        tuning = self.tuning
        judges = find_judges(tuning.measure, group.base.evals)
        ladder, added = list(tuning.over), {-1: 0, 1: 0}
        while True:
            trials = self.plan_trials(group, ladder, tuning.at_samples, TUNE)
            optimum, judge = self.find_optimum(trials, judges)
            # Where all diverged, smaller is the side to go to.
            all_diverged = optimum is not None and optimum.flag == ALL_DIVERGED
            side = -1 if all_diverged else 0 if optimum is None else optimum.edge
            if not side or added[side] >= tuning.extend:
                break
            further = short(ladder[-1] * tuning.step if side > 0 else ladder[0] / tuning.step)
            if not self.is_possible(group, further):
                break
            bisect.insort(ladder, further)
            added[side] += 1
        tuned = Tuned(
            tuning=tuning,
            per={name: getattr(group.base, name) for name in tuning.per},
            judge=judge,
            at_samples=whole_steps(tuning.at_samples, group.base),
            over=tuple(ladder),
        )
        if optimum is None:
            return replace(tuned, waits=f"waits for tuning of {tuning.field}")
        value = optimum.value if optimum.flag else round_value(optimum.value)
        return replace(tuned, optimum=optimum, value=value, runs=ids_of(trials))

    def plan_trials(
        self, group: Group, ladder: Sequence[float], samples: int, stage: str, waits: bool = False
    ) -> list[Trial]:
        """Plan the runs of a ladder."""
        trials = []
        for value in ladder:
            for seed in self.tuning.seeds:
                trial = self.make_trial(group, value, samples, stage, seed, waits)
                self.expansion.add_trial(trial, self.tuning.field)
                trials.append(Trial(value, trial))
        return trials

    def find_optimum(
        self, trials: Sequence[Trial], judges: Sequence[Judge]
    ) -> tuple[Optimum | None, Judge]:
        """The optimum of a ladder, None until all its runs are over, and what judged."""
        children = find_children(self.runs, (trial.run.id for trial in trials))
        outcomes = [
            read_outcome(RunDir(self.runs / run.id), run.spec, children.get(run.id, ()))
            for run in (trial.run for trial in trials)
        ]
        judge = choose_judge(judges, outcomes)
        scores = [read_score(outcome, judge) for outcome in outcomes]
        for trial, outcome, score in zip(trials, outcomes, scores, strict=True):
            if outcome.state == "done" and score is None:
                self.unevaluated[trial.run.id] = judge.item.name
        known = [score for score in scores if score is not None]
        if len(known) < len(scores):
            return None, judge
        return find_optimum([trial.value for trial in trials], known), judge

    def make_trial(
        self, group: Group, value: float, samples: int, stage: str, seed: int, waits: bool = False
    ) -> Planned:
        """A run like the group's first cell, but for the value, the seed and its length.

        Warm-up, and a decay of given length, keep their share of the samples.
        """
        tuning, base = self.tuning, group.base
        samples = whole_steps(samples, base)
        where = (*tuning.where, "extend")
        if value in tuning.over:
            where = (*tuning.where, "over", tuning.over.index(value))
        cell = group.first.copy()
        cell.set(tuning.field, value, where)
        self.first.apply_rules(cell)
        for name, given in tuning.changes.items():
            cell.set(name, given, (*tuning.where, "set", name))
        cell.set("seed", seed, (*tuning.where, "seeds"))
        cell.set("samples", samples, (*tuning.where, "at_samples"))
        for name in ("warmup_samples", "decay_samples"):
            if cell.values.get(name):
                cell.values[name] = round(cell.values[name] * samples / base.samples)
        cell.waits = (tuning.field,) if waits else ()
        return self.expansion.resolve(cell, {"stage": stage})

    def is_possible(self, group: Group, value: float) -> bool:
        """Whether a field may have the value: ranges end somewhere."""
        try:
            seed = self.tuning.seeds[0]
            self.make_trial(group, value, self.tuning.at_samples, TUNE, seed)
        except SweepError:
            return False
        return True

    def check_transfer(self, found: list[Tuned]) -> None:
        """Longer runs about the value of the cheapest combination: a step below, at, and above."""
        if not found or self.tuning.transfer_samples == 0:
            return
        index = min(range(len(found)), key=lambda at: train_flops(self.groups[at].base))
        group, tuned = self.groups[index], found[index]
        wanted = self.tuning.transfer_samples or TRANSFER * self.tuning.at_samples
        samples = whole_steps(min(wanted, group.base.samples), group.base)
        if samples <= tuned.at_samples or (tuned.optimum and math.isnan(tuned.value)):
            return
        waits = tuned.optimum is None
        middle = self.tuning.middle if waits else tuned.value
        ladder = [short(middle / self.tuning.step), middle, short(middle * self.tuning.step)]
        ladder = [value for value in ladder if self.is_possible(group, value)]
        trials = self.plan_trials(group, ladder, samples, LONGER, waits)
        # By what judged the short runs, for else the two optima say nothing of each other.
        optimum = None if waits else self.find_optimum(trials, [tuned.judge])[0]
        transfer = Transfer(samples)
        if optimum is not None and tuned.optimum is not None:
            transfer = Transfer(samples, optimum, find_ratio(optimum, tuned.optimum))
        used = ids_of(trials) if optimum is not None else ()
        found[index] = replace(tuned, transfer=transfer, runs=tuned.runs + used)


def is_included(cell: Cell, field: str) -> bool:
    """Whether an extra cell names its own value."""
    return cell.origin.get(field, ("",))[0] == "include"


def whole_steps(samples: int, base: RunSpec) -> int:
    return -(-samples // base.batch_size) * base.batch_size


def short(value: float) -> float:
    """Three digits, as a person would have written the ladder."""
    return float(f"{value:.3g}")


def train_flops(spec: RunSpec) -> float:
    """What a run costs; infinite where that is unknown."""
    flops = 3 * spec.samples * flops_per_sample(spec)
    return flops if math.isfinite(flops) else math.inf
