"""How many times the samples a short length needs: model-free, and legal in every scale.

acc(N, T, D) = acc(N, T_full, D / m). Any monotone change of the measure leaves m as it is, but for
the interpolation between sample counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Signs = NDArray[np.int8]  # 0: the value itself; 1: the truth is larger than it; -1: smaller

SAME = 1e-9  # of logarithms: rounding


def isotonic(values: Floats, weights: Floats) -> Floats:
    """Each row's nondecreasing least-squares fit, the weights over columns; values (B, K).

    By the min-max formula, which is K**2 vectorised steps whatever the number of rows.
    """
    count = values.shape[1]
    sums = np.cumsum(np.pad(values * weights, ((0, 0), (1, 0))), axis=1)
    totals = np.concatenate([[0.0], np.cumsum(weights)])
    fitted = np.empty_like(values)
    # smallest[:, i]: over all ends from the present column on, of the block that starts at i.
    smallest = np.full_like(values, np.inf)
    for end in reversed(range(count)):
        starts = slice(0, end + 1)
        means = (sums[:, [end + 1]] - sums[:, starts]) / (totals[end + 1] - totals[starts])
        smallest[:, starts] = np.minimum(smallest[:, starts], means)
        fitted[:, end] = smallest[:, starts].max(axis=1)
    return fitted


def invert(x: Floats, values: Floats, weights: Floats, queries: Floats) -> tuple[Floats, Signs]:
    """Where each row's monotone curve through (x, values) reaches its queries, and censoring.

    x (K,) increasing; values (B, K); weights (K,); queries (B, Q), NaN where there is none. Columns
    that the isotonic fit pools become one knot at their mean x, since a flat stretch reaches its
    value nowhere in particular. Outside the fitted values the answer is the end of x as a bound.
    """
    fitted = isotonic(values, weights)
    rises = np.diff(fitted, axis=1) > 0
    patterns, which = np.unique(rises, axis=0, return_inverse=True)
    found = np.full(queries.shape, np.nan)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(which.reshape(-1) == number)
        block = np.concatenate([[0], np.cumsum(pattern)])
        sizes = np.bincount(block, weights)
        knots = np.bincount(block, weights * x) / sizes
        first = np.flatnonzero(np.concatenate([[True], pattern]))
        found[rows] = interpolate(fitted[np.ix_(rows, first)], knots, queries[rows])
    signs = np.zeros(queries.shape, np.int8)
    signs[queries > fitted[:, [-1]]] = 1
    signs[queries < fitted[:, [0]]] = -1
    found = np.where(signs > 0, x[-1], np.where(signs < 0, x[0], found))
    return found, signs


def interpolate(y: Floats, x: Floats, queries: Floats) -> Floats:
    """x at each row's queries, by a monotone cubic in y (Fritsch and Butland, as scipy's PCHIP).

    y (B, K) increasing, x (K,), queries (B, Q); no sense outside the range, which is the caller's.
    Cubic and not linear, since what is left of a change of scale falls with the spacing's cube.
    """
    if y.shape[1] == 1:
        return np.where(np.isnan(queries), np.nan, x[0])
    steps = np.diff(y, axis=1)
    slopes = np.diff(x) / steps
    tangents = np.empty_like(y)
    if y.shape[1] == 2:
        tangents[:] = slopes
    else:
        before, after = steps[:, :-1], steps[:, 1:]
        one, two = 2 * after + before, after + 2 * before
        tangents[:, 1:-1] = (one + two) / (one / slopes[:, :-1] + two / slopes[:, 1:])
        tangents[:, 0] = edge(steps[:, 0], steps[:, 1], slopes[:, 0], slopes[:, 1])
        tangents[:, -1] = edge(steps[:, -1], steps[:, -2], slopes[:, -1], slopes[:, -2])
    at = (queries[:, :, None] >= y[:, None, 1:-1]).sum(axis=2)
    low, step = np.take_along_axis(y, at, 1), np.take_along_axis(steps, at, 1)
    share = (queries - low) / step
    begin, end = (np.take_along_axis(tangents, at + more, 1) * step for more in (0, 1))
    rise = x[at + 1] - x[at]
    cubic = begin + end - 2 * rise
    return np.asarray(
        x[at] + share * (begin + share * (3 * rise - 2 * begin - end + share * cubic))
    )


def edge(step: Floats, next_step: Floats, slope: Floats, next_slope: Floats) -> Floats:
    """The three-point tangent at an end, kept between 0 and three times the end's slope."""
    tangent = ((2 * step + next_step) * slope - step * next_slope) / (step + next_step)
    return np.clip(tangent, 0.0, 3 * slope)


