"""Laws of powers alone: additive, multiplicative, one axis, a break, per size, log-linear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from clipa_scaling.lawform import Floats, Law, LawError, Logs, Parameter, columns, geometric
from clipa_scaling.lawterms import (
    AMPLITUDES,
    EXPONENTS,
    STEEPEST,
    additive_parameters,
    additive_terms,
    exponent,
    floor,
    start_floor,
    start_terms,
    uncentre_terms,
)

TOKENS = ("T", "S")


def additive(roles: Sequence[str] = ("N", "D", "T")) -> Law:
    """Chinchilla's law, with a term for each further variable; roles N, D alone are Chinchilla."""
    roles = tuple(roles)

    def evaluate(theta: Floats, logs: Logs) -> tuple[Floats, Floats]:
        total, slopes = additive_terms(theta, logs, roles)
        return theta[:, -1:] + total, columns([*slopes, np.ones_like(total)])

    def starts(uniform: Floats, logs: Logs, y: Floats) -> Floats:
        rest = start_floor(uniform[:, -1], y)
        return np.column_stack([start_terms(uniform[:, :-1], np.median(y) - rest), rest])

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        return uncentre_terms(theta, log_means, roles)

    terms = " + ".join(f"{AMPLITUDES[role]} {role}^-{EXPONENTS[role]}" for role in roles)
    return Law(
        "additive",
        f"y = E + {terms}",
        "arXiv:2203.15556, eq. 2 (N and D); token terms are ours",
        roles,
        (*additive_parameters(roles), floor()),
        evaluate,
        starts,
        uncentre,
        remake=additive,
    )


def multiplicative(roles: Sequence[str] = ("N", "D", "T")) -> Law:
    """One product of powers over a floor; without data that show the floor, it runs away."""
    roles = tuple(roles)

    def evaluate(theta: Floats, logs: Logs) -> tuple[Floats, Floats]:
        reach = sum((theta[:, 1 + at, None] * logs[role] for at, role in enumerate(roles)), 0.0)
        falling = np.exp(-np.asarray(reach))
        value = theta[:, :1] * falling
        slopes = [falling, *(-value * logs[role] for role in roles), np.ones_like(value)]
        return theta[:, -1:] + value, columns(slopes)

    def starts(uniform: Floats, logs: Logs, y: Floats) -> Floats:
        rest = start_floor(uniform[:, -1], y)
        powers = geometric(uniform[:, 1:-1], 0.02, 1.5)
        return np.column_stack([np.median(y) - rest, powers, rest])

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        found = theta.copy()
        found[:, 0] *= np.exp(theta[:, 1:-1] @ np.array([log_means[role] for role in roles]))
        return found

    powers = "".join(f" {role}^-{EXPONENTS[role]}" for role in roles)
    exponents = [
        Parameter(EXPONENTS[role], "free", -10.0, 10.0, f"exponent of {role}")
        if role in TOKENS
        else exponent(EXPONENTS[role], role)
        for role in roles
    ]
    return Law(
        "multiplicative",
        f"y = E + A{powers}",
        "arXiv:2411.03312 (N and T)",
        roles,
        (Parameter("A", "positive", meaning="amplitude"), *exponents, floor()),
        evaluate,
        starts,
        uncentre,
        remake=multiplicative,
    )


def power(roles: Sequence[str] = ("C",)) -> Law:
    """A power law with floor along one variable."""
    [role] = roles
    law = additive((role,))
    formula = f"y = E + {AMPLITUDES[role]} {role}^-{EXPONENTS[role]}"
    source = "arXiv:2010.14701"
    return replace(law, name="power", formula=formula, citation=source, remake=power)


def one_break(roles: Sequence[str] = ("C",)) -> Law:
    """A power law along one variable whose exponent changes once, from c0 to c0 + c1."""
    [role] = roles

    def evaluate(theta: Floats, logs: Logs) -> tuple[Floats, Floats]:
        amplitude, before, change, place, width, rest = (theta[:, at, None] for at in range(6))
        far = (logs[role] - np.log(place)) / width
        soft = np.logaddexp(0.0, far)
        passed = 1 / (1 + np.exp(-far))
        falling = np.exp(-before * logs[role] - change * width * soft)
        value = amplitude * falling
        slopes = [
            falling,
            -value * logs[role],
            -value * width * soft,
            value * change * passed / place,
            -value * change * (soft - far * passed),
            np.ones_like(value),
        ]
        return rest + value, columns(slopes)

    def starts(uniform: Floats, logs: Logs, y: Floats) -> Floats:
        rest = start_floor(uniform[:, 5], y)
        low, high = np.quantile(logs[role], [0.1, 0.9])
        return np.column_stack(
            [
                np.median(y) - rest,
                geometric(uniform[:, 1], 0.02, 1.5),
                2.4 * uniform[:, 2] - 1.2,
                np.exp(low + (high - low) * uniform[:, 3]),
                geometric(uniform[:, 4], 0.05, 1.0),
                rest,
            ]
        )

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        found = theta.copy()
        found[:, 0] *= np.exp(theta[:, 1] * log_means[role])
        found[:, 3] *= np.exp(log_means[role])
        return found

    return Law(
        "one_break",
        f"y = E + A {role}^-c0 (1 + ({role}/d)^(1/f))^(-c1 f)",
        "arXiv:2210.14891, with one break",
        (role,),
        (
            Parameter("A", "positive", meaning="amplitude"),
            exponent("c0", f"{role} before the break"),
            Parameter("c1", "free", -STEEPEST, STEEPEST, "change of the exponent at the break"),
            Parameter("d", "positive", meaning="where the break is"),
            Parameter("f", "positive", 0.02, 5.0, "width of the break, in logs"),
            floor(),
        ),
        evaluate,
        starts,
        uncentre,
        levels={role: 8},
        remake=one_break,
    )


