"""The primary law with image tokens that saturate: beyond some length more of them add nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from clipa_scaling.lawform import Floats, Law, Logs, Parameter, geometric
from clipa_scaling.saturated import primary

STEP = 1e-5  # of log T, for the slope by tau


def capped(roles: Sequence[str] = ("N", "D", "T"), worst: float = 1.0) -> Law:
    """T stands as T / (1 + T / tau); worst as in `primary`. ValueError without T among the roles.

    A power of T promises something for every further token; where it is extrapolated to longer
    pictures, this form need not.
    """
    roles = tuple(roles)
    if "T" not in roles:
        raise ValueError(f"law capped: roles {', '.join(roles)}; needed: T")
    law = primary(roles, worst)

    def bend(tau: Floats, length: Floats) -> Floats:
        return np.asarray(length - np.logaddexp(0.0, length - np.log(tau)))

    def evaluate(theta: Floats, logs: Logs) -> tuple[Floats, Floats]:
        tau, length = theta[:, -1:], logs["T"]
        bent = bend(tau, length)  # (B, n)
        value, slopes = law.evaluate(theta[:, :-1], {**logs, "T": bent})
        more, _ = law.evaluate(theta[:, :-1], {**logs, "T": bent + STEP})
        less, _ = law.evaluate(theta[:, :-1], {**logs, "T": bent - STEP})
        share = 1 / (1 + np.exp(np.log(tau) - length))
        by_tau = (more - less) / (2 * STEP) * share / tau
        assert slopes is not None, "primary has them"
        return value, np.concatenate([slopes, by_tau[..., None]], axis=2)

    def starts(uniform: Floats, logs: Logs, y: Floats) -> Floats:
        tau = geometric(uniform[:, -1], float(np.exp(logs["T"].min())), 10.0)
        return np.column_stack([law.starts(uniform[:, :-1], logs, y), tau])

    def uncentre(theta: Floats, log_means: Mapping[str, float]) -> Floats:
        tau = theta[:, -1:] * np.exp(log_means["T"])
        return np.concatenate([law.uncentre(theta[:, :-1], log_means), tau], axis=1)

    tau = Parameter("tau", "positive", 1e-2, 1e3, "tokens beyond which T adds little")
    formula = law.formula.replace("T^", "(T/(1+T/tau))^")
    return replace(
        law, name="capped", formula=formula, parameters=(*law.parameters, tau), evaluate=evaluate,
        starts=starts, uncentre=uncentre, remake=capped,
    )  # fmt: skip
