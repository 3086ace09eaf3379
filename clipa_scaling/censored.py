"""A common slope over groups of values of which some are only known to lie beyond a bound."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from clipa_scaling.multiplier import Floats, Signs

STEPS, NEAR = 100, 1e-5
# Exact values of a group, below which it is left out. A bound bends a slope from one side only:
# with one exact value beside bounds, slopes of worlds without a trend lay half their standard
# deviation below 0 on average where m was near its bounds; with two, a twentieth.
LEAST_EXACT = 2


def fit_slopes(x: Floats, y: Floats, signs: Signs, noise: Floats) -> Floats:
    """The slope of y against x with an intercept for each group, (B,); NaN where undetermined.

    Groups with fewer than LEAST_EXACT values that are no bounds are left out, draw by draw.
    x (I,); y, signs (B, G, I), y NaN where there is nothing, signs as in `multiplier`; noise (G,):
    the standard deviation of a value, taken as known, so that groups count by their precision.
    Maximum likelihood of Tobin's model, by expectation and maximisation: a bound is replaced by the
    mean of a normal beyond it. The likelihood is concave, so that the start does not matter.
    """
    there = ~np.isnan(y)
    exact = there & (signs == 0)
    there &= (exact.sum(axis=2) >= LEAST_EXACT)[:, :, None]
    weights = there / noise[:, None] ** 2
    counts = np.maximum(there.sum(axis=2, keepdims=True), 1)
    centred = np.where(there, x - (there * x).sum(axis=2, keepdims=True) / counts, 0.0)
    spread = (weights * centred**2).sum(axis=(1, 2))
    usable = spread > 0
    spread = np.where(usable, spread, 1.0)
    filled = np.where(there, y, 0.0)
    beyond = np.nonzero(there & (signs != 0))
    bound, sign = filled[beyond], signs[beyond].astype(float)
    deviation = noise[beyond[1]]
    slope = np.zeros(len(y))
    for _ in range(STEPS):
        before = slope
        slope = (weights * centred * filled).sum(axis=(1, 2)) / spread
        if len(bound) == 0 or np.abs(slope - before).max() < NEAR:
            break
        level = filled.sum(axis=2) / counts[:, :, 0]
        fitted = level[beyond[:2]] + slope[beyond[0]] * centred[beyond]
        z = np.clip(sign * (fitted - bound) / deviation, -30, 30)
        hazard = np.exp(-0.5 * z**2 - log_ndtr(z)) / np.sqrt(2 * np.pi)
        filled[beyond] = np.where(
            sign * (fitted - bound) / deviation < -30, bound, fitted + sign * deviation * hazard
        )
    return np.where(usable, slope, np.nan)
