"""The registered laws of error or loss; each states its formula and where it comes from.

In every formula N, D, T, S stand for parameters, samples, image and text tokens, C for FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clipa_scaling.lawform import (
    Floats,
    Law,
    LawError,
    Logs,
    Parameter,
    columns,
    geometric,
    register,
    shares,
)

EXPONENTS: Mapping[str, str] = {"N": "alpha", "D": "beta", "T": "gamma", "S": "delta", "C": "alpha"}
AMPLITUDES: Mapping[str, str] = {"N": "A", "D": "B", "T": "G", "S": "H", "C": "A"}
STEEPEST = 10.0  # of exponents: beyond it a term is a step, and its exponent unknown


def floor(high: float = np.inf) -> Parameter:
    return Parameter("E", "between" if np.isfinite(high) else "free", 0.0, high, "error left over")


def exponent(name: str, of: str) -> Parameter:
    return Parameter(name, "positive", 1e-4, STEEPEST, f"exponent of {of}")


def start_floor(uniform: Floats, y: Floats) -> Floats:
    return np.asarray(uniform * y.min())


def additive_terms(theta: Floats, logs: Logs, roles: Sequence[str]) -> tuple[Floats, list[Floats]]:
    """Sum of A x^-a over roles, (B, n), from columns A, a, A, a, ... and the slopes by them."""
    total: Floats = np.zeros((len(theta), len(logs[roles[0]])))
    slopes = []
    for at, role in enumerate(roles):
        amplitude, power = theta[:, 2 * at, None], theta[:, 2 * at + 1, None]
        falling = np.exp(-power * logs[role])
        total = total + amplitude * falling
        slopes += [falling, -amplitude * falling * logs[role]]
    return total, slopes


def additive_parameters(roles: Sequence[str]) -> list[Parameter]:
    found = []
    for role in roles:
        found.append(
            Parameter(AMPLITUDES[role], "positive", meaning=f"amplitude of the {role} term")
        )
        found.append(exponent(EXPONENTS[role], role))
    return found


def start_terms(uniform: Floats, total: Floats) -> Floats:
    """Amplitudes that add up to total (S,) and exponents; uniform (S, 2 K)."""
    split = shares(uniform[:, ::2]) * total[:, None]
    return np.stack([split, geometric(uniform[:, 1::2], 0.05, 2.0)], axis=2).reshape(len(split), -1)


def uncentre_terms(theta: Floats, log_means: Mapping[str, float], roles: Sequence[str]) -> Floats:
    found = theta.copy()
    for at, role in enumerate(roles):
        found[:, 2 * at] *= np.exp(theta[:, 2 * at + 1] * log_means[role])
    return found


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


# Errors between a floor E and a worst value E0


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


register(primary())
register(additive())
