"""How residuals scatter: alike or not, alone or with their cluster, and what fits know by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from clipa_scaling.lawform import Floats
from clipa_scaling.minimise import Bools, Problem

UNLIKE = 1e-3  # of worlds whose rows scatter alike, how many are taken not to


@dataclass(frozen=True)
class Scatter:
    """Variances of a residual: shared within its cluster, and its own; degrees of freedom."""

    shared: float
    alone: float
    degrees: float


def split_variance(residuals: Floats, slopes: Floats, codes: NDArray[np.int64]) -> Scatter:
    """Both variances without bias, from residuals (n,) of a fit with slopes (n, P).

    codes (n,): the cluster of each row. Two sums of squares are set equal to what they are expected
    to be after the fit took its share (C. R. Rao's MINQUE with equal weights; J. Multivariate
    Analysis 1 (1971) 257-275). Degrees are Satterthwaite's; n - P where no rows share a cluster.
    """
    n, size = slopes.shape
    basis = np.linalg.qr(slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-300))[0]
    rest = np.eye(n) - basis @ basis.T
    squares = float(residuals @ residuals)
    together = (codes[:, None] == codes).astype(float)
    if together.sum() == n:
        return Scatter(0.0, squares / max(n - size, 1), float(n - size))
    left = rest @ together @ rest
    system = np.array([[np.trace(left), n - size], [(left * together).sum(), np.trace(left)]])
    shared, alone = np.linalg.lstsq(
        system, np.array([squares, residuals @ together @ residuals]), rcond=None
    )[0]
    if shared <= 0 or n == size:
        return Scatter(0.0, squares / max(n - size, 1), float(n - size))
    if alone < 0:
        shared, alone = squares / system[0, 0], 0.0
    spread = rest @ (shared * together + alone * np.eye(n)) @ rest
    return Scatter(float(shared), float(alone), float(np.trace(spread) ** 2 / (spread**2).sum()))


@dataclass(frozen=True)
class Spread:
    """What B fits know of their errors: what a rise counts, (B, P), on how many degrees, (B,).

    errors: (B, P, P), covariances of the coordinates, where a search for an end begins.
    """

    count: Floats
    degrees: Floats
    errors: Floats


def find_spread(problem: Problem, u: Floats, codes: NDArray[np.int64] | None = None) -> Spread:
    """A rise over count / 2 is a squared t: E[psi^2] / E[psi'] stands in place of a variance.

    Heritier and Ronchetti, JASA 89 (1994) 897-904. Where rows scatter unlike each other, or err
    together, the count is that of the sandwich covariance, parameter by parameter (as Pace, Salvan
    and Sartori, Statistica Sinica 21 (2011) 129-148). codes (n,): the cluster of each row.
    """
    residuals, slopes = problem.slopes(u)
    n, size = slopes.shape[1:]
    pull = np.clip(residuals, -problem.delta, problem.delta)
    local = share_inside(problem, residuals)
    inside = local.mean(axis=1)
    level = (pull**2).sum(axis=1) / max(n - size, 1)
    inverse = invert(slopes.swapaxes(1, 2) @ slopes)
    errors = inverse * (level / inside**2)[:, None, None]
    degrees = np.full(len(u), float(n - size))
    count = np.repeat((level / inside)[:, None], size, axis=1)
    if codes is not None and codes.max() + 1 < n:
        found = [split_variance(*both, codes) for both in zip(pull, slopes, strict=True)]
        shared, alone, degrees = (
            np.array([getattr(item, name) for item in found])
            for name in ("shared", "alone", "degrees")
        )
        sums = (codes == np.arange(codes.max() + 1)[:, None]).astype(float) @ slopes
        middle = shared[:, None, None] * (sums.swapaxes(1, 2) @ sums)
        middle += alone[:, None, None] * (slopes.swapaxes(1, 2) @ slopes)
        errors = inverse @ middle @ inverse / inside[:, None, None] ** 2
        count = diagonals(errors) / diagonals(inverse) * inside[:, None]
        return Spread(count, degrees, errors)
    unlike = np.flatnonzero(scatters_unlike(problem, residuals))
    if len(unlike):
        some = slopes[unlike]
        leverage = ((some @ inverse[unlike]) * some).sum(axis=2)
        squares = (pull[unlike] / np.maximum(1 - leverage, 0.1)) ** 2  # MacKinnon and White's HC3
        bread = invert(some.swapaxes(1, 2) @ (some * local[unlike][..., None]))
        meat = some.swapaxes(1, 2) @ (some * squares[..., None])
        errors[unlike] = bread @ meat @ bread
        count[unlike] = diagonals(errors[unlike]) / diagonals(bread)
    return Spread(count, degrees, errors)


def share_inside(problem: Problem, residuals: Floats) -> Floats:
    """E[psi'] about each residual, (B, n): of a window around it, the share within delta.

    The window is a normal density estimate's, as few residuals may lie within a small delta.
    """
    n = residuals.shape[1]
    sd = 1.4826 * np.median(np.abs(residuals), axis=1, keepdims=True)
    window = np.maximum(1.06 * sd * n**-0.2, 1e-300)
    upper = np.minimum(residuals + window, problem.delta)
    lower = np.maximum(residuals - window, -problem.delta)
    found = np.maximum(upper - lower, 0.0) / (2 * window)
    return np.asarray(np.maximum(found, 1e-6))


def scatters_unlike(problem: Problem, residuals: Floats) -> Bools:
    """Whether the size of residuals depends on where a row is, (B,): n R^2 beyond its 99.9 %.

    H. Glejser's regression, JASA 64 (1969) 316-323, on the logs of the law's variables.
    """
    x = np.column_stack([np.ones(residuals.shape[1]), *problem.logs.values()])
    basis = np.linalg.qr(x)[0]
    size = np.abs(residuals)
    size = size - size.mean(axis=1, keepdims=True)
    explained = ((size @ basis) ** 2).sum(axis=1)
    total = np.maximum((size**2).sum(axis=1), 1e-300)
    return np.asarray(chdtrc(x.shape[1] - 1, x.shape[0] * explained / total) < UNLIKE)


def invert(matrices: Floats) -> Floats:
    """Inverses of curvatures (B, P, P), whatever the units; directions without any are left out."""
    norms = np.sqrt(np.maximum(diagonals(matrices), 1e-300))
    both = norms[:, :, None] * norms[:, None, :]
    return np.asarray(np.linalg.pinv(matrices / both, rcond=1e-13, hermitian=True) / both)


def diagonals(matrices: Floats) -> Floats:
    return np.asarray(np.diagonal(matrices, axis1=1, axis2=2))
