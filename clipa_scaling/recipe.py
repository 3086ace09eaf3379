"""A law, a price and a budget -> the best model, lengths and samples, and what is as good."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipa_scaling.bootstrap import bootstrap
from clipa_scaling.capped import capped
from clipa_scaling.counts import count_model
from clipa_scaling.lawform import LawError
from clipa_scaling.laws import LAWS
from clipa_scaling.minimise import from_scale, to_scale
from clipa_scaling.models import load_model
from clipa_scaling.multiplier import Floats
from clipa_scaling.points import LOSS, Chosen
from clipa_scaling.pricing import Budget, Pricing
from clipa_scaling.solve import Fit, Options
from clipa_scaling.spec import SHORTEST_TEXT
from clipa_scaling.split import Split
from clipa_scaling.tournament import Tournament, compete

FORMS = ("primary", "trend", "bounded", "additive", "multiplicative")  # that predict any N, D, T
UNBOUNDED = ("multiplicative",)  # whose every further token gains as many per cent as the last
DRAWS, LEVEL = 200, 0.95
SHARES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)  # of the budget, for finetuning
BESIDE = 0.5  # lengths are considered down to so much of the shortest that was measured
SAME = 1e-9


@dataclass(frozen=True)
class Recipe:
    """What a budget buys under a law.

    table: candidates, best first: `model`, `image_tokens`, `text_tokens`, `samples`,
    `finetune_samples`, `share` (of the budget, for finetuning), `error`, `low`, `high` (95 % of the
    draws), `behind` (of the best, in error), `as_good` (no worse in 2.5 % of the draws),
    `factor` (the most by which N, D or a length lies beyond what was measured, 1 within it) and
    `beyond` (in which). edges: of the best, in words. others: the best under other forms.
    """

    fit: Fit
    why: str
    split: Split
    pricing: Pricing
    budget: Budget
    table: pd.DataFrame
    edges: tuple[str, ...]
    others: dict[str, pd.Series]
    warnings: tuple[str, ...]

    @property
    def best(self) -> pd.Series:
        return self.table.iloc[0]


def choose_law(
    chosen: Chosen, name: str | None, worst: float | None, starts: int = 1024
) -> tuple[Fit, str, Tournament]:
    """The form that predicts held-out runs best, or the one named; and why.

    Among them is one whose image tokens saturate, where lengths vary. LawError where none fits.
    """
    is_loss = chosen.points.columns.get("y") == LOSS
    options = Options(
        scale="log" if is_loss else "logit", delta=None if is_loss else "noise",
        starts=starts, keep=8,
    )  # fmt: skip
    entered = [*(LAWS[form] for form in FORMS), capped()]
    if name is not None:
        known = {law.name: law for law in entered}
        if name not in known:
            raise LawError(f"law {name!r} predicts no recipe; allowed: {', '.join(known)}")
        entered = [known[name]]
    if is_loss and worst is None:
        entered = [law for law in entered if "worst" not in law.given]
    with np.errstate(over="ignore", invalid="ignore"):
        found = compete(chosen.points, entered, options, worst=worst)
    for form in [form for form, fit in found.fits.items() if lacking(fit)]:
        check_roles(found.fits[form])  # what varies is the same for all forms
    if not found.fits:
        told = "; ".join(f"{form}: {reason}" for form, reason in found.reasons.items())
        raise LawError(f"no law of N and D can be fitted: {told}")
    if name is not None:
        return found.fits[name], "named", found
    best = found.best_rollout or found.best_aicc
    return found.fits[best], "predicts held-out runs best", found


def lacking(fit: Fit) -> list[str]:
    return [role for role in ("N", "D") if role not in fit.law.roles]


def check_roles(fit: Fit) -> Fit:
    """The fit; LawError where it cannot tell what another size or sample count would do."""
    if lacking(fit):
        told = " and ".join({"N": "model", "D": "samples"}[role] for role in lacking(fit))
        raise LawError(
            f"law {fit.law.name} has no {', '.join(lacking(fit))}: the study has not varied "
            f"{told}, so that no budget can be split; give a study that varies it"
        )
    return fit


def lengths_of(points_lengths: Floats, is_square: bool, least: int) -> list[int]:
    """Possible lengths, from half the shortest to the longest that was measured."""
    low, high = float(points_lengths.min()), float(points_lengths.max())
    first = max(least, math.ceil(BESIDE * low - SAME))
    if is_square:
        sides = range(math.isqrt(max(first - 1, 0)) + 1, math.isqrt(int(high)) + 1)
        return [side * side for side in sides]
    spaced = np.geomspace(first, high, 24)
    return sorted({round(value) for value in spaced})


def candidates(
    chosen: Chosen,
    fit: Fit,
    pricing: Pricing,
    budget: Budget,
    split: Split,
    models: Sequence[str],
    text_tokens: int,
    batch_size: int,
) -> pd.DataFrame:
    """Every model, lengths and share that the budget can buy, with their samples."""
    points = chosen.points
    size = {
        str(model): float(points.x["N"][chosen.models == model][0])
        for model in np.unique(chosen.models)
    }
    full = int(points.x["T"].max())
    images = lengths_of(points.x["T"], not pricing.is_masked, 1) if "T" in fit.law.roles else [full]
    texts = lengths_of(points.x["S"], False, SHORTEST_TEXT) if "S" in fit.law.roles else [
        text_tokens
    ]  # fmt: skip
    rows = []
    for model in models:
        n = size.get(model) or count_n(model, full, points.columns["N"], pricing, text_tokens)
        later = 0.0
        if split.stage:
            later = pricing.per_sample(model, split.image_tokens, split.text_tokens, full)
        for image in images:
            for text in texts:
                each = pricing.per_sample(model, image, text, full)
                for share, finetune in splits(split, budget, later):
                    left = budget.amount - finetune * later
                    samples = int(left / each / batch_size) * batch_size
                    if samples > 0:
                        rows.append((model, n, image, text, samples, finetune, share))
    names = ["model", "N", "image_tokens", "text_tokens", "samples", "finetune_samples", "share"]
    return pd.DataFrame(rows, columns=names)


def splits(split: Split, budget: Budget, later: float) -> Iterable[tuple[float, int]]:
    """Shares of the budget for finetuning, and the samples that they buy."""
    if not split.stage:
        return [(0.0, 0)]
    if split.because:  # not identified: as the study did
        return [(split.samples * later / budget.amount, split.samples)]
    return [(share, int(share * budget.amount / later)) for share in SHARES]


def count_n(model: str, full: int, column: str, pricing: Pricing, text_tokens: int) -> float:
    """Of a model that the study has not, as its own are counted."""
    counts = count_model(
        load_model(model), full, full, text_tokens, pricing.vocab_size, pricing.ln_pre,
        pricing.learned_position,
    )  # fmt: skip
    return float(getattr(counts, column))


def predict(table: pd.DataFrame, fit: Fit, split: Split, theta: Floats, slopes: Floats) -> Floats:
    """Errors of the candidates, (B, n), under each theta and finetune slope."""
    columns = {"N": "N", "D": "samples", "T": "image_tokens", "S": "text_tokens"}
    x = {role: table[columns[role]].to_numpy(float) for role in fit.law.roles}
    found = fit.predict_all(theta, x)
    if split.because:
        return found
    gain = split.gain(table["finetune_samples"].to_numpy(float), slopes[:, None])
    return from_scale(to_scale(np.clip(found, 1e-9, 1 - 1e-9), "logit") - gain, "logit")


def rank(
    table: pd.DataFrame, fit: Fit, split: Split, chosen: Chosen, draws: int = DRAWS
) -> pd.DataFrame:
    """The candidates with error, interval and marks, best first."""
    error = predict(table, fit, split, fit.theta[None], np.array([split.slope]))[0]
    best = int(np.argmin(error))
    found = bootstrap(fit, draws)
    theta = found.theta[np.isfinite(found.theta).all(axis=1)]
    low = high = np.full(len(error), math.nan)
    worse = error - error[best]
    if len(theta) >= draws / 2:  # else the fit cannot be repeated, and no band is known
        drawn = predict(table, fit, split, theta, np.resize(split.draws, len(theta)))  # (B, n)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        worse = np.quantile(drawn - drawn[:, [best]], (1 - LEVEL) / 2, axis=0)
    factor, beyond = extrapolation(table, fit, chosen)
    return (
        table.assign(
            error=error,
            low=low,
            high=high,
            behind=error - error[best],
            as_good=worse <= 0,
            factor=factor,
            beyond=beyond,
        )  # fmt: skip
        .sort_values("error", kind="stable")
        .reset_index(drop=True)
    )


def extrapolation(table: pd.DataFrame, fit: Fit, chosen: Chosen) -> tuple[Floats, list[str]]:
    """By what factor each candidate lies beyond the measured N, D, T, S, and in which most."""
    columns = {"N": "N", "D": "samples", "T": "image_tokens", "S": "text_tokens"}
    names = {"N": "size", "D": "samples", "T": "image tokens", "S": "text tokens"}
    roles = [role for role in fit.law.roles if role in columns]
    factors = []
    for role in roles:
        known, value = chosen.points.x[role], table[columns[role]].to_numpy(float)
        factors.append(np.maximum(1.0, np.maximum(value / known.max(), known.min() / value)))
    stacked = np.array(factors)
    most = stacked.argmax(axis=0)
    told = [names[roles[at]] if stacked[at, row] > 1 + SAME else "" for row, at in enumerate(most)]
    return stacked.max(axis=0), told


def find_edges(table: pd.DataFrame, best: pd.Series, models: Sequence[str]) -> tuple[str, ...]:
    """Where the optimum lies at an end of what was considered: a better one may lie beyond."""
    found = []
    sizes = table.drop_duplicates("model").set_index("model")["N"]
    if len(sizes) > 1:
        if best["N"] == sizes.max():
            found.append(f"{best['model']} is the largest model considered")
        if best["N"] == sizes.min():
            found.append(f"{best['model']} is the smallest model considered")
    for name in ("image_tokens", "text_tokens", "share"):
        values = table[name].unique()
        if len(values) > 2 and best[name] in (values.min(), values.max()):
            end = "the most" if best[name] == values.max() else "the fewest"
            told = name.replace("_", " ")
            if name == "share":
                end, told = ("largest", "share") if end == "the most" else ("smallest", "share")
                found.append(f"the {end} share for finetuning considered")
            else:
                found.append(f"{best[name]} {told} are {end} considered")
    return tuple(found)


def find_recipe(
    chosen: Chosen,
    pricing: Pricing,
    budget: Budget,
    split: Split,
    found: tuple[Fit, str, Tournament | None],
    *,
    models: Sequence[str] = (),
    text_tokens: int = 32,
    batch_size: int = 1,
    draws: int = DRAWS,
) -> Recipe:
    """The best recipe under a fit, and its equals. LawError where the budget buys no batch.

    models: by default the study's. text_tokens: where the law has no term for them.
    """
    fit, why, tournament = found
    models = models or tuple(dict.fromkeys(map(str, chosen.models)))

    def consider(form: Fit) -> pd.DataFrame:
        return candidates(chosen, form, pricing, budget, split, models, text_tokens, batch_size)

    considered = consider(fit)
    if considered.empty:
        raise LawError(
            f"a budget of {budget.amount:.3g} {budget.unit} buys no batch of any model; raise it"
        )
    table = rank(considered, fit, split, chosen, draws)
    others = {}
    for name, other in (tournament.fits if tournament else {}).items():
        if name != fit.law.name:
            rows = consider(other)
            error = predict(rows, other, split, other.theta[None], np.array([split.slope]))[0]
            others[name] = rows.assign(error=error).iloc[int(np.argmin(error))]
    return Recipe(
        fit=fit,
        why=why,
        split=split,
        pricing=pricing,
        budget=budget,
        table=table,
        edges=find_edges(considered, table.iloc[0], models),
        others=others,
        warnings=tuple(tournament.warnings) if tournament else (),
    )
