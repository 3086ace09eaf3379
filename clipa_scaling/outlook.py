"""All that can be said of a planned sweep before it runs, and again as its results arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from clipa_scaling.assumed import SEED_SD, Truth, assume
from clipa_scaling.changes import (
    Weighed,
    best_additions,
    best_drops,
    find_additions,
    find_drops,
    weigh,
)
from clipa_scaling.compared import Compared
from clipa_scaling.fitjson import plain, records
from clipa_scaling.foresee import (
    WORLDS,
    Reckoned,
    Scatter,
    adapt,
    measure_scatter,
    reckon,
    simulate,
)
from clipa_scaling.layout import Layout, redesign
from clipa_scaling.planned import Study, compare
from clipa_scaling.schema import TableError
from clipa_scaling.slopes import FIXED_D

Sort = Callable[[list[Weighed]], list[Weighed]]

INVERSE, NONE, FITTED = "inverse", "none", "as measured"
SHOWN, SIMULATED = 5, 3  # changes of each kind; how many of them are checked by simulation
LEAST_CHECKED = 10  # worlds


@dataclass(frozen=True)
class Assumptions:
    """Of a truth that nothing has measured yet; see `assumed.assume`. path: changes are weighed on.

    worlds: studies made up for each truth; 0 leaves the closed form alone.
    """

    accuracy: float
    exponent: float
    strength: float
    seed_sd: float = SEED_SD
    path: str = FIXED_D
    worlds: int = WORLDS


@dataclass(frozen=True)
class Advised:
    """A change, weighed; simulated: half the interval's width over made-up studies, else NaN."""

    weighed: Weighed
    simulated: float

    @property
    def half(self) -> float:
        """The better known of the two."""
        return self.weighed.after if np.isnan(self.simulated) else self.simulated


@dataclass(frozen=True)
class Outlook:
    """expected: `truth` and the columns of `simulate`. reckoned: the closed form, of INVERSE.

    alike: comparisons of the same design, which the study holds beside the first. before: half the
    simulated interval's width that simulated changes compare with.
    """

    study: Study
    compared: Compared
    alike: int
    assumptions: Assumptions
    scatter: Scatter
    truths: dict[str, Truth]
    expected: pd.DataFrame
    reckoned: tuple[Reckoned, ...]
    before: float
    drops: tuple[Advised, ...]
    additions: tuple[Advised, ...]


def look_ahead(study: Study, assumptions: Assumptions) -> Outlook:
    """What a study is expected to answer, and its cheapest changes; TableError without cells."""
    found = compare(study)
    if not found:
        raise TableError(f"{study.sweep.path}: plans no run that a comparison could take")
    compared = found[0]
    scatter = measure_scatter(compared, assumptions.seed_sd)
    truths = find_truths(compared, scatter, assumptions)
    reckoned = reckon(compared, truths[INVERSE], scatter)
    checked = min(assumptions.worlds, LEAST_CHECKED)
    path = next(item for item in reckoned if item.path == assumptions.path)
    layout = Layout(study)
    weighed = [
        weigh(changes, compared, truths[INVERSE], scatter, path.path)
        for changes in (find_drops(layout), find_additions(layout))
    ]
    drops = best_drops(weighed[0], [item.key for item in path.missing])
    additions = best_additions(weighed[1])

    def half(design: Compared) -> float:
        if not checked:
            return float("nan")
        rows = simulate(design, truths[INVERSE], scatter, checked).set_index("path")
        return float(rows["half"][path.path])

    before = half(compared) if np.isfinite(path.half) else float("nan")

    def advise(best: Sequence[Weighed], sort: Sort) -> tuple[Advised, ...]:
        """The first few simulated, and in the order that this gives them."""
        first = [
            Advised(item, half(redesign(compared, item.change.study)))
            for item in best[:SIMULATED]
            if np.isfinite(item.after)
        ]
        if np.isfinite(before):
            again = [replace(each.weighed, before=before, after=each.half) for each in first]
            first = [first[again.index(item)] for item in sort(again)]
        return (*first, *(Advised(item, float("nan")) for item in best[len(first) : SHOWN]))

    return Outlook(
        study=study,
        compared=compared,
        alike=sum(design(each) == design(compared) for each in found) - 1,
        assumptions=assumptions,
        scatter=scatter,
        truths=truths,
        expected=expect_all(compared, truths, scatter, reckoned, assumptions.worlds),
        reckoned=reckoned,
        before=before,
        # Without an interval, nothing says what a run was good for.
        drops=advise(drops, best_drops) if np.isfinite(path.half) else (),
        additions=advise(additions, best_additions),
    )


