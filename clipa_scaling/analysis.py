"""Points -> all that a fit is worth: forms, a law with intervals, rollouts, choices, checklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from clipa_scaling.checklist import Item, fill
from clipa_scaling.identify import count_levels
from clipa_scaling.lawform import LAWS, ROLES, Law
from clipa_scaling.laws import find_law
from clipa_scaling.points import LOSS, Chosen
from clipa_scaling.profile import Interval, intervals
from clipa_scaling.rollout import AXES, BASELINES, tell_error
from clipa_scaling.schema import RUNS
from clipa_scaling.sensitivity import sensitivity
from clipa_scaling.show import si
from clipa_scaling.solve import Fit, Options, Points, fit
from clipa_scaling.tournament import Tournament, compete

FIRST, PER_SIZE = "primary", "per_size"
# E0, the error of guessing, 1 - 1/classes, of sets whose classes never change.
WORST: Mapping[str, float] = {"imagenet1k": 0.999}
DRAWS = 100  # of prediction intervals, for every form and split
SCALES = {"raw": "accuracy", "log": "-log error", "logit": "logit"}


@dataclass(frozen=True)
class Analysis:
    """Everything `fit` prints. fit: of the law asked for, or of what stands in; None without any.

    why: what kept the law asked for from being fitted; empty where nothing did. deltas: of the form
    per size, its exponent on each scale, else empty.
    """

    chosen: Chosen
    tournament: Tournament
    asked: str
    why: str
    fit: Fit | None
    intervals: Mapping[str, Interval]
    deltas: Mapping[str, Interval]
    sensitivity: pd.DataFrame
    checklist: Sequence[Item]
    exclusions: str


def analyse(
    chosen: Chosen,
    *,
    law: str = FIRST,
    options: Options | None = None,
    worst: float | None = None,
    draws: int = DRAWS,
    others: Mapping[str, Points] | None = None,
    exclusions: str = "none",
    laws: Sequence[Law] | None = None,
) -> Analysis:
    """Fit all forms, and look closely at one.

    law: which; where the design cannot identify it, the form per size, else the best by AICc.
    worst: E0 where it is not 1; a loss without one leaves out the laws that need it. others: see
    `sensitivity.sensitivity`. exclusions: what was left out, a sentence.
    """
    find_law(law)
    # Searches try places where a law has no value that a number can hold, and leave them.
    with np.errstate(over="ignore", invalid="ignore"):
        return look_closely(chosen, law, options, worst, draws, others or {}, exclusions, laws)


def look_closely(
    chosen: Chosen,
    law: str,
    options: Options | None,
    worst: float | None,
    draws: int,
    others: Mapping[str, Points],
    exclusions: str,
    laws: Sequence[Law] | None,
) -> Analysis:
    points = chosen.points
    is_loss = points.columns.get("y") == LOSS
    options = options or Options(scale="log" if is_loss else "logit")
    worst = WORST.get(chosen.facts.get("set", "")) if worst is None and not is_loss else worst
    entered = list(laws or LAWS.values())
    closed = [item for item in entered if is_loss and worst is None and "worst" in item.given]
    entered = [item for item in entered if item not in closed]
    if options.delta is None and not is_loss:  # on logs, the 1e-3 of None is meant for losses
        options = replace(options, delta="noise")
    found = compete(points, entered, options, worst=worst, draws=draws)
    lacking = "a loss has no worst value by itself; give ln(batch size of the evaluation)"
    found = replace(found, reasons={**found.reasons, **{item.name: lacking for item in closed}})
    name, why = choose(found, law)
    if not name:
        return Analysis(chosen, found, law, why, None, {}, {}, pd.DataFrame(), (), exclusions)
    best = found.fits[name]
    return Analysis(
        chosen=chosen,
        tournament=found,
        asked=law,
        why=why,
        fit=best,
        intervals=intervals(best),
        deltas=fit_deltas(best) if name == PER_SIZE and not is_loss else {},
        sensitivity=sensitivity(best, chosen.models, others),
        checklist=fill(
            best,
            chosen.facts,
            exclusions=exclusions,
            uncertainty="95 % intervals by profile likelihood, rows of one root run together "
            "(clipa_scaling.profile)" + f"; predictions by {draws} bootstrap draws" * (draws > 0),
            validation=tell_validation(found, best),
            forms=[other for other in found.fits if other != name],
        ),
        exclusions=exclusions,
    )


def choose(found: Tournament, law: str) -> tuple[str, str]:
    """The form to look at, and why it is not the one asked for."""
    if law in found.fits:
        return law, ""
    why = found.reasons.get(law, "it is not among the forms fitted")
    return (PER_SIZE if PER_SIZE in found.fits else found.best_aicc), why


def fit_deltas(found: Fit) -> dict[str, Interval]:
    """delta of the form per size on accuracy, -log error and logit, by least squares.

    A reason also where the refit has not converged.
    """
    points = found.points
    usable = [
        scale for scale in SCALES if scale == "raw" or ((points.y > 0) & (points.y < 1)).all()
    ]
    told = {}
    for scale in usable:
        options = replace(found.options, scale=scale, delta=np.inf)
        again = fit(points, found.form, options)
        item = intervals(again)["delta"]
        if item.identified and again.status.kind != "converged":
            item = replace(item, reason=f"the refit is not settled ({again.status})")
        told[SCALES[scale]] = item
    return told


def tell_validation(found: Tournament, best: Fit) -> str:
    rows = found.rollouts[
        (found.rollouts["form"] == best.law.name) & found.rollouts["error"].notna()
    ]
    if rows.empty:
        return "none: nothing could be held out"
    told = ", ".join(
        f"{split} {tell_error(error, best.points)}"
        for split, error in zip(rows["split"], rows["error"], strict=True)
    )
    return f"held out and predicted, mean absolute error: {told}"


# In words


LEVELS = {"N": "sizes", "D": "sample counts", "T": "lengths", "S": "lengths"}


def tell_levels(points: Points) -> list[str]:
    """`3 sizes (33.3 k to 168 k image parameters)`; of what does not vary, the value."""
    told = []
    for role in (role for role in AXES if role in points.x):
        values, name = points.x[role], points.columns.get(role, "")
        unit = RUNS[name].label.lower() if name in RUNS else ROLES[role]
        unit = "samples" if role == "D" else unit
        count, low, high = count_levels(values), si(float(values.min())), si(float(values.max()))
        span = f"{low} {unit}" if count == 1 else f"{low} to {high} {unit}"
        told.append(span if count == 1 else f"{count} {LEVELS[role]} ({span})")
    return told


def say(analysis: Analysis) -> str:
    """The sentence that a paper could print."""
    points = analysis.chosen.points
    over = f"Over {len(points)} runs ({'; '.join(tell_levels(points))})"
    found = analysis.fit
    if found is None:
        return f"{over}, no law can be identified: {analysis.why}."
    lead = f"{over}, the {found.law.name} form, {found.law.formula},"
    if found.status.kind != "converged":
        lead += f" is not settled ({found.status})"
    else:
        lead += " is identified"
    if analysis.deltas:
        values = [f"{say_interval(item)} on {name}" for name, item in analysis.deltas.items()]
        told = f"{', '.join(values)} (95 % intervals); {say_deltas(analysis)}"
        return f"{lead}: delta = {told}; {say_rollout(analysis)}{say_better(analysis)}."
    settled = found.status.kind == "converged"
    known = [
        f"{name} = {say_interval(item)}" if settled else f"{name} in {say_range(item)}"
        for name, item in analysis.intervals.items()
        if item.identified and name in analysis.sensitivity.columns
    ]
    unknown = [
        name
        for name, item in analysis.intervals.items()
        if not item.identified and name in analysis.sensitivity.columns
    ]
    parts = [f"with {', '.join(known)} (95 % intervals)"] if known else []
    if unknown:
        parts.append(f"the data do not fix {', '.join(unknown)}")
    return f"{lead}: {'; '.join(parts)}; {say_rollout(analysis)}{say_better(analysis)}."


def say_better(analysis: Analysis) -> str:
    better = tell_better(analysis)
    return f"; {better}" if better else ""


def tell_better(analysis: Analysis) -> str:
    """Which forms are better than the law that is shown; empty where none is."""
    found, tournament = analysis.fit, analysis.tournament
    if found is None:
        return ""
    name, errors, told = found.law.name, tournament.errors, []
    by_aicc, by_rollout = tournament.best_aicc, tournament.best_rollout
    if by_aicc not in ("", name):
        behind = found.aicc - tournament.fits[by_aicc].aicc
        told.append(f"{by_aicc} fits better, by {behind:.1f} of AICc")
    if by_rollout not in ("", name) and name in errors:
        own, other = (tell_error(errors[form], found.points) for form in (name, by_rollout))
        told.append(f"{by_rollout} predicts better, {other} off against {own}")
    return f"{name} is shown, but {' and '.join(told)}" if told else ""


def say_interval(item: Interval) -> str:
    if not item.identified:
        return f"– (not identified: {item.reason})"
    return f"{item.estimate:.3g} {say_range(item)}"


def say_range(item: Interval) -> str:
    return f"[{item.low:.3g}, {item.high:.3g}]"


def say_deltas(analysis: Analysis) -> str:
    assert analysis.fit is not None and analysis.fit.law.roles[0] == "N"
    if not all(item.identified for item in analysis.deltas.values()):
        return "whether larger models lose less is open: not every scale identifies delta"
    signs = {(item.low > 0) - (item.high < 0) for item in analysis.deltas.values()}
    if signs == {1}:
        return "larger models lose less on every scale"
    if signs == {-1}:
        return "larger models lose more on every scale"
    return "whether larger models lose less depends on the scale, or stays open: not robust"


def say_rollout(analysis: Analysis) -> str:
    found, tournament = analysis.fit, analysis.tournament
    assert found is not None
    errors = tournament.errors
    if found.law.name not in errors:
        return "nothing held out could be compared"
    points = found.points
    naive = [f"{name} {tell_error(errors[name], points)}" for name in BASELINES if name in errors]
    own = tell_error(errors[found.law.name], points)
    return f"held-out runs are missed by {own} ({', '.join(naive)})"
