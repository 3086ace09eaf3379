"""The registered laws of error or loss; each states its formula and where it comes from.

In every formula N, D, T, S stand for parameters, samples, image and text tokens, C for FLOPs. Each
name here makes its form for other roles or another worst error: `primary(("N", "D"), worst=0.999)`.
"""

from __future__ import annotations

from clipa_scaling.lawform import LAWS, Law, LawError, register
from clipa_scaling.powers import additive, loglinear, multiplicative, one_break, per_size, power
from clipa_scaling.saturated import bounded, primary, trend

__all__ = [
    "LAWS",
    "additive",
    "bounded",
    "find_law",
    "loglinear",
    "multiplicative",
    "one_break",
    "per_size",
    "power",
    "primary",
    "trend",
]

for make in (
    primary,
    trend,
    bounded,
    additive,
    multiplicative,
    loglinear,
    power,
    one_break,
    per_size,
):
    register(make())


def find_law(name: str) -> Law:
    if name not in LAWS:
        raise LawError(f"law {name!r} is unknown; registered: {', '.join(LAWS)}")
    return LAWS[name]
