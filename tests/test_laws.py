"""Every registered law: its slopes, its units, its limits; and a law of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from clipa_scaling import laws
from clipa_scaling.lawform import LAWS, Floats, Law, LawError, Logs, Parameter, geometric, register
from clipa_scaling.lawworlds import WORLDS, World
from clipa_scaling.solve import Options, Points, fit

EACH = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.law)


def test_every_law_has_a_world_a_formula_and_a_source() -> None:
    assert {world.law for world in WORLDS} == set(LAWS)
    assert all(law.formula and law.citation for law in LAWS.values())


@EACH
def test_slopes_are_those_of_the_values(world: World) -> None:
    """By central differences, at places other than the truth, too."""
    logs, _ = world.logs()
    law = world.form().bound_to(logs)
    theta = np.array([world.theta]) * np.random.default_rng(0).uniform(0.7, 1.3, (5, 1))
    _, slopes = law.evaluate(theta, logs)
    assert slopes is not None
    for at in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[at] = 1e-6
        ahead, behind = law.evaluate(theta + step, logs)[0], law.evaluate(theta - step, logs)[0]
        assert slopes[:, :, at] == pytest.approx((ahead - behind) / 2e-6, rel=1e-6, abs=1e-8)


@EACH
def test_parameters_in_units_give_the_same_values(world: World) -> None:
    logs, means = world.logs()
    units = {role: np.log(values) for role, values in world.x.items()}
    theta = np.array([world.theta])
    value, _ = world.form().bound_to(logs).evaluate(theta, logs)
    law = world.form().bound_to(units)
    natural, _ = law.evaluate(law.uncentre(theta, means), units)
    assert natural == pytest.approx(value, rel=1e-9)


def value_of(law: Law, theta: list[float], **x: list[float]) -> Floats:
    logs: Logs = {role: np.log(values) for role, values in x.items()}
    return np.asarray(law.bound_to(logs).evaluate(np.array([theta]), logs)[0][0])


def test_additive_is_chinchillas_law() -> None:
    """arXiv:2203.15556: 70 B parameters and 1.4 T tokens, with the constants of its eq. 10."""
    law = laws.additive(("N", "D"))
    value = value_of(law, [406.4, 0.34, 410.7, 0.28, 1.69], N=[70e9], D=[1.4e12])
    assert value == pytest.approx(1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28)


def test_primary_is_logistic_at_one_and_exponential_far_above() -> None:
    h = 0.3 / 2**0.5 + 0.2 / 3**0.4  # tokens of 1 change nothing
    args: dict[str, list[float]] = {"N": [2.0], "D": [3.0], "T": [1.0]}
    front = [0.3, 0.5, 0.4, 0.2, 0.4, 0.3]
    law = laws.primary(worst=0.9)
    for kappa, u in ((1.0, h / (1 + h)), (1e7, 1 - np.exp(-h))):
        value = value_of(law, [*front, kappa, 0.1], **args)
        assert value == pytest.approx(0.1 + 0.8 * u, rel=1e-6)


def test_primary_is_a_plain_power_law_far_below_its_worst() -> None:
    """The regime of losses: h << 1 leaves E + (E0 - E) h, whatever kappa."""
    law, front = laws.primary(worst=1.0), [1e-4, 0.5, 0.0, 2e-4, 0.4, 0.0]
    value = value_of(law, [*front, 2.0, 0.0], N=[4.0], D=[9.0], T=[7.0])
    assert value == pytest.approx(1e-4 / 2 + 2e-4 / 9**0.4, rel=1e-3)


def test_tokens_trade_against_samples_as_trend_says() -> None:
    """m = (T0/T)^q: the full length does with 1/m of the samples what T does with all."""
    q0, q1, sizes = 0.3, -0.06, np.array([1e7, 1e8])
    theta = [0.3, 0.4, 2.0, 0.5, q0, q1, 1.2, 0.1]
    law = laws.trend(worst=0.999)
    m = (196 / 49) ** (q0 + q1 * np.log(sizes / np.sqrt(1e15)))
    short, full = [49.0, 49], [196.0, 196]
    logs = {"N": np.log(np.tile(sizes, 2)), "T": np.log(short + full)}
    logs["D"] = np.log(np.concatenate([[1e9, 1e9], 1e9 / m]))
    value = law.bound_to(logs).evaluate(np.array([theta]), logs)[0][0]
    assert value[:2] == pytest.approx(value[2:])


def test_a_break_changes_the_exponent_once() -> None:
    law, theta = laws.one_break(), [1.0, 0.2, 0.5, 1e4, 0.3, 0.0]
    low, high = value_of(law, theta, C=[1.0, 10.0]), value_of(law, theta, C=[1e8, 1e9])
    assert np.log10(low[0] / low[1]) == pytest.approx(0.2, rel=1e-3)
    assert np.log10(high[0] / high[1]) == pytest.approx(0.7, rel=1e-3)


def test_a_size_that_was_not_fitted_has_no_level() -> None:
    world = next(world for world in WORLDS if world.law == "per_size")
    found = fit(world.points(), world.form(), Options(scale="logit"))
    assert np.isnan(found.predict({"N": np.array([1e9]), "T": np.array([49.0])}))
    known = found.predict({"N": world.x["N"][:1], "T": np.array([64.0])})
    assert 0 < known[0] < 1


def test_further_roles_add_terms() -> None:
    law = laws.primary(("N", "D", "T", "S"), worst=0.999)
    assert law.names == ("A", "alpha", "p_T", "p_S", "B", "beta", "q_T", "q_S", "kappa", "E")
    assert LAWS["additive"].like(("N", "D")).names == ("A", "alpha", "B", "beta", "E")
    assert LAWS["primary"].like(worst=0.9).given == {"worst": 0.9}


@pytest.fixture
def stretched() -> Iterator[Law]:
    """A user's law: y = a exp(-(x/x0)^b), given without slopes."""

    def evaluate(theta: Floats, logs: Logs) -> tuple[Floats, None]:
        a, b, scale = (theta[:, at, None] for at in range(3))
        return a * np.exp(-np.exp(b * (logs["D"] - np.log(scale)))), None

    def starts(uniform: Floats, logs: Logs, y: Floats) -> Floats:
        return np.column_stack(
            [
                y.max() * (1 + uniform[:, 0]),
                geometric(uniform[:, 1], 0.1, 2.0),
                np.exp(2 * uniform[:, 2] - 1),
            ]
        )

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        return np.asarray(theta * np.array([1.0, 1.0, np.exp(log_means["D"])]))

    parameters = tuple(Parameter(name, "positive", meaning="") for name in ("a", "b", "x0"))
    law = Law("stretched", "y = a exp(-(D/x0)^b)", "a test", ("D",), parameters, evaluate, starts,
              uncentre)  # fmt: skip
    yield register(law)
    del LAWS["stretched"]


