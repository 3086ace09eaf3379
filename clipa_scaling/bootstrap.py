"""A fit again and again on what its study could have measured instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from clipa_scaling.fitted import Fit
from clipa_scaling.lawform import Floats, LawError
from clipa_scaling.minimise import minimise
from clipa_scaling.resample import LEAST_CLUSTERS
from clipa_scaling.scatter import Scatter, split_variance

LEVEL = 0.95
LEAST_PER_PARAMETER = 4  # clusters: with fewer, draws leave parameters without their rows
NEAR = 1e-8  # gain of a further step, over the objective
LOST = 1e-4  # the same, beyond which a draw has no value
AT_ONCE = 1000


@dataclass(frozen=True)
class Draws:
    """Refits of a fit: theta (B, P) for its centred logs, NaN where one failed.

    method: `clusters`, all rows of a cluster drawn together, or `parametric`, normal noise.
    """

    fit: Fit
    theta: Floats
    method: str
    told: str
    scatter: Scatter

    @property
    def params(self) -> Floats:
        """(B, P), variables in their units."""
        return np.asarray(self.fit.law.uncentre(self.theta, self.fit.log_means))

    def interval(self, name: str) -> tuple[float, float]:
        """The middle 95 % of a parameter's draws.

        For parameters alone `profile.intervals` is the better: its ends need no symmetry.
        """
        if name not in self.fit.law.names:
            raise LawError(f"parameter {name!r}; allowed: {', '.join(self.fit.law.names)}")
        low, high = middle(self.params[:, [self.fit.law.names.index(name)]])
        return float(low[0]), float(high[0])

    def predict(self, x: Mapping[str, Floats]) -> Floats:
        """y (B, n) of the law; of further runs, with their noise: `rollout.predict_interval`."""
        return self.fit.predict_all(self.theta, x)


def middle(values: Floats) -> tuple[Floats, Floats]:
    """The middle 95 % of draws (B, n), each (n,); NaN where more than a few have no value."""
    lost = np.isnan(values).mean(axis=0) > (1 - LEVEL) / 2
    filled = np.where(lost, 0.0, values)
    low, high = np.nanquantile(filled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.where(lost, np.nan, low), np.where(lost, np.nan, high)


def bootstrap(fit: Fit, draws: int = 1000, seed: int = 0) -> Draws:
    """Refits from the estimate on: of clusters drawn with repetition, or of the law with new noise.

    With 20 clusters, and four a parameter, whole clusters are drawn. Below, noise is normal, its
    variance that of the residuals over rows less parameters, in part shared within clusters, and
    drawn itself (chi-squared), as it is only estimated. Errors: LawError for a fit not identified.
    """
    if fit.status.kind == "not identified":
        raise LawError(
            f"a fit that is not identified has no draws: {'; '.join(fit.status.reasons)}"
        )
    rng, codes = np.random.default_rng(seed), fit.points.codes()
    clusters, size = int(codes.max()) + 1, len(fit.theta)
    u = fit.law.to_coordinates(fit.theta)
    residuals, slopes = fit.problem.slopes(u[None])
    scatter = split_variance(residuals[0], slopes[0], codes)
    if clusters >= max(LEAST_CLUSTERS, LEAST_PER_PARAMETER * size):
        method, told = "clusters", f"{clusters} clusters of rows, drawn with repetition"
        weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), draws)[:, codes]
        problem = replace(fit.problem, weights=weights.astype(float))
    else:
        method = "parametric"
        told = f"normal noise, {scatter.degrees:.0f} degrees of freedom; {clusters} clusters"
        errors = draw_errors(scatter, codes, draws, rng) / fit.problem.unit
        fitted = residuals[0] / fit.problem.unit + fit.problem.target
        problem = replace(fit.problem, target=fitted + errors)
    theta = np.full((draws, size), np.nan)
    for at in range(0, draws, AT_ONCE):
        rows = np.arange(at, min(at + AT_ONCE, draws))
        found = minimise(problem.take(rows), np.repeat(u[None], len(rows), 0), tolerance=NEAR)
        usable = (found.decrement < LOST) & np.isfinite(found.objective)
        theta[rows[usable]] = fit.law.from_coordinates(found.u[usable])
    return Draws(fit, theta, method, told, scatter)


def draw_errors(
    scatter: Scatter, codes: np.ndarray, count: int, rng: np.random.Generator
) -> Floats:
    """(count, n), as the residuals scatter."""
    shared = rng.standard_normal((count, int(codes.max()) + 1))[:, codes] * scatter.shared**0.5
    alone = rng.standard_normal((count, len(codes))) * scatter.alone**0.5
    factor = np.ones((count, 1))
    if scatter.degrees >= 1:
        factor = scatter.degrees / rng.chisquare(scatter.degrees, (count, 1))
    return np.asarray((shared + alone) * np.sqrt(factor))
