"""Predictions of runs that a fit has not seen: the largest N, D and compute, the shortest length.

As in arXiv:2406.19146 and the extrapolation tasks of arXiv:2209.06640: a law is judged by what it
says beyond its points, beside two baselines that know nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from clipa_scaling.bootstrap import bootstrap
from clipa_scaling.fitted import centre
from clipa_scaling.identify import count_levels
from clipa_scaling.lawform import Floats, Law, LawError
from clipa_scaling.minimise import from_scale, slope_of, to_scale
from clipa_scaling.points import LOSS
from clipa_scaling.solve import Fit, Options, Points, fit
from clipa_scaling.splits import find_splits

NEAREST, OLS = "nearest run", "log-linear OLS"
BASELINES = (NEAREST, OLS)
AXES = ("N", "D", "T", "S")  # C follows from them
LEVEL = 0.95
NAMES = ["split", "form", "held", "factor", "error", "bias", "drop_error", "covered", "status"]


def rollout(
    points: Points,
    laws: Sequence[Law],
    options: Options | None = None,
    *,
    draws: int = 200,
    loosened: bool = True,
) -> pd.DataFrame:
    """Every law and both baselines on every split, a row each.

    Columns: `split`, `form`, `held` (rows), `factor` (held value over the nearest fitted one, at
    least 1), `error` (mean absolute error of y), `bias` (mean of predicted less actual),
    `drop_error` (as error, of what a row loses against the longest length of its size and samples),
    `covered` (share of the held rows within their 95 % prediction interval), `status`, or why not.
    loosened: the variable that is held out may have one level fewer than the law needs, two at
    least, as with three sizes; such a fit is a guess, judged by its error alone. draws: 0 for no
    `covered`.
    """
    options = options or Options()
    # Searches try places where a law has no value that a number can hold, and leave them.
    with np.errstate(over="ignore", invalid="ignore"):
        return judge_all(points, laws, options, draws, loosened)


def judge_all(
    points: Points, laws: Sequence[Law], options: Options, draws: int, loosened: bool
) -> pd.DataFrame:
    rows = []
    for split in find_splits(points):
        head = {"split": split.name, "held": int(split.held.sum()), "factor": split.factor}
        if split.why:
            rows.append({**head, "form": "", "status": split.why})
            continue
        for law in laws:
            form = loosen(law, split.role) if loosened else law
            told = judge(points, split.held, form, options, draws)
            rows.append({**head, "form": law.name, **told})
        past, future = points.take(~split.held), points.take(split.held)
        for name, predicted in predict_naively(past, future, options.scale).items():
            told = {"status": "", **measure(predicted, points, split.held)}
            rows.append({**head, "form": name, **told})
    return pd.DataFrame(rows, columns=NAMES)


def loosen(law: Law, role: str) -> Law:
    levels = {**law.levels, role: max(2, law.least_levels(role) - 1)}
    bind = law.bind
    if bind is None:
        return replace(law, levels=levels)
    return replace(law, levels=levels, bind=lambda logs: replace(bind(logs), levels=levels))


def judge(
    points: Points, held: np.ndarray, law: Law, options: Options, draws: int
) -> dict[str, object]:
    try:
        found, predicted = predict_held(points, held, law, options)
    except LawError as error:
        return {"status": str(error)}
    if not np.isfinite(predicted).all():
        why = "no prediction: the form has a level for each size, and this one has none"
        return {"status": why, "drop_error": judge_drops(found, points, held)}
    told: dict[str, object] = {"status": found.status.kind, **measure(predicted, points, held)}
    if draws:
        told["covered"] = covered(found, points.take(held), draws)
    return told


def predict_held(
    points: Points, held: np.ndarray, law: Law, options: Options
) -> tuple[Fit, Floats]:
    """The form fitted without the rows held out, and its y of them: NaN of a level it lacks.

    LawError where the other rows do not identify it.
    """
    found = fit(points.take(~held), law, options)
    if found.status.kind == "not identified":
        raise LawError(str(found.status))
    return found, found.predict(points.take(held).x)


def predict_splits(points: Points, law: Law, options: Options) -> pd.DataFrame:
    """What a form says of the rows of each split, fitted without them: `split`, `row`, `predicted`.

    Splits that `rollout` gives no error for are missing.
    """
    tables = []
    for split in find_splits(points):
        if split.why:
            continue
        try:
            _, predicted = predict_held(points, split.held, loosen(law, split.role), options)
        except LawError:
            continue
        if not np.isfinite(predicted).all():
            continue
        rows = {"row": np.flatnonzero(split.held), "predicted": predicted}
        tables.append(pd.DataFrame(rows).assign(split=split.name))
    names = ["split", "row", "predicted"]
    return pd.concat(tables)[names] if tables else pd.DataFrame(columns=names)


def measure(predicted: Floats, points: Points, held: np.ndarray) -> dict[str, float]:
    off = np.zeros(len(points))
    off[held] = predicted - points.y[held]
    told = {"error": float(np.abs(off[held]).mean()), "bias": float(off[held].mean())}
    full = find_full(points)
    dropped = held & (full >= 0)
    if dropped.any():
        told["drop_error"] = float(np.abs(off - off[full])[dropped].mean())
    return told


def judge_drops(found: Fit, points: Points, held: np.ndarray) -> float:
    """The mean error of what held rows lose, for a form that knows all but the level of their size.

    That level is taken from the size's longest length, as the papers' drops are.
    """
    form, full = found.form, find_full(points)
    dropped = held & (full >= 0)
    if form.bind is None or not form.on_scale or not dropped.any():
        return float("nan")
    logs = centre(points, form, found.log_means)
    law = form.bound_to(logs)
    theta = np.zeros(len(law.parameters))
    theta[: len(form.parameters)] = found.theta[: len(form.parameters)]
    shape = law.evaluate(theta[None], logs)[0][0]
    scale = found.options.scale
    predicted = from_scale(to_scale(points.y[full], scale) + shape - shape[full], scale)
    return float(np.abs(predicted - points.y)[dropped].mean())


def find_full(points: Points) -> np.ndarray:
    """For each row one at the longest length of its size and samples, (n,); -1 where it is one.

    The length is T where it varies, else S.
    """
    lengths = [role for role in ("T", "S") if role in points.x and count_levels(points.x[role]) > 1]
    if not lengths:
        return np.full(len(points), -1)
    others = [role for role in AXES if role in points.x and role != lengths[0]]
    logs = np.round(np.column_stack([np.log(points.x[role]) for role in others]), 6)
    cell = np.unique(logs, axis=0, return_inverse=True)[1].ravel()
    length = points.x[lengths[0]]
    full = np.full(len(points), -1)
    for at in range(cell.max() + 1):
        rows = np.flatnonzero(cell == at)
        longest = rows[length[rows].argmax()]
        full[rows[length[rows] < length[longest]]] = longest
    return full


def covered(found: Fit, future: Points, draws: int) -> float:
    low, high = predict_interval(found, future, draws)
    return float(((future.y >= low) & (future.y <= high)).mean())


def predict_interval(
    found: Fit, future: Points, draws: int, seed: int = 0
) -> tuple[Floats, Floats]:
    """The 95 % interval of new runs, two of (n,): that of the parameters, and the runs' own noise.

    Infinite where more than a few draws have no value.
    """
    scale = found.options.scale
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        drawn = bootstrap(found, draws=draws, seed=seed)
        z = to_scale(drawn.predict(future.x), scale)
    rng = np.random.default_rng(seed)
    scatter = drawn.scatter
    sd = np.full((draws, 1), np.sqrt(scatter.shared + scatter.alone))
    if scatter.degrees >= 1:  # itself estimated
        sd = sd * np.sqrt(scatter.degrees / rng.chisquare(scatter.degrees, (draws, 1)))
    z = z + sd / find_unit(found.points, future, scale) * rng.standard_normal(z.shape)
    lost = ~np.isfinite(z).all(axis=1)
    if lost.mean() > (1 - LEVEL) / 2:
        return np.full(len(future), -np.inf), np.full(len(future), np.inf)
    low, high = np.quantile(z[~lost], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return from_scale(low, scale), from_scale(high, scale)


def find_unit(past: Points, future: Points, scale: str) -> Floats:
    """The precision of new rows on the scale, over the typical one of those fitted."""
    if past.noise is None or future.noise is None:
        return np.ones(len(future))
    here, there = (
        1 / (points.noise * np.abs(slope_of(points.y, scale))) for points in (past, future)
    )
    return np.asarray(there / np.exp(np.log(here).mean()))


def predict_naively(past: Points, future: Points, scale: str) -> dict[str, Floats]:
    """The nearest fitted run's y, and a plane of the log (or other scale) of y over the logs of x.

    Near is in logs over their spread, and ties are averaged. x: those of AXES that vary.
    """
    roles = [role for role in AXES if role in past.x and count_levels(past.x[role]) > 1]
    here, there = design(past, roles), design(future, roles)
    spread = np.vstack([here, there]).std(axis=0)
    apart = (((there[:, None] - here) / spread) ** 2).sum(axis=2)
    near = apart <= apart.min(axis=1, keepdims=True) + 1e-9
    nearest = (near * past.y).sum(axis=1) / near.sum(axis=1)
    z = to_scale(past.y, scale)
    flat = np.column_stack([np.ones(len(here)), here])
    plane = np.linalg.lstsq(flat, z, rcond=None)[0]
    ahead = np.column_stack([np.ones(len(there)), there]) @ plane
    return {NEAREST: nearest, OLS: from_scale(ahead, scale)}


def design(points: Points, roles: Sequence[str]) -> Floats:
    """(n, R) logs."""
    return np.column_stack([np.log(points.x[role]) for role in roles])


def tell_error(error: float, points: Points) -> str:
    """`3.04 points`, or nats of a loss."""
    if points.columns.get("y") == LOSS:
        return f"{error:.4f} nats"
    return "more than 100 points" if error > 1 else f"{100 * error:.2f} points"


def errors_by_form(
    rows: pd.DataFrame, forms: Sequence[str]
) -> tuple[Mapping[str, float], list[str]]:
    """The mean error of each form over the splits that all of them predict; and those splits."""
    known = rows[rows["form"].isin(forms) & rows["error"].notna()]
    counts = known.groupby("split", sort=False)["form"].nunique()
    shared = [str(name) for name in counts.index[counts == len(forms)]]
    of_shared = rows[rows["split"].isin(shared) & rows["error"].notna()]
    means = of_shared.groupby("form")["error"].mean()
    return {str(form): float(error) for form, error in means.items()}, shared
