"""Intervals against ordinary least squares, against truth, and where there is none to give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chinchilla import PUBLISHED_ERRORS, load_chinchilla
from scipy.stats import binom
from scipy.stats import t as student

from clipa_scaling.lawform import LawError
from clipa_scaling.laws import additive, loglinear, multiplicative, power, trend
from clipa_scaling.lawworlds import STUDY, WORLDS, WORST, World, cover, cross
from clipa_scaling.profile import intervals, profile
from clipa_scaling.solve import Options, Points, fit

SQUARES = Options(delta=np.inf)


def plane(seed: int = 0) -> tuple[Points, np.ndarray]:
    """A log-linear study with noise, and its design matrix."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(80), *(-np.log(STUDY[role]) for role in "NDT")])
    y = np.exp(x @ [8.0, 0.2, 0.25, 0.1] + 0.02 * rng.normal(size=80))
    return Points(STUDY, y), x


def test_a_planes_intervals_are_those_of_least_squares() -> None:
    points, x = plane()
    found = intervals(fit(points, loglinear(), SQUARES))
    theta, squares, *_ = np.linalg.lstsq(x, np.log(points.y), rcond=None)
    errors = np.sqrt(squares[0] / 76 * np.diagonal(np.linalg.inv(x.T @ x)))
    reach = student.ppf(0.975, 76) * errors
    for interval, middle, part in zip(found.values(), theta, reach, strict=True):
        assert (interval.low, interval.high) == pytest.approx(
            (middle - part, middle + part), abs=3e-3 * part
        )
        assert interval.identified


def test_a_profile_is_a_parabolas_root_and_crosses_at_the_interval() -> None:
    points, _ = plane()
    found = profile(fit(points, loglinear(), SQUARES), "gamma")
    half = (found.interval.high - found.interval.low) / 2
    distance = np.abs(found.values - found.interval.estimate) / half
    assert found.rise == pytest.approx(found.quantile * distance, rel=0.01, abs=1e-5)
    assert found.values.min() < found.interval.low < found.interval.high < found.values.max()


def test_rows_of_one_cluster_are_no_independent_rows() -> None:
    """Every run evaluated four times: the interval is that of its mean, on the degrees of runs."""
    points, _ = plane()
    four = points.take(np.repeat(np.arange(80), 4))
    once = intervals(fit(points, loglinear(), SQUARES))["gamma"]
    naive = replace(four, cluster=np.arange(320).astype(str))
    narrow = intervals(fit(naive, loglinear(), SQUARES))["gamma"]
    assert narrow.high - narrow.low < 0.55 * (once.high - once.low)
    clustered = intervals(fit(four, loglinear(), SQUARES))["gamma"]
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=0.02)


FIRST = [*{world.law: world for world in reversed(WORLDS)}.values()]


@pytest.mark.parametrize("world", FIRST, ids=lambda world: world.law)
def test_intervals_hold_the_truth_as_often_as_they_say(world: World) -> None:
    """80 worlds: fewer or more than 95 % in a way that chance gives once in 10,000 fails."""
    worlds = 80
    held = cover(world, world.draw(worlds, np.random.default_rng(7))).held
    low, high = binom.ppf(1e-4, worlds, 0.95), binom.ppf(1 - 1e-4, worlds, 0.95)
    assert (low <= held).all() and (held <= high).all(), held


def test_the_worlds_intervals_are_those_of_a_users_fit() -> None:
    world = WORLDS[0]
    y = world.draw(3, np.random.default_rng(3))
    found = cover(world, y)
    for at in range(3):
        study = fit(replace(world.points(), y=y[at]), world.form(), Options("logit"))
        for j, interval in enumerate(intervals(study).values()):
            ends = (found.low[at, j], found.high[at, j])
            assert (interval.low, interval.high) == pytest.approx(ends, rel=0.02)


