"""A verdict as data, and as a sentence that a paper could print."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from clipa_scaling.answers import NO, UNDETERMINED, YES
from clipa_scaling.compared import Compared
from clipa_scaling.lacking import Missing

__all__ = ["NO", "UNDETERMINED", "YES", "Answer", "Missing", "Verdict", "say"]


@dataclass(frozen=True)
class Answer:
    """One path's: yes, no or undetermined; the slope d log m / d log N and its 95 % interval."""

    path: str
    answer: str
    slope: float
    low: float
    high: float
    agrees: bool  # on every scale
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether a larger model needs fewer tokens, with all that it rests on.

    answer: that of all paths the design can follow, where they agree, else undetermined. robust: it
    can follow all, they agree on every scale, and no exponent of T_e says the opposite. missing:
    what the design lacks for any path. multipliers: m of each model, length and sample count, with
    gain and drop, intervals, and `bound`: `>` or `<` where m lies beyond the value. slopes: per
    path, scale and length (0: pooled). tolerated: T_e by path, model and samples. nu: per path and
    scale. crossings: the N at which the gain is 1. drops: d on every scale by sample count (see
    `drops.describe`), a description and no evidence. noise: how the runs were taken to scatter, in
    words.
    """

    answer: str
    robust: bool
    answers: tuple[Answer, ...]
    missing: tuple[Missing, ...]
    multipliers: pd.DataFrame
    slopes: pd.DataFrame
    tolerated: pd.DataFrame
    nu: pd.DataFrame
    crossings: pd.DataFrame
    drops: pd.DataFrame
    noise: str
    band: float
    epsilon: float
    compared: Compared


def say(verdict: Verdict) -> str:
    """The verdict in a sentence, and another where it has an exponent of T_e."""
    return " ".join(part for part in (say_slope(verdict), say_exponent(verdict)) if part)


def say_slope(verdict: Verdict) -> str:
    compared = verdict.compared
    runs = compared.runs
    order = runs.drop_duplicates("model").sort_values("size")["model"]
    tokens = compared.length.replace("_", " ")
    over = (
        f"Over {count(len(order), 'size')} ({', '.join(order)}), "
        f"{count(runs['length'].nunique(), 'length')} and "
        f"{count(runs['samples'].nunique(), 'sample count')}, "
    )
    followed = [item for item in verdict.answers if not item.missing]
    numbers = " and ".join(
        f"{item.slope:.3f} [{item.low:.3f}, {item.high:.3f}] at {item.path}"
        for item in followed
        if not math.isnan(item.low)
    )
    slope = f"d log m / d log N = {numbers} (95 % intervals)" if numbers else "no slope of m known"
    what = f"the extra samples that fewer {tokens} cost, m,"
    if verdict.missing or not followed:
        lacking = verdict.missing or tuple(
            lack for item in verdict.answers for lack in item.missing
        )
        lacks = ", ".join(dict.fromkeys(item.key for item in lacking))
        return (
            f"{over}the design cannot tell whether a larger model needs fewer {tokens}; "
            f"it lacks: {lacks}."
        )
    if verdict.answer == UNDETERMINED:
        told = ", ".join(f"{item.answer} at {item.path}" for item in followed)
        return f"{over}whether a larger model needs fewer {tokens} stays open ({told}): {slope}."
    if verdict.answer == YES:
        found = f"{what} fall as the model grows"
    elif all(item.low > 0 for item in followed):
        found = f"{what} grow with the model"
    else:
        found = f"{what} do not fall as the model grows (band ±{verdict.band:g})"
    return f"{over}{found}: {slope}{say_robust(verdict)}."


def say_robust(verdict: Verdict) -> str:
    """On what the answer depends, or does not."""
    unknown = [item.path for item in verdict.answers if item.missing]
    if not all(item.agrees for item in verdict.answers if not item.missing):
        return "; the answer depends on the scale of the measure"
    by = (
        ", on accuracy, -log error and logit alike" if verdict.slopes["scale"].nunique() > 1 else ""
    )
    if unknown:
        return f"{by}; unknown at {' and '.join(unknown)}"
    return by if verdict.robust else f"{by}; the exponent of the tolerated length says otherwise"


def say_exponent(verdict: Verdict) -> str:
    """Of the first path that has one."""
    known = verdict.nu[verdict.nu["low"].notna()]
    if verdict.missing or known.empty:
        return ""
    row = known.iloc[0]
    tokens = verdict.compared.length.replace("_", " ")
    return (
        f"The fewest {tokens} at which m stays within {1 + verdict.epsilon:g} go with N to the "
        f"power of {-row['nu']:.3f} [{-row['high']:.3f}, {-row['low']:.3f}] at {row['path']}."
    )


def count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
