"""Bootstraps against published errors, least squares and the noise that was put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chinchilla import PUBLISHED_ERRORS, load_chinchilla
from scipy.stats import t as student

from clipa_scaling.bootstrap import bootstrap
from clipa_scaling.lawform import LawError
from clipa_scaling.laws import additive, loglinear
from clipa_scaling.lawworlds import SMALL, WORLDS, cross
from clipa_scaling.profile import intervals
from clipa_scaling.rollout import predict_interval
from clipa_scaling.solve import Options, Points, fit


def test_errors_of_the_chinchilla_points_are_the_published() -> None:
    found = bootstrap(fit(load_chinchilla(), additive(("N", "D"))), draws=1000)
    assert found.method == "clusters"
    errors = dict(zip(found.fit.law.names, found.params.std(axis=0), strict=True))
    assert errors == pytest.approx(PUBLISHED_ERRORS, rel=0.25)
    ratio = found.params[:, 3] / (found.params[:, 1] + found.params[:, 3])
    assert (ratio.mean(), ratio.std()) == pytest.approx((0.513, 0.020), rel=0.1)


def small_plane() -> Points:
    x = {role: values for role, values in SMALL.items()}
    noise = 0.02 * np.random.default_rng(4).normal(size=15)
    return Points(x, 3.0 * x["N"] ** -0.1 * x["T"] ** -0.2 * np.exp(noise))


def test_few_clusters_are_drawn_from_the_noise_with_its_degrees_of_freedom() -> None:
    """A plane's draws are then Student's t about least squares."""
    points = small_plane()
    study = fit(points, loglinear(("N", "T")), Options(delta=np.inf))
    found = bootstrap(study, draws=6000)
    assert (found.method, found.scatter.degrees) == ("parametric", 12.0)
    x = np.column_stack([np.ones(15), -np.log(points.x["N"]), -np.log(points.x["T"])])
    _, squares, *_ = np.linalg.lstsq(x, np.log(points.y), rcond=None)
    errors = np.sqrt(squares[0] / 12 * np.diagonal(np.linalg.inv(x.T @ x)))
    low, high = found.interval("gamma")
    assert high - low == pytest.approx(2 * student.ppf(0.975, 12) * errors[2], rel=0.06)
    exact = intervals(study)["gamma"]
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.1 * (high - low))


def test_what_rows_of_a_root_share_is_drawn_together() -> None:
    """Four roots a size: a common shift of a root's rows widens the slope of N, not of D."""
    rng = np.random.default_rng(0)
    x = cross(root=np.arange(1.0, 13), D=np.array([1e8, 3e8, 1e9]))
    root = x.pop("root").astype(int) - 1
    x["N"] = np.array([2e7, 8e7, 3e8])[root % 3]
    noise = 0.05 * rng.normal(size=12)[root] + 0.005 * rng.normal(size=36)
    y = 5.0 * x["N"] ** -0.1 * x["D"] ** -0.05 * np.exp(noise)
    points = Points(x, y, cluster=np.array([f"root {at}" for at in root]))
    law, options = loglinear(("N", "D")), Options(delta=np.inf)
    together, apart = (
        bootstrap(fit(rows, law, options), draws=2000)
        for rows in (points, replace(points, cluster=np.arange(36).astype(str)))
    )
    assert together.method == "parametric"
    assert together.scatter.shared > 10 * together.scatter.alone
    wider = together.params.std(axis=0) / apart.params.std(axis=0)
    assert wider[1] > 1.3 and wider[2] < 0.5


def test_the_next_runs_lie_in_the_prediction_interval() -> None:
    """Of 40 studies' predictions, most of 200 new runs at a place that was not fitted."""
    world = next(world for world in WORLDS if world.law == "power")
    place = {"C": np.array([3e22])}
    ahead = Points(place, np.array([0.5]))  # its y is not looked at
    options = Options(delta=np.inf, starts=256, keep=2)
    truth = fit(world.points(), world.form(), options).predict(place)[0]
    inside = []
    rng = np.random.default_rng(2)
    for y in world.draw(40, rng):
        found = fit(replace(world.points(), y=y), world.form(), options)
        low, high = predict_interval(found, ahead, 300)
        new = truth * np.exp(world.seed_sd * rng.normal(size=200))
        inside.append(((low <= new) & (new <= high)).mean())
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_draws_repeat_and_unknown_names_are_refused() -> None:
    study = fit(small_plane(), loglinear(("N", "T")), Options(delta=np.inf))
    assert np.array_equal(bootstrap(study, 50).theta, bootstrap(study, 50).theta)
    assert not np.array_equal(bootstrap(study, 50).theta, bootstrap(study, 50, seed=1).theta)
    with pytest.raises(LawError, match="allowed: a, alpha, gamma"):
        bootstrap(study, 50).interval("beta")
    unknown = fit(small_plane().take(np.arange(3)), loglinear(("N", "T")))
    with pytest.raises(LawError, match="has no draws"):
        bootstrap(unknown)
