"""Parts that several laws share: floors, exponents, sums of power laws, and where they start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from clipa_scaling.lawform import Floats, Logs, Parameter, geometric, shares

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
