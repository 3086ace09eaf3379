"""What can be held out of a study: its variables' ends, and the largest size at short lengths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clipa_scaling.identify import SAME, count_levels
from clipa_scaling.lawform import ROLES
from clipa_scaling.solve import Points

LEAST_ROWS = 4  # left to fit on


@dataclass(frozen=True)
class Split:
    """Rows held out, (n,), and how far they lie beyond the rest; why: why there are none."""

    name: str
    role: str
    held: np.ndarray
    factor: float
    why: str = ""


def find_splits(points: Points) -> list[Split]:
    """What can be held out: the ends of every variable, and the largest size at short lengths.

    The last is the claim itself: what will the largest model lose, whose full length is known.
    """
    found = [split_end(points, role, largest=True) for role in ("N", "D") if role in points.x]
    if "C" in points.x:
        found.append(split_compute(points))
    for role in ("T", "S"):
        if role in points.x:
            found.append(split_end(points, role, largest=False))
            found.append(split_claim(points, role))
    return found


def split_end(points: Points, role: str, largest: bool) -> Split:
    values = points.x[role]
    name = f"{'largest' if largest else 'shortest'} {role}"
    if count_levels(values) < 2:
        return refuse(points, name, role, f"{role} ({ROLES[role]}) does not vary")
    logs = np.log(values if largest else 1 / values)
    return cut(points, name, role, logs >= logs.max() - SAME)


def split_compute(points: Points) -> Split:
    """All above half the largest compute."""
    values = points.x["C"]
    if count_levels(values) < 2:
        return refuse(points, "largest C", "C", "C (training FLOPs) does not vary")
    return cut(points, "largest C", "C", values > values.max() / 2)


def split_claim(points: Points, role: str) -> Split:
    name = f"largest N at short {role}"
    if "N" not in points.x or count_levels(points.x["N"]) < 2 or count_levels(points.x[role]) < 2:
        return refuse(points, name, role, f"N and {role} do not both vary")
    size, length = np.log(points.x["N"]), np.log(points.x[role])
    short = length < length.max() - SAME
    held = short & (size >= size.max() - SAME)
    if not (short & ~held).any():
        return refuse(points, name, role, "only the largest size has short lengths")
    beyond = float(np.exp(size.max() - size[short & ~held].max()))
    return replace(cut(points, name, "N", held), factor=beyond)


def cut(points: Points, name: str, role: str, held: np.ndarray) -> Split:
    if held.all() or (~held).sum() < LEAST_ROWS:
        return refuse(points, name, role, f"fewer than {LEAST_ROWS} rows are left to fit on")
    inside, outside = points.x[role][~held], points.x[role][held]
    factor = max(outside.max() / inside.max(), inside.min() / outside.min(), 1.0)
    return Split(name, role, held, float(factor))


def refuse(points: Points, name: str, role: str, why: str) -> Split:
    return Split(name, role, np.zeros(len(points), bool), float("nan"), why)
