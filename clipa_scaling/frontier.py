"""The samples at which each size is the best use of its compute, from the full length's runs."""

from __future__ import annotations

import numpy as np

from clipa_scaling.multiplier import Floats, interpolate, isotonic

STEPS = 200  # of compute, over what a size and its neighbours share


def find_optimal(
    log_size: Floats, log_flops: Floats, values: Floats, weights: Floats
) -> tuple[list[float], list[str]]:
    """Each size's compute-optimal log FLOPs, or NaN and why it has none.

    log_size (I,) increasing; log_flops (I, K) of whole pipelines at full length; values (I, K): an
    increasing scale of the measure, NaN where there is no run; weights (I, K): how many runs. At
    equal compute, the parabola through three neighbouring sizes in log N (arXiv:2203.15556,
    section 3.2) peaks at N when N is optimal: the compute at which its derivative there turns from
    falling to rising, isotonic and then linear in log FLOPs. Each size's curve is isotonic and then
    a monotone cubic. Nothing is extrapolated: neither sizes nor compute.
    """
    curves = [find_curve(*rows) for rows in zip(log_flops, values, weights, strict=True)]
    found, because = [], []
    for size in range(len(log_size)):
        first = min(max(size - 1, 0), len(log_size) - 3)
        near = range(first, first + 3)
        if first < 0:
            found.append(float("nan"))
            because.append("needs three sizes")
            continue
        value, why = turn(log_size[size], log_size[list(near)], [curves[at] for at in near])
        found.append(value)
        because.append(why)
    return found, because


Curve = tuple[Floats, Floats]  # log FLOPs and values, both increasing


def find_curve(log_flops: Floats, values: Floats, weights: Floats) -> Curve:
    """The knots of a size's increasing curve; what the isotonic fit pools is one, at its mean."""
    known = ~np.isnan(values) & ~np.isnan(log_flops)
    if not known.any():
        return np.empty(0), np.empty(0)
    x, weight = log_flops[known], weights[known]
    fitted = isotonic(values[known][None], weight)[0]
    block = np.concatenate([[0], np.cumsum(np.diff(fitted) > 0)])
    knots = np.bincount(block, weight * x) / np.bincount(block, weight)
    return knots, fitted[np.flatnonzero(np.diff(block, prepend=-1))]


def turn(log_size: float, sizes: Floats, curves: list[Curve]) -> tuple[float, str]:
    """The log FLOPs at which the parabola over three sizes peaks at one of them, or why not."""
    low = max((knots[0] for knots, _ in curves if len(knots)), default=np.nan)
    high = min((knots[-1] for knots, _ in curves if len(knots)), default=np.nan)
    if min(len(knots) for knots, _ in curves) < 2 or not low < high:
        return float("nan"), "shares no compute with the two sizes nearest to it"
    compute = np.linspace(low, high, STEPS)
    values = np.array([interpolate(knots[None], y, compute[None])[0] for knots, y in curves])
    derivative, bend = parabola(log_size, sizes, values)
    slopes = isotonic(derivative[None], np.ones(STEPS))[0]
    if slopes[-1] < 0:
        return float("nan"), "is too large for the most compute that its neighbours share"
    if slopes[0] > 0:
        return float("nan"), "is too small for the least compute that its neighbours share"
    at = int(np.searchsorted(slopes, 0.0))
    left = max(at - 1, 0)
    span = slopes[at] - slopes[left]
    share = -slopes[left] / span if span > 0 else 0.0
    if bend[at] >= 0:
        return float("nan"), "is no peak between its neighbours at equal compute"
    return float(compute[left] + share * (compute[at] - compute[left])), ""


def parabola(at: float, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """First and second derivative at a place of the parabolas through three points, y (3, S)."""
    one, two = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    second = (two - one) / (x[2] - x[0])
    return one + second * (2 * at - x[0] - x[1]), 2 * second
