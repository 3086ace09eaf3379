"""Fits against known optima and truths, in any units; and what cannot be fitted is said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from chinchilla import OBJECTIVE, OPTIMUM, load_chinchilla

from clipa_scaling.lawform import LawError
from clipa_scaling.laws import additive, loglinear, multiplicative, per_size, power, primary
from clipa_scaling.lawworlds import SIZES, STUDY, WORLDS, World, cross, recover
from clipa_scaling.solve import Fit, Options, Points, fit

CHINCHILLA = additive(("N", "D"))


def test_the_chinchilla_points_give_the_global_optimum() -> None:
    found = fit(load_chinchilla(), CHINCHILLA)
    assert found.objective <= OBJECTIVE * (1 + 1e-9)
    assert found.params == pytest.approx(OPTIMUM, rel=1e-4)
    assert (str(found.status), found.starts_reached) == ("converged", 16)


def test_units_order_and_starts_change_nothing() -> None:
    points = load_chinchilla()
    found = fit(points, CHINCHILLA)
    millions = replace(points, x={**points.x, "N": points.x["N"] / 1e6})
    small = fit(millions, CHINCHILLA)
    assert small.objective == pytest.approx(found.objective, rel=1e-10)
    exponents = ("B", "alpha", "beta", "E")
    for name in exponents:
        assert small.params[name] == pytest.approx(found.params[name], rel=1e-6)
    amplitude = found.params["A"] / 1e6 ** found.params["alpha"]
    assert small.params["A"] == pytest.approx(amplitude, rel=1e-5)
    shuffled = points.take(np.random.default_rng(0).permutation(240))
    assert fit(shuffled, CHINCHILLA).params == pytest.approx(found.params, rel=1e-6)
    assert shuffled.digest() == points.digest() != millions.digest()
    assert fit(points, CHINCHILLA, Options(seed=5)).params == pytest.approx(found.params, rel=1e-6)


@pytest.mark.parametrize(
    "world", WORLDS, ids=lambda world: f"{world.law}-{len(world.x['T' if 'T' in world.x else 'C'])}"
)
def test_without_noise_every_law_is_recovered(world: World) -> None:
    assert recover(world) < 1e-6


@pytest.mark.parametrize("scale", ["log", "raw", "logit"])
def test_the_scale_does_not_matter_without_noise(scale: str) -> None:
    world = WORLDS[0]
    found = fit(world.points(), world.form(), Options(scale=scale))
    assert found.params == pytest.approx(world.truth(), rel=1e-6)


def test_one_wild_row_hardly_moves_a_robust_fit() -> None:
    world = WORLDS[0]
    points = world.points()
    y = world.draw(1, np.random.default_rng(0))[0]
    wild = y.copy()
    wild[7] *= 0.5
    options = Options(scale="logit")
    clean = fit(replace(points, y=y), world.form(), options).params["alpha"]
    robust = fit(replace(points, y=wild), world.form(), options).params["alpha"]
    squares = fit(replace(points, y=wild), world.form(), replace(options, delta=np.inf))
    assert abs(robust - clean) < 0.2 * abs(squares.params["alpha"] - clean)


def test_only_the_ratios_of_noise_count() -> None:
    x = {"D": np.geomspace(1e6, 1e9, 9)}
    y = 2.0 * x["D"] ** -0.1 * np.exp(0.05 * np.random.default_rng(0).normal(size=9))
    options = Options(delta=np.inf)
    plain = fit(Points(x, y), loglinear(("D",)), options).params
    even = fit(Points(x, y, noise=0.3 * y), loglinear(("D",)), options).params
    assert even == pytest.approx(plain, rel=1e-8)
    spread = np.where(np.arange(9) < 7, 1.0, 1e4) * y
    some = fit(Points(x, y, noise=spread), loglinear(("D",)), options).params
    wanted = np.polyfit(np.log(x["D"][:7]), np.log(y[:7]), 1)
    assert [-some["alpha" if "alpha" in some else "beta"], some["a"]] == pytest.approx(
        wanted, rel=1e-5
    )


def test_aicc_is_the_textbooks_and_prefers_the_truth() -> None:
    world = WORLDS[0]
    points = replace(world.points(), y=world.draw(1, np.random.default_rng(1))[0])
    options = Options(scale="logit", delta=np.inf)
    right, wrong = (fit(points, law, options) for law in (world.form(), loglinear()))
    assert right.aicc < wrong.aicc
    n, k = len(points), 5  # level, three slopes, variance
    z = np.log(points.y / (1 - points.y))
    x = np.column_stack([np.ones(n), *(np.log(points.x[role]) for role in "NDT")])
    squares = float(np.linalg.lstsq(x, z, rcond=None)[1][0])
    wanted = n * np.log(squares / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
    assert wrong.aicc == pytest.approx(wanted)


# What cannot be fitted


def told(x: dict[str, np.ndarray]) -> str:
    points = Points(x, np.linspace(0.3, 0.6, len(next(iter(x.values())))))
    found = fit(points, primary(worst=0.999))
    assert found.status.kind == "not identified"
    assert np.isnan(list(found.params.values())).all(), "no number for what is unknown"
    assert np.isnan(found.objective)
    return str(found.status)


def test_a_design_that_cannot_identify_a_law_is_told_by_its_axis() -> None:
    three = np.array([16.0, 49, 196])
    constant = cross(N=SIZES, D=np.array([1e9]), T=three)
    assert "D (samples) does not vary: 1e+09; needed: 3 values" in told(constant)
    pair = cross(N=SIZES, D=np.array([1e8, 1e9, 1e10]), T=np.array([49.0, 196]))
    assert "T (image tokens) has 2 values only: 49, 196; needed: 3" in told(pair)
    tied = cross(N=SIZES, T=three)
    assert "N and D move as one" in told({**tied, "D": 20 * tied["N"]})
    few = {role: values[:8] for role, values in STUDY.items()}
    few["N"], few["D"] = np.resize(SIZES, 8), np.resize([1e8, 1e9, 1e10], 8)
    assert "8 rows for 8 parameters; needed: 9 or more" in told(few)
    assert "no column for T (image tokens)" in told({"N": STUDY["N"], "D": STUDY["D"]})


def test_a_floor_that_runs_away_is_at_its_bound() -> None:
    """As in arXiv:2411.03312's law of size and tokens: curved the other way, no floor is seen."""
    x = cross(N=np.array([0.5e9, 1.8e9, 4e9, 14e9]), T=np.array([1.0, 4, 16, 36, 64, 144, 576]))
    logs = {role: np.log(values) for role, values in x.items()}
    y = np.exp(-0.3 - 0.07 * (logs["N"] - 21) - 0.015 * logs["T"] - 0.004 * (logs["N"] - 21) ** 2)
    found = fit(Points(x, y), multiplicative(("N", "T")), Options(delta=np.inf))
    assert found.status.kind == "at bound"
    assert "E (error left over) at 0" in str(found.status)