def loglinear(roles: Sequence[str] = ("N", "D", "T")) -> Law:
    """A plane in the logs, on the scale of the fit: a baseline, no law."""
    roles = tuple(roles)

    def evaluate(theta: Floats, logs: Logs) -> tuple[Floats, Floats]:
        x = np.column_stack([np.ones(len(logs[roles[0]])), *(-logs[role] for role in roles)])
        return theta @ x.T, np.broadcast_to(x, (len(theta), *x.shape))

    def starts(uniform: Floats, logs: Logs, y: Floats) -> Floats:
        return np.column_stack([np.full(len(uniform), np.median(y)), uniform[:, 1:] - 0.5])

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        found = theta.copy()
        found[:, 0] += theta[:, 1:] @ np.array([log_means[role] for role in roles])
        return found

    terms = " - ".join(["a", *(f"{EXPONENTS[role]} log {role}" for role in roles)])
    return Law(
        "loglinear",
        f"scale(y) = {terms}",
        "ordinary least squares",
        roles,
        (
            Parameter("a", "free", meaning="level"),
            *(Parameter(EXPONENTS[role], "free", meaning=f"slope of log {role}") for role in roles),
        ),
        evaluate,
        starts,
        uncentre,
        levels={role: 2 for role in roles},
        on_scale=True,
        remake=loglinear,
    )


def per_size(roles: Sequence[str] = ("N", "T")) -> Law:
    """Each size has its level; what is lost at a shorter length changes as N^-delta.

    For designs with D constant: delta > 0 is the papers' inverse law, on the scale of the fit. T0
    is the longest length of the points. Where a size was not fitted its level is unknown, and so is
    y: NaN. Errors: LawError for other roles than N and a length, of which delta would say nothing.
    """
    if tuple(roles) not in {("N", token) for token in TOKENS}:
        raise LawError(f"per_size has roles {', '.join(roles)}; allowed: N, T or N, S")
    size, length = roles

    def bind(logs: Logs) -> Law:
        sizes = np.unique(np.round(logs[size], 9))
        full = float(logs[length].max())
        levels = [
            Parameter(f"c{at + 1}", "free", meaning=f"level of size {at + 1}")
            for at in range(len(sizes))
        ]
        return replace(
            law,
            parameters=(*law.parameters, *levels),
            evaluate=partial(evaluate_per_size, (size, length), sizes, full),
            starts=partial(start_per_size, (size, length), sizes, full),
            bind=None,
        )

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        found = theta.copy()
        found[:, 0] *= np.exp(theta[:, 1] * log_means[length] + theta[:, 2] * log_means[size])
        return found

    law = Law(
        "per_size",
        f"scale(y) = c_{size} + k ({length}^-gamma - {length}0^-gamma) {size}^-delta",
        "ours, for the tables of arXiv:2305.07017",
        (size, length),
        (
            Parameter("k", "positive", meaning="what a shorter length costs"),
            exponent("gamma", length),
            Parameter("delta", "free", -STEEPEST, STEEPEST, "how this cost falls with size"),
        ),
        partial(evaluate_per_size, (size, length), np.empty(0), 0.0),
        partial(start_per_size, (size, length), np.empty(0), 0.0),
        uncentre,
        on_scale=True,
        bind=bind,
        remake=per_size,
    )
    return law


def lost(roles: Sequence[str], full: float, theta: Floats, logs: Logs) -> tuple[Floats, Floats]:
    """T^-gamma - T0^-gamma, and its slope by gamma; (B, n) each."""
    gamma, t = theta[:, 1:2], logs[roles[1]]
    short, long = np.exp(-gamma * t), np.exp(-gamma * full)
    return short - long, full * long - t * short


def evaluate_per_size(
    roles: Sequence[str], sizes: Floats, full: float, theta: Floats, logs: Logs
) -> tuple[Floats, Floats]:
    cost, by_gamma = lost(roles, full, theta, logs)
    falling = np.exp(-theta[:, 2:3] * logs[roles[0]])
    at = (np.abs(logs[roles[0]][:, None] - sizes) < 1e-6).astype(float)  # (n, sizes)
    level = np.where(at.any(axis=1), theta[:, 3:] @ at.T, np.nan)
    scaled = theta[:, :1] * falling
    slopes = [cost * falling, scaled * by_gamma, -scaled * cost * logs[roles[0]], *at.T]
    return level + scaled * cost, columns(slopes)


def start_per_size(
    roles: Sequence[str], sizes: Floats, full: float, uniform: Floats, logs: Logs, y: Floats
) -> Floats:
    found = np.zeros((len(uniform), 3 + len(sizes)))
    found[:, 1] = geometric(uniform[:, 1], 0.05, 3.0)
    found[:, 2] = 2 * uniform[:, 2] - 1
    cost, _ = lost(roles, full, found, logs)
    at = np.abs(logs[roles[0]][:, None] - sizes) < 1e-6
    spread = np.mean([np.ptp(y[rows]) for rows in at.T])
    found[:, 0] = geometric(uniform[:, 0], 0.3, 3.0) * spread / np.ptp(cost, axis=1)
    means = at / at.sum(axis=0)
    shape = found[:, :1] * cost * np.exp(-found[:, 2:3] * logs[roles[0]])
    found[:, 3:] = y @ means - shape @ means
    return found
