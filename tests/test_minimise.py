"""The search itself, against scipy's and on objectives whose minimum is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from chinchilla import OBJECTIVE, load_chinchilla
from scipy.optimize import minimize

from clipa_scaling.fitted import centre, make_problem
from clipa_scaling.lawform import Floats
from clipa_scaling.laws import additive, loglinear
from clipa_scaling.minimise import Problem, even_numbers, minimise
from clipa_scaling.scatter import split_variance


def chinchilla(delta: float = 1e-3) -> tuple[Problem, Floats]:
    points, law = load_chinchilla(), additive(("N", "D"))
    means = {role: float(np.log(values).mean()) for role, values in points.x.items()}
    problem = make_problem(points, law, means, "log", delta)
    uniform = even_numbers(8, 5, 3)
    return problem, law.to_coordinates(law.starts(uniform, centre(points, law, means), points.y))


def test_the_gradient_and_the_curvature_are_the_objectives() -> None:
    problem, u = chinchilla(delta=0.02)
    gradient = problem.gradient(*problem.slopes(u))
    curvature = problem.curvature(u)
    for at in range(5):
        step = np.zeros(5)
        step[at] = 1e-5
        ahead, behind = problem.residuals(u + step), problem.residuals(u - step)
        slope = (problem.objective(ahead) - problem.objective(behind)) / 2e-5
        assert gradient[:, at] == pytest.approx(slope, rel=1e-4, abs=1e-6)
        change = problem.gradient(*problem.slopes(u + step))
        change = (change - problem.gradient(*problem.slopes(u - step))) / 2e-5
        assert curvature[:, at] == pytest.approx(change, rel=0.05, abs=0.05)


@pytest.mark.parametrize("delta", [1e-3, 0.01, np.inf])
def test_no_minimum_is_above_scipys(delta: float) -> None:
    problem, u = chinchilla(delta)
    found = minimise(problem, u)

    def objective(at: Floats) -> float:
        return float(problem.objective(problem.residuals(at[None]))[0] * 1e3)

    for start, reached in zip(u, found.objective, strict=True):
        theirs = minimize(objective, start, method="Nelder-Mead", options={"maxiter": 400})
        assert reached * 1e3 <= theirs.fun * (1 + 1e-6)
    assert (found.decrement < 1e-10).all()


@pytest.mark.parametrize("factor", [1 / 240, 1e6])
def test_a_loss_that_is_averaged_ends_where_a_summed_one_does(factor: float) -> None:
    """The published fit's mistake was to average, and to stop early (arXiv:2404.10102)."""
    problem, u = chinchilla()
    summed = minimise(problem, u)
    scaled = minimise(replace(problem, weights=factor * problem.weights), u)
    assert scaled.u == pytest.approx(summed.u, rel=1e-6)
    assert scaled.objective == pytest.approx(factor * summed.objective, rel=1e-10)
    assert summed.objective == pytest.approx(OBJECTIVE, rel=1e-9)


def test_what_is_fixed_stays_and_what_hits_a_bound_is_held_there() -> None:
    problem, u = chinchilla()
    law = problem.law
    *front, floor = law.parameters
    tight = replace(problem, law=replace(law, parameters=(*front, replace(floor, high=1.5))))
    found = minimise(tight, u)
    assert found.u[:, 4] == pytest.approx(1.5)
    assert found.held[:, 4].all() and not found.held[:, :4].any()
    still = minimise(problem, u, np.array([False, True, False, False, False]))
    assert still.u[:, 1].tolist() == u[:, 1].tolist()
    assert still.held[:, 1].all()


def test_a_start_without_a_value_is_left_where_it_is() -> None:
    law = replace(loglinear(("N",)), on_scale=False)  # the log of a negative number
    x = np.linspace(-1.0, 1, 5)
    problem = Problem(law, {"N": x}, np.zeros(5), np.ones(5), np.ones(5), "log", 1.0)
    found = minimise(problem, np.array([[-3.0, 0.0], [3.0, 0.5]]))
    assert np.isinf(found.objective[0])
    assert found.objective[1] == pytest.approx(0, abs=1e-20)
    assert found.u[1] == pytest.approx([1, 0], abs=1e-9)


def test_even_numbers_are_more_even_than_random_ones() -> None:
    """In each of 64 boxes of the unit cube lie nearly as many."""
    points = even_numbers(4096, 3, 0)
    boxes = np.histogramdd(points, bins=(4, 4, 4), range=[(0, 1)] * 3)[0]
    random = np.histogramdd(np.random.default_rng(0).random((4096, 3)), (4, 4, 4))[0]
    assert np.ptp(boxes) < np.ptp(random) / 3


def test_variances_of_clusters_are_without_bias() -> None:
    """A plane through 12 clusters of 4: the fit hides much of what is shared."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(12), 4)
    x = np.column_stack([np.ones(48), rng.normal(size=12)[codes], rng.normal(size=(48, 2))])
    rest = np.eye(48) - x @ np.linalg.pinv(x)
    found = []
    for _ in range(600):
        errors = 2.0 * rng.normal(size=12)[codes] + rng.normal(size=48)
        found.append(split_variance(rest @ errors, x, codes))
    shared = np.array([item.shared for item in found])
    alone = np.array([item.alone for item in found])
    assert shared.mean() == pytest.approx(4.0, abs=4 * shared.std() / 600**0.5)
    assert alone.mean() == pytest.approx(1.0, abs=4 * alone.std() / 600**0.5)
    assert 8 < np.median([item.degrees for item in found]) < 20, "10 contrasts between clusters"
    single = split_variance(rest @ errors, x, np.arange(48))
    assert (single.shared, single.degrees) == (0.0, 44.0)
