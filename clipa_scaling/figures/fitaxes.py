"""What figures of fits share: names of variables and measures, the order of sizes, a heading."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from clipa_scaling.cells import MAIN_MEASURES
from clipa_scaling.figures.style import accuracy_axis, log_axis, token_axis
from clipa_scaling.fitted import Fit
from clipa_scaling.lawform import ROLES, Floats
from clipa_scaling.points import LOSS
from clipa_scaling.schema import RUNS, label
from clipa_scaling.solve import Points

PLAIN = "converged"


def heading(fit: Fit, title: str) -> str:
    kind = "" if fit.status.kind == PLAIN else f" ({fit.status.kind})"
    return f"{title}: {fit.law.name} law{kind}" if title else f"{fit.law.name} law{kind}"


def by_size(points: Points, models: np.ndarray) -> list[str]:
    """The models, the smallest first."""
    size = points.x.get("N", np.arange(len(points)))
    return list(dict.fromkeys(models[np.argsort(size, kind="stable")].tolist()))


def shown(points: Points, y: Floats) -> Floats:
    """A loss as it is, of an error the accuracy."""
    return y if points.columns.get("y") == LOSS else 1 - y


def measure_name(points: Points) -> str:
    measure = points.columns.get("y", "accuracy")
    if measure == LOSS:
        return f"{label(LOSS)} (nats)"
    return MAIN_MEASURES.get(measure) or f"{measure} (%)"


def measure_axis(axes: Axes, points: Points, name: str) -> None:
    if points.columns.get("y") == LOSS:
        axes.set_ylabel(name)
    else:
        accuracy_axis(axes, name)


def by_value(values: Floats) -> list[tuple[float, np.ndarray]]:
    """Each value and its rows, the least first."""
    return [(value, values == value) for value in sorted(set(values.tolist()))]


def role_name(points: Points, role: str) -> str:
    column = points.columns.get(role, "")
    return label(column) if column in RUNS else f"{role} ({ROLES[role]})"


def role_axis(axes: Axes, points: Points, role: str) -> None:
    """A log axis of a variable, with its column's name; lengths are its ticks."""
    log_axis(axes, role_name(points, role))
    if role in ("T", "S") and points.columns.get(role) in RUNS:
        token_axis(axes, points.x[role], points.columns[role])
