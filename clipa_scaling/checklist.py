"""The reproducibility checklist of (Mis)Fitting (arXiv:2502.18969), filled in for a fit."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import numpy as np

from clipa_scaling.fitted import SCALES
from clipa_scaling.identify import count_levels
from clipa_scaling.lawform import ROLES
from clipa_scaling.revision import find_revision
from clipa_scaling.schema import RUNS
from clipa_scaling.solve import Fit

UNKNOWN = "not recorded"
PACKAGES = ("numpy", "scipy", "pandas")
FORM, SETUP, DATA, FITTING = (
    "Hypothesis: the form",
    "Training set-up",
    "Data collection",
    "Fitting",
)


class Item(NamedTuple):
    group: str
    question: str
    answer: str


def fill(
    found: Fit,
    facts: Mapping[str, str],
    *,
    exclusions: str,
    uncertainty: str,
    validation: str,
    forms: Sequence[str] = (),
) -> list[Item]:
    """Every question with its answer; what nobody recorded says so.

    facts: those of `points.Chosen`. exclusions, uncertainty, validation: sentences. forms: all that
    were fitted.
    """
    return [
        *describe_form(found, forms),
        *describe_setup(found, facts),
        *describe_data(found, facts, exclusions),
        *describe_fitting(found, uncertainty, validation),
    ]


def describe_form(found: Fit, forms: Sequence[str]) -> list[Item]:
    law = found.law
    points = found.points
    variables = "; ".join(f"{role} = {points.columns.get(role, ROLES[role])}" for role in law.roles)
    given = ", ".join(f"{name}={value:g}" for name, value in law.given.items())
    count = points.columns.get("N", "")
    counted = f"{count}: {RUNS[count].meaning}" if count in RUNS else UNKNOWN
    y = points.columns.get("y", "y")
    return [
        Item(FORM, "form", f"{law.name}: {law.formula}" + (f"; {given}" if given else "")),
        Item(FORM, "source", law.citation),
        Item(FORM, "other forms fitted", ", ".join(forms) or "none"),
        Item(FORM, "variables", variables),
        Item(FORM, "predicted", "loss, nats" if y == "loss" else f"1 - {y}"),
        Item(FORM, "how N is counted", counted),
        Item(FORM, "free parameters", f"{len(law.names)}: {', '.join(law.names)}"),
        Item(FORM, "bounds", bounds(found)),
    ]


def bounds(found: Fit) -> str:
    told = [
        f"{item.name} in [{item.low:g}, {item.high:g}]"
        for item in found.law.parameters
        if np.isfinite(item.low) or np.isfinite(item.high)
    ]
    return ", ".join(told) or "none"


def describe_setup(found: Fit, facts: Mapping[str, str]) -> list[Item]:
    points = found.points
    levels = "; ".join(
        f"{role} {count_levels(values)} ({values.min():.6g} to {values.max():.6g})"
        for role, values in points.x.items()
        if role != "C"
    )
    told = [
        Item(SETUP, "runs", f"{len(points)} rows of {len(set(points.codes()))} root runs"),
        Item(SETUP, "levels of each variable", levels),
    ]
    names = {
        "reductions": "how tokens are reduced",
        "lr": "learning rates",
        "batch_size": "batch sizes",
        "schedule": "schedule",
        "seeds": "seeds",
        "device": "devices",
        "revision": "code the runs were trained with",
    }
    return told + [Item(SETUP, what, facts.get(key) or UNKNOWN) for key, what in names.items()]


def describe_data(found: Fit, facts: Mapping[str, str], exclusions: str) -> list[Item]:
    measured = ", ".join(
        f"{key} {facts.get(key) or UNKNOWN}" for key in ("measure", "set", "protocol", "evaluator")
    )
    return [
        Item(DATA, "measured by", measured),
        Item(DATA, "stage", facts.get("stage") or UNKNOWN),
        Item(DATA, "checkpoints", "the end of annealed runs; none from the middle of a schedule"),
        Item(DATA, "exclusions", exclusions),
        Item(DATA, "origin of the rows", facts.get("source") or "tables of this study"),
        Item(DATA, "rows", f"{len(found.points)}, sha256 {found.points.digest()}"),
    ]


def describe_fitting(found: Fit, uncertainty: str, validation: str) -> list[Item]:
    options = found.options
    scale = {"raw": "y itself", "log": "log y", "logit": "log odds of y"}[options.scale]
    assert options.scale in SCALES
    huber = (
        "sum of squares" if np.isinf(found.delta) else f"sum of Huber's, delta {found.delta:.4g}"
    )
    weights = "rows alike" if found.points.noise is None else "rows over their relative noise"
    return [
        Item(FITTING, "objective", f"{huber}, of residuals of {scale}; {weights}"),
        Item(FITTING, "objective's value", f"{found.objective:.10g}"),
        Item(FITTING, "starts", f"{options.starts}, evenly spread, of which the best "
             f"{options.keep} are polished; seed {options.seed}"),
        Item(FITTING, "optimiser", "damped Gauss-Newton, then Newton, with analytic slopes where "
             "the law has them (clipa_scaling.minimise)"),
        Item(FITTING, "tolerance", f"gain of a further step below {options.tolerance:g} of the "
             f"objective; at most {options.iterations} steps"),
        Item(FITTING, "success", f"{found.status}; {found.starts_reached} of {options.keep} "
             f"polished starts reached it; condition {found.condition:.3g}"),
        Item(FITTING, "uncertainty", uncertainty),
        Item(FITTING, "validation", validation),
        Item(FITTING, "versions", versions()),
    ]  # fmt: skip


def versions() -> str:
    told = [f"clipa_scaling {find_revision() or UNKNOWN}", f"python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            told.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            told.append(f"{name} {UNKNOWN}")
    return ", ".join(told)


def as_markdown(items: Sequence[Item]) -> str:
    lines = []
    for group in dict.fromkeys(item.group for item in items):
        lines += [f"## {group}", ""]
        lines += [f"- **{item.question}**: {item.answer}" for item in items if item.group == group]
        lines.append("")
    return "\n".join(lines)


def as_json(items: Sequence[Item]) -> dict[str, dict[str, str]]:
    """group -> question -> answer."""
    found: dict[str, dict[str, str]] = {}
    for item in items:
        found.setdefault(item.group, {})[item.question] = item.answer
    return found
