"""Compute-optimal samples against surfaces whose optimum is known."""

from __future__ import annotations

import numpy as np
import pytest

from clipa_scaling.frontier import find_optimal
from clipa_scaling.multiplier import Floats

LOG_SIZE = np.log([20.0, 60, 180, 540])
LOG_SAMPLES = np.linspace(0, 16, 33)


def surface(size: Floats, compute: Floats) -> Floats:
    """At each compute a parabola in log N, whose peak is at log N = compute / 2."""
    return np.asarray(0.5 * compute - 0.05 * (size - 0.5 * compute) ** 2)


def study(samples: Floats) -> tuple[Floats, Floats, Floats]:
    """FLOPs N D."""
    compute = LOG_SIZE[:, None] + samples
    values = surface(LOG_SIZE[:, None], compute)
    return compute, values, np.ones(values.shape)


def test_the_optimum_of_a_parabola_is_exact_at_every_size() -> None:
    found, because = find_optimal(LOG_SIZE, *study(LOG_SAMPLES))
    assert found == pytest.approx(2 * LOG_SIZE, abs=0.01)
    assert because == [""] * 4


def test_a_size_that_is_best_at_no_compute_of_the_grid_has_no_point() -> None:
    short = LOG_SAMPLES[LOG_SAMPLES <= 5.5]
    found, because = find_optimal(LOG_SIZE, *study(short))
    assert np.isnan(found).tolist() == [False, False, True, True]
    assert because[3] == "is too large for the most compute that its neighbours share"
    late = LOG_SAMPLES[LOG_SAMPLES >= 4]
    found, because = find_optimal(LOG_SIZE, *study(late))
    assert np.isnan(found).tolist() == [True, True, False, False]
    assert because[0] == "is too small for the least compute that its neighbours share"


def test_sizes_without_shared_compute_or_neighbours_say_so() -> None:
    _, because = find_optimal(LOG_SIZE, *study(np.array([0.0, 1])))
    assert set(because) == {"shares no compute with the two sizes nearest to it"}
    compute, values, weights = study(LOG_SAMPLES)
    found, because = find_optimal(LOG_SIZE[:2], compute[:2], values[:2], weights[:2])
    assert np.isnan(found).all() and because == ["needs three sizes"] * 2
    values[0] = np.nan
    _, because = find_optimal(LOG_SIZE, compute, values, weights)
    assert because[0] == "shares no compute with the two sizes nearest to it"


def test_a_dip_between_sizes_is_no_optimum() -> None:
    compute, values, weights = study(LOG_SAMPLES)
    dip = 2 * 0.5 * compute - values
    found, because = find_optimal(LOG_SIZE, compute, dip, weights)
    assert np.isnan(found).all() and all(because)


def test_noise_in_curves_that_fall_here_and_there_moves_the_optimum_little() -> None:
    compute, values, weights = study(LOG_SAMPLES)
    noisy = values + 0.01 * np.random.default_rng(0).normal(size=values.shape)
    found, _ = find_optimal(LOG_SIZE, compute, noisy, weights)
    assert found == pytest.approx(2 * LOG_SIZE, abs=0.5)
