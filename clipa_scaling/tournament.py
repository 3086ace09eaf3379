"""Several forms on the same points: AICc and rollout error side by side, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from clipa_scaling.identify import count_levels, find_faults
from clipa_scaling.lawform import LAWS, ROLES, Law, LawError
from clipa_scaling.rollout import AXES, BASELINES, errors_by_form, rollout, tell_error
from clipa_scaling.solve import Fit, Options, Points, fit

BASELINE = "loglinear"  # a form too, but no law
NEAR = 2.0  # AICc: forms nearer than this are alike (Burnham and Anderson 2002, section 2.6)
FEW_STARTS, FEW_KEPT = 1024, 8  # of refits, which only have to predict


@dataclass(frozen=True)
class Tournament:
    """fits: by form, those the design identifies. reasons: of the others, why not.

    rollouts: see `rollout.rollout`. shared: the splits that errors are averaged over, those that
    every form of `fits` predicts. warnings: a line each.
    """

    fits: Mapping[str, Fit]
    reasons: Mapping[str, str]
    rollouts: pd.DataFrame
    errors: Mapping[str, float]
    shared: Sequence[str]
    warnings: Sequence[str]

    @property
    def best_aicc(self) -> str:
        return best({name: found.aicc for name, found in self.fits.items() if is_usable(found)})

    @property
    def best_rollout(self) -> str:
        return best({name: self.errors[name] for name in self.fits if name in self.errors})

    def table(self) -> pd.DataFrame:
        """A row each: form, parameters, status, aicc, behind (the best), rmse, rollout, reason."""
        least = min((found.aicc for found in self.fits.values()), default=np.nan)
        rows = [
            {
                "form": name,
                "parameters": len(found.theta),
                "status": found.status.kind,
                "aicc": found.aicc,
                "behind": found.aicc - least,
                "rmse": rmse(found),
                "rollout": self.errors.get(name, np.nan),
                "reason": "; ".join(found.status.reasons),
            }
            for name, found in self.fits.items()
        ]
        rows += [{"form": name, "rollout": self.errors.get(name, np.nan)} for name in BASELINES]
        rows += [
            {"form": name, "status": "not applicable", "reason": reason}
            for name, reason in self.reasons.items()
        ]
        names = ["form", "parameters", "status", "aicc", "behind", "rmse", "rollout", "reason"]
        return pd.DataFrame(rows, columns=names)


def best(values: Mapping[str, float]) -> str:
    """The name of the least, empty where none is finite."""
    known = {name: value for name, value in values.items() if np.isfinite(value)}
    return min(known, key=lambda name: known[name]) if known else ""


def is_usable(found: Fit) -> bool:
    return found.status.kind != "not identified"


def rmse(found: Fit) -> float:
    """Of y, in its own unit."""
    off = found.predict(found.points.x) - found.points.y
    return float(np.sqrt((off**2).mean()))


def varying(points: Points) -> tuple[str, ...]:
    return tuple(role for role in AXES if role in points.x and count_levels(points.x[role]) > 1)


def adapt(law: Law, points: Points, worst: float | None = None) -> tuple[Law, str]:
    """The form for the variables that vary here, and why it does not apply, empty where it does.

    worst: E0 of the laws that have one, where it is not 1.
    """
    roles = varying(points)
    given = {"worst": worst} if worst is not None and "worst" in law.given else {}
    if len(law.roles) > 1 and law.remake is not None:
        law = remake(law, roles, given)
    missing = [role for role in law.roles if role not in points.x]
    if missing:
        told = ", ".join(f"{role} ({ROLES[role]})" for role in missing)
        return law, f"no column for {told}"
    logs = {role: np.log(points.x[role]) for role in law.roles}
    faults = find_faults(points.x, law.bound_to(logs))
    if faults:
        return law, "; ".join(faults)
    unheld = [role for role in roles if role not in law.roles]
    if unheld and "C" not in law.roles:
        told = " and ".join(f"{role} ({ROLES[role]})" for role in unheld)
        return law, f"{told} {'vary' if len(unheld) > 1 else 'varies'}, and the form has no term"
    return law, ""


def remake(law: Law, roles: tuple[str, ...], given: Mapping[str, float]) -> Law:
    """The form for these roles; else with N and D, so that the design says what it lacks."""
    tokens = [role for role in roles if role not in ("N", "D")]
    for wanted in (roles, ("N", "D", *tokens)):
        try:
            return law.like(wanted, **given)
        except (LawError, ValueError):  # roles that it cannot have, or another number of them
            pass
    return law.like(law.roles, **given)


def compete(
    points: Points,
    laws: Sequence[Law] | None = None,
    options: Options | None = None,
    *,
    worst: float | None = None,
    draws: int = 0,
) -> Tournament:
    """Fit every form that the design allows, and hold out the ends for each.

    laws: all that are registered. draws: of the bootstraps behind prediction intervals; 0 for none.
    """
    options = options or Options()
    fits: dict[str, Fit] = {}
    reasons: dict[str, str] = {}
    for law in laws or list(LAWS.values()):
        form, reason = adapt(law, points, worst)
        if not reason:
            found = fit(points, form, options)
            reason = "; ".join(found.status.reasons) if not is_usable(found) else ""
            if not reason:
                fits[form.name] = found
        if reason:
            reasons[form.name] = reason
    forms = [found.form for found in fits.values()]
    quick = replace(
        options, starts=min(options.starts, FEW_STARTS), keep=min(options.keep, FEW_KEPT)
    )
    rollouts = rollout(points, forms, quick, draws=draws)
    errors, shared = errors_by_form(rollouts, [form.name for form in forms])
    found_all = Tournament(fits, reasons, rollouts, errors, shared, ())
    told = find_warnings(found_all, points)
    return replace(found_all, warnings=(*told, *(tell_worst(fits) if worst is None else ())))


def tell_worst(fits: Mapping[str, Fit]) -> list[str]:
    """A line where E0 was assumed: a lower one bends the same errors, which is kappa."""
    assumed = [
        name
        for name, found in fits.items()
        if "kappa" in found.law.names and found.form.given.get("worst") == 1
    ]
    if not assumed:
        return []
    return [
        f"kappa of {', '.join(assumed)} is conditional on E0 = 1, as the error of guessing was not "
        "given; for 1 - 1/classes use --worst"
    ]


def find_warnings(found: Tournament, points: Points) -> list[str]:
    by_aicc, by_rollout = found.best_aicc, found.best_rollout
    missed = {name: tell_error(error, points) for name, error in found.errors.items()}
    told = []
    if by_aicc and by_rollout and by_aicc != by_rollout:
        behind = found.fits[by_rollout].aicc - found.fits[by_aicc].aicc
        told.append(
            f"AICc and rollout disagree: {by_aicc} fits best ({by_rollout} {behind:.1f} behind), "
            f"{by_rollout} predicts best ({missed[by_rollout]} off, {by_aicc} {missed[by_aicc]}); "
            "no claim may rest on one of them alone"
        )
    naive = best({name: found.errors[name] for name in BASELINES if name in found.errors})
    if by_rollout and naive and found.errors[naive] <= found.errors[by_rollout]:
        told.append(
            f"no form predicts better than the {naive} ({missed[naive]} off, {by_rollout} "
            f"{missed[by_rollout]}): extrapolate with none of them"
        )
    if len(found.fits) > 1 and not found.shared:
        told.append("no split is predicted by every form: their rollout errors do not compare")
    return told
