"""Laws of an error between a floor and its worst value: primary, bounded, trend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from clipa_scaling.lawform import (
    Floats,
    Law,
    LawError,
    Logs,
    Parameter,
    columns,
    geometric,
    shares,
)
from clipa_scaling.lawterms import (
    AMPLITUDES,
    EXPONENTS,
    additive_parameters,
    additive_terms,
    exponent,
    floor,
    start_floor,
    start_terms,
    uncentre_terms,
)


def saturate(h: Floats, kappa: Floats) -> tuple[Floats, Floats, Floats]:
    """1 - (1 + h/kappa)^-kappa and its slopes by h and by kappa."""
    rise = np.log1p(h / kappa)
    left = np.exp(-kappa * rise)
    by_h = left / (1 + h / kappa)
    return -np.expm1(-kappa * rise), by_h, left * (rise - h / (kappa + h))


def unsaturate(u: Floats, kappa: Floats) -> Floats:
    return np.asarray(kappa * np.expm1(-np.log1p(-u) / kappa))


def start_height(y: Floats, rest: Floats, worst: float, kappa: Floats) -> Floats:
    u = (np.median(y) - rest) / (worst - rest)
    return unsaturate(np.clip(u, 1e-6, 1 - 1e-6), kappa)


def check_worst(name: str, worst: float) -> None:
    if not (np.isfinite(worst) and worst > 0):
        raise LawError(f"law {name}: worst={worst} must be a positive number, as 1 - 1/classes")


def primary(roles: Sequence[str] = ("N", "D", "T"), worst: float = 1.0) -> Law:
    """Tokens multiply size and samples; the error runs from `worst` down to a floor.

    worst: E0, the error of guessing, 1 - 1/classes, or ln(batch) for a contrastive loss. roles: N,
    D and the token counts that vary.
    """
    roles = tuple(roles)
    check_worst("primary", worst)
    if not {"N", "D"} <= {*roles}:
        raise LawError(f"law primary: roles {', '.join(roles)}; needed: N and D")
    tokens = tuple(role for role in roles if role not in ("N", "D"))
    k = len(tokens)

    def evaluate(theta: Floats, logs: Logs) -> tuple[Floats, Floats]:
        first, by_first = grown(theta[:, : 2 + k], logs["N"], [logs[role] for role in tokens])
        second, by_second = grown(theta[:, 2 + k : -2], logs["D"], [logs[role] for role in tokens])
        kappa, rest = theta[:, -2:-1], theta[:, -1:]
        u, by_h, by_kappa = saturate(first + second, kappa)
        inner = [(worst - rest) * by_h * slope for slope in (*by_first, *by_second)]
        return rest + (worst - rest) * u, columns([*inner, (worst - rest) * by_kappa, 1 - u])

    def starts(uniform: Floats, logs: Logs, y: Floats) -> Floats:
        kappa = geometric(uniform[:, -2], 0.3, 10.0)
        rest = start_floor(uniform[:, -1], y)
        split = shares(uniform[:, [0, 2 + k]]) * start_height(y, rest, worst, kappa)[:, None]
        found = geometric(uniform, 0.1, 2.0)
        found[:, [0, 2 + k]] = split
        for at in (2, 4 + k):
            found[:, at : at + k] = 1.2 * uniform[:, at : at + k] - 0.1
        found[:, -2], found[:, -1] = kappa, rest
        return found

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        found = theta.copy()
        for at, role in ((0, "N"), (2 + k, "D")):
            mean = log_means[role] + sum(
                theta[:, at + 2 + place] * log_means[token] for place, token in enumerate(tokens)
            )
            found[:, at] *= np.exp(theta[:, at + 1] * mean)
        return found

    times = {letter: "".join(f" {role}^{letter}_{role}" for role in tokens) for letter in "pq"}
    return Law(
        "primary",
        "(y - E) / (E0 - E) = 1 - (1 + h/kappa)^-kappa, "
        f"h = A (N{times['p']})^-alpha + B (D{times['q']})^-beta",
        "ours; the power laws are those of arXiv:2203.15556",
        roles,
        primary_parameters(tokens, worst),
        evaluate,
        starts,
        uncentre,
        given={"worst": worst},
        remake=primary,
    )


def primary_parameters(tokens: Sequence[str], worst: float) -> tuple[Parameter, ...]:
    return (
        Parameter("A", "positive", meaning="amplitude of the N term"),
        exponent("alpha", "N"),
        *(Parameter(f"p_{role}", "free", meaning=f"{role}'s share in N") for role in tokens),
        Parameter("B", "positive", meaning="amplitude of the D term"),
        exponent("beta", "D"),
        *(Parameter(f"q_{role}", "free", meaning=f"{role}'s share in D") for role in tokens),
        Parameter("kappa", "positive", 0.02, 200.0, "1 is logistic, large is exponential"),
        floor(worst),
    )


def grown(theta: Floats, x: Floats, tokens: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
    """A (x prod t^p)^-a from columns A, a, p, ... and the slopes by them."""
    amplitude, power = theta[:, :1], theta[:, 1:2]
    reach = x + sum((theta[:, 2 + at, None] * t for at, t in enumerate(tokens)), np.zeros(1))
    falling = np.exp(-power * reach)
    value = amplitude * falling
    return value, [falling, -value * reach, *(-value * power * t for t in tokens)]


def bounded(roles: Sequence[str] = ("N", "D", "T"), worst: float = 1.0) -> Law:
    """Additive terms within the logistic bound: at a given error no variable helps another."""
    roles = tuple(roles)
    check_worst("bounded", worst)

    def evaluate(theta: Floats, logs: Logs) -> tuple[Floats, Floats]:
        h, slopes = additive_terms(theta, logs, roles)
        rest, left = theta[:, -1:], 1 / (1 + h)
        inner = [(worst - rest) * left**2 * slope for slope in slopes]
        return worst - (worst - rest) * left, columns([*inner, left])

    def starts(uniform: Floats, logs: Logs, y: Floats) -> Floats:
        rest = start_floor(uniform[:, -1], y)
        height = start_height(y, rest, worst, np.ones(len(uniform)))
        return np.column_stack([start_terms(uniform[:, :-1], height), rest])

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        return uncentre_terms(theta, log_means, roles)

    terms = " + ".join(f"{AMPLITUDES[role]} {role}^-{EXPONENTS[role]}" for role in roles)
    return Law(
        "bounded",
        f"(y - E) / (E0 - E) = h / (1 + h), h = {terms}",
        "arXiv:2605.09189 (h / (1 + h)); its terms are those of arXiv:2203.15556",
        roles,
        (*additive_parameters(roles), floor(worst)),
        evaluate,
        starts,
        uncentre,
        given={"worst": worst},
        remake=bounded,
    )


def trend(roles: Sequence[str] = ("N", "D", "T"), worst: float = 1.0) -> Law:
    """Tokens multiply samples, by a power that may change with size: q1 = 0 is no inverse law.

    m = (T0 / T)^q is the data multiplier itself, so that q1 < 0 says that a larger model needs
    fewer tokens. T0 is the longest length, q0 holds at the geometric mean of N.
    """
    check_worst("trend", worst)
    if tuple(roles) != ("N", "D", "T"):
        raise LawError(f"law trend: roles {', '.join(roles)}; allowed: N, D, T")

    def bind(logs: Logs) -> Law:
        middle, full = float(logs["N"].mean()), float(logs["T"].max())
        return replace(law, evaluate=partial(evaluate_trend, worst, middle, full), bind=None)

    law = Law(
        "trend",
        "(y - E) / (E0 - E) = 1 - (1 + h/kappa)^-kappa, "
        "h = A N^-alpha + B (D (T/T0)^q)^-beta, q = q0 + q1 log(N/N0)",
        "ours; nests the null q1 = 0",
        ("N", "D", "T"),
        (
            Parameter("A", "positive", meaning="amplitude of the N term"),
            exponent("alpha", "N"),
            Parameter("B", "positive", meaning="amplitude of the D term"),
            exponent("beta", "D"),
            Parameter("q0", "free", meaning="power of T in D, at the mean N"),
            Parameter("q1", "free", meaning="its change with log N"),
            Parameter("kappa", "positive", 0.02, 200.0, "1 is logistic, large is exponential"),
            floor(worst),
        ),
        partial(evaluate_trend, worst, 0.0, 0.0),
        partial(start_trend, worst),
        lambda theta, log_means: uncentre_terms(theta, log_means, ("N", "D")),
        given={"worst": worst},
        bind=bind,
        remake=trend,
    )
    return law


def evaluate_trend(
    worst: float, middle: float, full: float, theta: Floats, logs: Logs
) -> tuple[Floats, Floats]:
    short, size = logs["T"] - full, logs["N"] - middle
    beta, power = theta[:, 3:4], theta[:, 4:5] + theta[:, 5:6] * size
    first, by_first = grown(theta[:, :2], logs["N"], [])
    reach = logs["D"] + power * short
    falling = np.exp(-beta * reach)
    second = theta[:, 2:3] * falling
    by_power = -second * beta * short
    kappa, rest = theta[:, 6:7], theta[:, 7:8]
    u, by_h, by_kappa = saturate(first + second, kappa)
    terms = (*by_first, falling, -second * reach, by_power, by_power * size)
    inner = [(worst - rest) * by_h * slope for slope in terms]
    return rest + (worst - rest) * u, columns([*inner, (worst - rest) * by_kappa, 1 - u])


def start_trend(worst: float, uniform: Floats, logs: Logs, y: Floats) -> Floats:
    kappa, rest = geometric(uniform[:, 6], 0.3, 10.0), start_floor(uniform[:, 7], y)
    terms = start_terms(uniform[:, :4], start_height(y, rest, worst, kappa))
    return np.column_stack(
        [terms, 1.2 * uniform[:, 4] - 0.1, 0.6 * uniform[:, 5] - 0.3, kappa, rest]
    )
