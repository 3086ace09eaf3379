"""How much of the scatter of residuals rows of one cluster share, such as branches of one run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


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
    basis = np.linalg.svd(slopes / np.maximum(np.linalg.norm(slopes, axis=0), 1e-300))[0]
    rest = np.eye(n) - basis[:, :size] @ basis[:, :size].T
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
