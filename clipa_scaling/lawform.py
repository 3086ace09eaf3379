"""What a law is: a formula with named parameters, its slopes, and where to look for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Logs = Mapping[str, Floats]  # role -> (n,): the log of a variable, in a fit over its geometric mean
Kind = Literal["positive", "free", "between"]

ROLES: Mapping[str, str] = {
    "N": "parameters",
    "D": "samples",
    "T": "image tokens",
    "S": "text tokens",
    "C": "training FLOPs",
}


LARGEST = 700.0  # of a logarithm whose number a float still holds


class LawError(ValueError):
    """A law that cannot be: registered twice, unknown, or without what it needs."""


@dataclass(frozen=True)
class Parameter:
    """A named number of a law, within its bounds.

    kind: `positive` is searched as its logarithm, `free` and `between` (two finite bounds) as is.
    """

    name: str
    kind: Kind
    low: float = -np.inf
    high: float = np.inf
    meaning: str = ""

    def __post_init__(self) -> None:
        if self.kind == "positive" and self.low < 0:
            object.__setattr__(self, "low", 0.0)
        if self.kind == "between" and not np.isfinite([self.low, self.high]).all():
            raise LawError(f"{self.name}: kind=between needs two finite bounds, or kind=free")
        if self.low >= self.high:
            raise LawError(f"{self.name}: low={self.low:g} must be below high={self.high:g}")


Evaluate = Callable[[Floats, Logs], tuple[Floats, Floats | None]]
Starts = Callable[[Floats, Logs, Floats], Floats]
Uncentre = Callable[[Floats, Mapping[str, float]], Floats]


def keep(theta: Floats, log_means: Mapping[str, float]) -> Floats:
    """For laws whose parameters do not depend on the units of their variables."""
    return theta


@dataclass(frozen=True)
class Law:
    """A functional form that `solve.fit` can fit.

    evaluate(theta (B, P), logs) -> the law's value (B, n) and its slopes by theta (B, n, P), or
    None in their place: they are then differences.
    starts(uniform (S, P) in (0, 1), logs, y (n,)) -> theta (S, P), likely places to begin.
    uncentre(theta (B, P), mean of each log) -> theta for variables in their own units.
    levels: how many distinct values a role needs. given: the constants it was made with.
    on_scale: the values are on the scale of the fit (log, logit), not of y.
    bind(logs) -> the law for these data: intercepts per size, a longest length.
    remake(roles=, **given) -> the same form for other roles or constants.
    """

    name: str
    formula: str
    citation: str
    roles: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    evaluate: Evaluate
    starts: Starts
    uncentre: Uncentre = keep
    levels: Mapping[str, int] = field(default_factory=dict)
    given: Mapping[str, float] = field(default_factory=dict)
    on_scale: bool = False
    bind: Callable[[Logs], Law] | None = None
    remake: Callable[..., Law] | None = None

    def __post_init__(self) -> None:
        unknown = [role for role in self.roles if role not in ROLES]
        if unknown:
            raise LawError(f"law {self.name}: role {unknown[0]!r}; allowed: {', '.join(ROLES)}")
        if len(set(self.names)) < len(self.names):
            raise LawError(f"law {self.name}: two parameters of one name: {', '.join(self.names)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def is_log(self) -> NDArray[np.bool_]:
        """Which parameters are searched as logarithms, (P,)."""
        return np.array([parameter.kind == "positive" for parameter in self.parameters])

    def least_levels(self, role: str) -> int:
        return self.levels.get(role, 3)

    def to_coordinates(self, theta: Floats) -> Floats:
        """theta (..., P) as the search sees it: logarithms of the positive."""
        logs = np.log(np.where(self.is_log, np.maximum(theta, 1e-300), 1.0))
        return np.where(self.is_log, logs, theta)

    def from_coordinates(self, u: Floats) -> Floats:
        return np.where(self.is_log, np.exp(np.where(self.is_log, np.minimum(u, LARGEST), 0.0)), u)

    def box(self) -> tuple[Floats, Floats]:
        """The bounds as coordinates, two of (P,)."""
        low = np.array([parameter.low for parameter in self.parameters], float)
        high = np.array([parameter.high for parameter in self.parameters], float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.is_log, np.log(low), low), np.where(
                self.is_log, np.log(high), high
            )

    def bound_to(self, logs: Logs) -> Law:
        return self if self.bind is None else self.bind(logs)

    def like(self, roles: Sequence[str] | None = None, **given: Any) -> Law:
        """The same form for other roles or constants; the others stay what they are."""
        if self.remake is None:
            raise LawError(f"law {self.name} has one form only: it was registered without `remake`")
        return self.remake(roles=tuple(roles or self.roles), **{**self.given, **given})


LAWS: dict[str, Law] = {}


def register(law: Law) -> Law:
    """Make a law known by its name, for fits, tournaments and stored fits."""
    if law.name in LAWS:
        raise LawError(f"law {law.name} is registered already; give yours another name")
    LAWS[law.name] = law
    return law


# For samplers and slopes


def columns(slopes: Sequence[Floats]) -> Floats:
    """P slopes, each (B, n), as (B, n, P)."""
    return np.stack(np.broadcast_arrays(*slopes), axis=1).swapaxes(1, 2)


def geometric(uniform: Floats, low: float, high: float) -> Floats:
    """Uniform numbers in (0, 1), spread evenly in logarithms."""
    return np.asarray(low * (high / low) ** uniform)


def shares(uniform: Floats) -> Floats:
    """Uniform numbers (S, K) as shares that add up to one, all splits alike likely."""
    parts = -np.log(uniform)
    return np.asarray(parts / parts.sum(axis=1, keepdims=True))