def multipliers(
    log_samples: Floats, values: Floats, weights: Floats, full: int
) -> tuple[Floats, Signs]:
    """log m and its censoring, both (B, I, J, K), for I sizes, J lengths and K sample counts.

    values (B, I, J, K) in any increasing scale, NaN where there is no run; weights (I, J, K) say
    how many runs a value is the mean of. full: the index of the reference among the lengths; its
    own m is 1. NaN where a size has no reference.
    """
    result = np.full(values.shape, np.nan)
    signs = np.zeros(values.shape, np.int8)
    for size in range(values.shape[1]):
        known = weights[size, full] > 0
        if not known.any():
            continue
        rows = values[:, size]
        queries = rows.reshape(len(rows), -1)
        reference = rows[:, full][:, known]
        reached, side = invert(log_samples[known], reference, weights[size, full][known], queries)
        result[:, size] = log_samples - reached.reshape(rows.shape)
        result[:, size][np.isnan(rows)] = np.nan
        # Short of the reference's least samples: fewer are enough there, so m is larger yet.
        signs[:, size] = -side.reshape(rows.shape)
        result[:, size, full] = np.where(known, 0.0, np.nan)
        signs[:, size, full] = 0
    return result, signs


def along(
    log_samples: Floats, values: Floats, signs: Signs, targets: Floats
) -> tuple[Floats, Signs]:
    """log m and its censoring, (B, G, I, J), at sample counts between those of the runs.

    values, signs (B, I, J, K); targets (G, I): natural logarithms, one for each size. Linear in the
    logarithm between neighbours; NaN outside a row's own counts, or between bounds that oppose.
    """
    rows, sizes, lengths, _ = values.shape
    result = np.full((rows, len(targets), sizes, lengths), np.nan)
    sides = np.zeros(result.shape, np.int8)
    for size, length in np.ndindex(sizes, lengths):
        known = np.flatnonzero(~np.isnan(values[:, size, length]).all(axis=0))
        inside, left, right, share = bracket(log_samples[known], targets[:, size])
        low, high = (
            values[:, size, length][:, known[left]],
            values[:, size, length][:, known[right]],
        )
        one, two = signs[:, size, length][:, known[left]], signs[:, size, length][:, known[right]]
        mixed = np.where(one * two < 0, np.nan, (1 - share) * low + share * high)
        result[:, inside, size, length] = mixed
        sides[:, inside, size, length] = np.sign(one + two)
    return result, sides


def bracket(x: Floats, targets: Floats) -> tuple[Places, Places, Places, Floats]:
    """Which targets lie within x, the places of x around each, and how far it is to the second.

    A target at a place of x, to a billionth, has that place on both sides.
    """
    ends = (x[0] - SAME, x[-1] + SAME) if len(x) else (np.inf, -np.inf)
    inside = np.flatnonzero((targets >= ends[0]) & (targets <= ends[1]))
    wanted = targets[inside]
    right = np.searchsorted(x, wanted - SAME)
    at_place = np.abs(x[right] - wanted) <= SAME
    left = np.where(at_place, right, right - 1)
    span = np.where(at_place, 1.0, x[right] - x[left])
    return inside, left, right, np.where(at_place, 0.0, (wanted - x[left]) / span)