def find_truths(compared: Compared, scatter: Scatter, assumptions: Assumptions) -> dict[str, Truth]:
    """An inverse law, none, and where runs have finished the law that fits them best."""
    first = assume(compared, assumptions.accuracy, assumptions.exponent, assumptions.strength)
    truths = {
        INVERSE: adapt(first, compared, scatter),
        NONE: adapt(replace(first, strength=0.0), compared, scatter),
    }
    if compared.runs["done"].any():
        truths[FITTED] = adapt(first, compared, scatter, keep_strength=False)
    return truths


def expect_all(
    compared: Compared,
    truths: Mapping[str, Truth],
    scatter: Scatter,
    reckoned: Iterable[Reckoned],
    worlds: int,
) -> pd.DataFrame:
    """What each truth lets expect; of a finished study, whose runs are all measured, the last's."""
    is_over = bool(compared.runs["done"].all())
    told = [
        expect(compared, truth, scatter, reckoned, 1 if is_over else worlds).assign(truth=name)
        for name, truth in truths.items()
        if name == FITTED or not is_over
    ]
    return pd.concat(told, ignore_index=True)


def expect(
    compared: Compared, truth: Truth, scatter: Scatter, reckoned: Iterable[Reckoned], worlds: int
) -> pd.DataFrame:
    """`simulate`; where the design cannot answer, or worlds is 0, the closed form."""
    if worlds and any(np.isfinite(item.half) for item in reckoned):
        return simulate(compared, truth, scatter, worlds)
    rows = [
        {
            "path": item.path, "slope": item.slope, "half": item.half, "nu": item.nu,
            "low": item.slope - item.half, "high": item.slope + item.half,
            "nu_half": item.nu_half, "nu_low": item.nu - item.nu_half,
            "nu_high": item.nu + item.nu_half,
            "yes": 0.0 if item.missing else np.nan, "no": 0.0 if item.missing else np.nan,
            "undetermined": 1.0 if item.missing else np.nan,
        }
        for item in reckon(compared, truth, scatter)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def design(compared: Compared) -> tuple[tuple[object, ...], ...]:
    runs = compared.runs[["model", "length", "samples", "seed"]]
    return tuple(sorted(map(tuple, runs.to_numpy())))


def to_json(outlook: Outlook) -> dict[str, Any]:
    """Everything as data; null is unknown."""

    def listed(items: Iterable[Advised]) -> list[dict[str, Any]]:
        return [
            {
                "change": item.weighed.change.what,
                "gpu_hours": item.weighed.change.hours,
                "half_before": plain(item.weighed.before),
                "half_reckoned": plain(item.weighed.after),
                "half_simulated": plain(item.simulated),
                "lacks": list(item.weighed.lacks),
            }
            for item in items
        ]

    study, assumptions = outlook.study, outlook.assumptions
    return {
        "sweep": study.sweep.name,
        "length": study.length,
        "gpu_hours": study.gpu_hours,
        "compared_runs": len(outlook.compared.runs),
        "finished_runs": int(outlook.compared.runs["done"].sum()),
        "assumed": {
            "accuracy": assumptions.accuracy,
            "exponent": assumptions.exponent,
            "strength": assumptions.strength,
            "seed_sd": assumptions.seed_sd,
            "pictures": study.pictures,
        },
        "measured_seed_sd_logits": plain(outlook.scatter.logits),
        "expected": records(outlook.expected),
        "missing": {
            item.path: {lack.key: lack.because for lack in item.missing}
            for item in outlook.reckoned
        },
        "path_of_changes": assumptions.path,
        "half_simulated_before": plain(outlook.before),
        "drops": listed(outlook.drops),
        "additions": listed(outlook.additions),
    }