def test_a_ridge_is_no_convergence() -> None:
    """One doubling of compute along a nearly straight line leaves amplitude and exponent open."""
    x = {"C": np.geomspace(1e18, 2e18, 8)}
    y = 0.5 * (x["C"] / 1e18) ** -0.01 + 1e-4 * np.random.default_rng(2).normal(size=8)
    found = fit(Points(x, y), power(), Options(delta=np.inf))
    assert found.status.kind == "ridge"
    assert "A, alpha: unknown to a factor of 50" in str(found.status)


def test_a_best_value_that_one_start_alone_reaches_is_doubted() -> None:
    points = WORLDS[0].points()
    noisy = replace(points, y=WORLDS[0].draw(1, np.random.default_rng(0))[0])
    few = Options(scale="logit", keep=3, iterations=1, starts=64)
    assert fit(noisy, primary(worst=0.999), few).status.kind == "starts disagree"


# Points, options, files


def test_a_stored_fit_is_the_fit() -> None:
    world = WORLDS[1]
    found = fit(world.points(), world.form(), Options(scale="logit", delta=np.inf))
    again = Fit.from_json(found.to_json())
    assert again.params == found.params, "17 digits"
    assert again.status == found.status and again.options == found.options
    assert again.predict(world.x).tolist() == found.predict(world.x).tolist()
    assert json.loads(found.to_json())["digest"] == world.points().digest()


def test_a_stored_fit_that_knows_nothing_comes_back() -> None:
    x = cross(N=SIZES, D=np.array([1e9]), T=np.array([16.0, 49, 196]))
    found = fit(Points(x, np.full(12, 0.4)), primary())
    assert Fit.from_json(found.to_json()).status == found.status


def test_rows_that_were_changed_are_refused() -> None:
    held = json.loads(fit(WORLDS[0].points(), primary(worst=0.999)).to_json())
    held["rows"]["y"][3] += 1e-12
    with pytest.raises(LawError, match="do not have the digest"):
        Fit.from_json(json.dumps(held))


def test_levels_of_sizes_come_back_with_a_stored_fit() -> None:
    world = next(world for world in WORLDS if world.law == "per_size")
    found = fit(world.points(), per_size(), Options(scale="logit"))
    assert Fit.from_json(found.to_json()).predict(world.x) == pytest.approx(world.points().y)


def test_rows_that_make_no_sense_are_refused() -> None:
    with pytest.raises(LawError, match="N has 2 rows, y has 3"):
        Points({"N": np.ones(2)}, np.ones(3))
    with pytest.raises(LawError, match="N has values that are not positive"):
        Points({"N": np.array([1.0, 0.0])}, np.ones(2))
    with pytest.raises(LawError, match="noise must be positive"):
        Points({"N": np.ones(2)}, np.ones(2), noise=np.zeros(2))
    with pytest.raises(LawError, match="allowed: log, raw, logit"):
        Options(scale="probit")
    with pytest.raises(LawError, match="must be positive"):
        Options(delta=-1.0)
    rows = cross(N=SIZES, D=np.array([1e8, 1e9, 1e10]))
    with pytest.raises(LawError, match="y=1.5 has no logit"):
        fit(Points(rows, np.full(12, 1.5)), CHINCHILLA, Options(scale="logit"))
