"""What a design can identify of a law, before anything is fitted; reasons in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from clipa_scaling.lawform import ROLES, Floats, Law

SAME = 0.01  # in logs: values nearer than this are one level
TIED = 1e-3  # spread of logs across a direction, over their own: below it they move as one


def count_levels(values: Floats) -> int:
    """Distinct values of a variable, those within a percent of their neighbour taken as one."""
    ordered = np.sort(np.log(values))
    return int(1 + (np.diff(ordered) > SAME).sum()) if len(ordered) else 0


def find_faults(x: Mapping[str, Floats], law: Law) -> tuple[str, ...]:
    """Why these data cannot identify the law; empty where nothing speaks against it.

    x: role -> (n,), in units. A law for each size is bound to the data (`Law.bound_to`) before.
    """
    missing = [role for role in law.roles if role not in x]
    if missing:
        told = ", ".join(f"{role} ({ROLES[role]})" for role in missing)
        return (f"no column for {told}",)
    found = [fault for role in law.roles if (fault := find_level_fault(x[role], role, law))]
    rows, needed = len(x[law.roles[0]]), len(law.parameters) + 1
    if rows < needed:
        found.append(f"{rows} rows for {len(law.parameters)} parameters; needed: {needed} or more")
    return tuple(found) or find_ties(x, law)


def find_level_fault(values: Floats, role: str, law: Law) -> str:
    levels, needed = count_levels(values), law.least_levels(role)
    if levels >= needed:
        return ""
    named = ", ".join(f"{value:.6g}" for value in sorted(set(values.tolist()))[:needed])
    way = f"needed: {needed} values, or a law without {role}"
    if levels == 1:
        return f"{role} ({ROLES[role]}) does not vary: {named}; {way}"
    return f"{role} ({ROLES[role]}) has {levels} values only: {named}; {way}"


def find_ties(x: Mapping[str, Floats], law: Law) -> tuple[str, ...]:
    """Variables that move as one, such as N and D at a fixed D/N: their terms cannot be parted."""
    if len(law.roles) < 2:
        return ()
    logs = np.column_stack([np.log(x[role]) for role in law.roles])
    logs = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    _, sizes, directions = np.linalg.svd(logs, full_matrices=False)
    if sizes[-1] > TIED * sizes[0]:
        return ()
    tied = [role for role, part in zip(law.roles, directions[-1], strict=True) if abs(part) > 0.1]
    return (f"{' and '.join(tied)} move as one: each must vary while the others stay",)