def test_a_law_of_ones_own_is_fitted_stored_and_found_again(stretched: Law) -> None:
    x = np.geomspace(1e6, 1e9, 12)
    points = Points({"D": x}, 0.8 * np.exp(-((x / 1e8) ** 0.4)))
    found = fit(points, stretched)
    assert found.params == pytest.approx({"a": 0.8, "b": 0.4, "x0": 1e8}, rel=1e-6)
    assert str(found.status) == "converged"
    again = type(found).from_json(found.to_json())
    assert again.predict({"D": x}).tolist() == found.predict({"D": x}).tolist()


def test_what_cannot_be_a_law_is_refused(stretched: Law) -> None:
    with pytest.raises(LawError, match="registered already"):
        register(stretched)
    with pytest.raises(LawError, match="one form only"):
        stretched.like(("N",))
    with pytest.raises(LawError, match="registered: primary"):
        laws.find_law("kaplan")
    with pytest.raises(LawError, match="worst=nan must be"):
        laws.primary(worst=float("nan"))
    with pytest.raises(LawError, match="needed: N and D"):
        laws.primary(("N", "T"))
    with pytest.raises(LawError, match="role 'X'; allowed: N, D, T, S, C"):
        replace(stretched, roles=("X",))
    with pytest.raises(LawError, match="two finite bounds"):
        Parameter("E", "between", 0.0)