def test_where_rows_scatter_unlike_the_intervals_know() -> None:
    """The Chinchilla points: half-widths are near the published errors, which resampled rows."""
    found = intervals(fit(load_chinchilla(), additive(("N", "D"))))
    for name in ("alpha", "beta", "E"):
        half = (found[name].high - found[name].low) / 2 / student.ppf(0.975, 235)
        assert half == pytest.approx(PUBLISHED_ERRORS[name], rel=0.3)


def test_the_trend_of_tokens_is_a_law_only_where_there_is_one() -> None:
    """Null worlds, of another form and of its own, and one where N T^p makes larger models better.

    Of 30 worlds of slope 0, eight below 0 would come by chance once in 100,000.
    """
    primary = WORLDS[0]
    own = replace(primary, theta=(0.3, 0.44, 0.0, 0.25, 0.6, 0.3, 1.2, 0.12))
    other = next(world for world in WORLDS if world.law == "bounded")
    said = []
    for world in (own, other, primary):
        began = fit(world.points(), trend(worst=WORST), Options("logit"))
        study = World("trend", world.x, tuple(began.theta), "logit", world.seed_sd)
        found = cover(study, world.draw(30, np.random.default_rng(0)))
        said.append((found.high[:, found.names.index("q1")] < 0).sum())
    assert said[0] < 8 and said[1] < 8
    assert said[2] == 30


# What is not identified


def test_a_floor_that_no_data_show_is_bounded_from_above_only() -> None:
    """A straight line in logs: any floor from 0 to some size will do."""
    x = cross(N=np.array([0.5e9, 1.8e9, 4e9, 14e9]), T=np.array([1.0, 4, 16, 36, 64, 144, 576]))
    noise = 0.01 * np.random.default_rng(0).normal(size=28)
    y = 2.0 * x["N"] ** -0.07 * x["T"] ** -0.015 * np.exp(noise)
    found = intervals(fit(Points(x, y), multiplicative(("N", "T")), SQUARES))
    assert found["E"].low == 0.0 and found["E"].high > 0.1
    assert found["alpha"].high > 2 * found["alpha"].low, "it depends on the floor"


def test_a_worst_link_that_any_data_would_give_is_said_to_be_open() -> None:
    """Errors far below their worst show no saturation: kappa has no end, and says why."""
    world = WORLDS[0]
    theta = np.array([*world.theta[:-2], 1.0, 0.02])
    theta[[0, 3]] *= 0.05
    low = replace(world, theta=tuple(theta))
    y = low.draw(1, np.random.default_rng(0))[0]
    found = intervals(fit(replace(low.points(), y=y), low.form(), Options("logit")))["kappa"]
    assert not found.identified
    assert "fits about as well" in found.reason or "no upper end below 200" in found.reason


def test_a_study_that_says_little_gives_no_narrow_interval() -> None:
    """One doubling of compute: either the status warns, or alpha's interval spans a factor of 5."""
    x = {"C": np.geomspace(1e18, 2e18, 8)}
    for seed in range(3):
        y = 0.5 * (x["C"] / 1e18) ** -0.01 + 1e-4 * np.random.default_rng(seed).normal(size=8)
        found = fit(Points(x, y), power(), SQUARES)
        alpha = intervals(found)["alpha"]
        assert found.status.kind != "converged" or alpha.high > 5 * alpha.low


def test_a_fit_that_is_not_identified_has_no_intervals() -> None:
    x = cross(N=STUDY["N"][:3] * [1, 2, 3], D=np.array([1e9]))
    found = fit(Points(x, np.array([0.5, 0.4, 0.3])), additive(("N", "D")))
    for interval in intervals(found).values():
        assert np.isnan([interval.estimate, interval.low, interval.high]).all()
        assert "D (samples) does not vary" in interval.reason
    with pytest.raises(LawError, match="does not vary"):
        profile(found, "alpha")
    with pytest.raises(LawError, match="additive has A, alpha, B, beta, E"):
        profile(found, "kappa")
