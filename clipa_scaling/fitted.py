"""Points, options, and the law fitted to them, with a status that says what it is worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clipa_scaling.lawform import Floats, Law, LawError, Logs
from clipa_scaling.laws import find_law
from clipa_scaling.minimise import Problem, from_scale, slope_of, to_scale

Kind = Literal["converged", "at bound", "ridge", "starts disagree", "not identified"]
SCALES = ("log", "raw", "logit")


@dataclass(frozen=True)
class Points:
    """The rows of a fit: variables by role, each (n,), in units; y, an error or a loss.

    columns: which column of the schema each role and "y" is. cluster: rows whose errors are not
    independent, as those of one root run. noise: the standard deviation of each y, or None; only
    its ratios count, its size is estimated.
    """

    x: Mapping[str, Floats]
    y: Floats
    columns: Mapping[str, str] = field(default_factory=dict)
    cluster: np.ndarray | None = None
    run: np.ndarray | None = None
    noise: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.y)
        for name in ("cluster", "run"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.array([str(at) for at in range(n)]))
        rows = {**self.x, "cluster": self.cluster, "run": self.run, "noise": self.noise}
        for name, values in rows.items():
            if values is not None and len(values) != n:
                raise LawError(f"points: {name} has {len(values)} rows, y has {n}")
        for role, values in self.x.items():
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise LawError(f"points: {role} has values that are not positive numbers")
        if self.noise is not None and not (self.noise > 0).all():
            raise LawError("points: noise must be positive; None where it is unknown")

    def __len__(self) -> int:
        return len(self.y)

    def codes(self) -> NDArray[np.int64]:
        """The cluster of each row as a number from 0, (n,)."""
        return np.unique(np.asarray(self.cluster), return_inverse=True)[1].astype(np.int64)

    def take(self, rows: np.ndarray) -> Points:
        """The rows of a mask or of places."""
        assert self.cluster is not None and self.run is not None
        return replace(
            self,
            x={role: values[rows] for role, values in self.x.items()},
            y=self.y[rows],
            cluster=self.cluster[rows],
            run=self.run[rows],
            noise=None if self.noise is None else self.noise[rows],
        )

    def to_columns(self) -> dict[str, list[Any]]:
        assert self.cluster is not None and self.run is not None
        found: dict[str, list[Any]] = {role: self.x[role].tolist() for role in sorted(self.x)}
        found |= {"y": self.y.tolist(), "cluster": self.cluster.tolist(), "run": self.run.tolist()}
        return found if self.noise is None else {**found, "noise": self.noise.tolist()}

    def digest(self) -> str:
        """sha256 of the rows, whatever their order."""
        held = self.to_columns()
        rows = sorted(json.dumps(row) for row in zip(*held.values(), strict=True))
        return hashlib.sha256("\n".join([json.dumps(list(held)), *rows]).encode()).hexdigest()


@dataclass(frozen=True)
class Options:
    """How to fit: the sum of Huber's function of residuals on a scale, from many starts.

    delta: where residuals begin to count by their size; infinite is least squares, "noise" is 1.345
    standard deviations of the residuals, None is 1e-3 on logs and "noise" on other scales. 1e-3
    suits losses that scatter by as much; where they scatter more it is nearly least absolute
    deviations, and intervals from few rows are rough. starts are screened, `keep` polished.
    """

    scale: str = "log"
    delta: float | Literal["noise"] | None = None
    starts: int = 4096
    keep: int = 16
    seed: int = 0
    iterations: int = 400
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise LawError(f"scale={self.scale!r}; allowed: {', '.join(SCALES)}")
        if self.delta not in (None, "noise") and not read_delta(self.delta) > 0:
            raise LawError(f"delta={self.delta!r} must be positive, or noise, or None")


@dataclass(frozen=True)
class Status:
    kind: Kind
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}: {'; '.join(self.reasons)}" if self.reasons else self.kind


@dataclass(frozen=True)
class Fit:
    """A fitted law. theta (P,) belongs to centred logs; params are for variables in their units.

    form is the law as it was given, law the same bound to these points. condition: of the scaled
    curvature. starts_reached: how many of the polished starts ended at this objective.
    """

    points: Points
    form: Law
    law: Law
    options: Options
    log_means: Mapping[str, float]
    theta: Floats
    objective: float
    status: Status
    starts_reached: int
    condition: float
    delta: float

    @property
    def params(self) -> dict[str, float]:
        """By name, for variables in their units; NaN where the fit is not identified."""
        if np.isnan(self.theta).all():
            return dict.fromkeys(self.law.names, float("nan"))
        natural = self.law.uncentre(self.theta[None], self.log_means)[0]
        return dict(zip(self.law.names, natural.tolist(), strict=True))

    @property
    def degrees(self) -> int:
        """Rows less parameters."""
        return len(self.points) - len(self.theta)

    @cached_property
    def problem(self) -> Problem:
        return make_problem(self.points, self.law, self.log_means, self.options.scale, self.delta)

    @cached_property
    def residuals(self) -> Floats:
        """Law less data on the scale, (n,), over the relative noise of each row."""
        u = self.law.to_coordinates(self.theta)
        return np.asarray(self.problem.residuals(u[None])[0])

    @property
    def sd(self) -> float:
        """The standard deviation of a residual, with rows less parameters degrees of freedom."""
        return float(np.sqrt((self.residuals**2).sum() / max(self.degrees, 1)))

    @property
    def aicc(self) -> float:
        """Akaike's criterion, corrected, of normal residuals on the scale; less is better.

        Comparable only between fits of the same points on the same scale; infinite where there are
        too few rows for it.
        """
        n, k = len(self.points), len(self.theta) + 1
        if n - k - 1 <= 0:
            return float("inf")
        with np.errstate(divide="ignore"):
            level = n * np.log((self.residuals**2).mean())
        return float(level + 2 * k + 2 * k * (k + 1) / (n - k - 1))

    def predict(self, x: Mapping[str, Floats]) -> Floats:
        """y at variables in their units, each (n,)."""
        return np.asarray(self.predict_all(self.theta[None], x)[0])

    def predict_all(self, theta: Floats, x: Mapping[str, Floats]) -> Floats:
        """y (B, n) for many theta (B, P), as those of a bootstrap."""
        logs = {
            role: np.log(np.asarray(x[role], float)) - self.log_means[role]
            for role in self.law.roles
        }
        with np.errstate(over="ignore", invalid="ignore"):
            value, _ = self.law.evaluate(theta, logs)
        return from_scale(value, self.options.scale) if self.law.on_scale else value

    def to_json(self) -> str:
        """Everything, 17 digits; the rows with their digest."""
        law = {key: getattr(self.form, key) for key in ("name", "formula", "citation", "roles")}
        held = {
            "law": {**law, "given": dict(self.form.given)},
            "options": {**asdict(self.options), "delta": named(self.options.delta)},
            "status": asdict(self.status),
            "objective": named(self.objective),
            "params": {name: named(value) for name, value in self.params.items()},
            "theta": [named(value) for value in self.theta.tolist()],
            "log_means": dict(self.log_means),
            "starts_reached": self.starts_reached,
            "condition": named(self.condition),
            "delta": named(self.delta),
            "aicc": named(self.aicc),
            "digest": self.points.digest(),
            "columns": dict(self.points.columns),
            "rows": self.points.to_columns(),
        }
        return json.dumps(held, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, law: Law | None = None) -> Fit:
        """A stored fit, alone or in all that `fit --save` keeps; rows must have their digest.

        law: where it is not a registered one.
        """
        held = json.loads(text)
        held = held.get("fit") or held
        form = law or find_law(held["law"]["name"])
        if law is None and form.remake is not None:
            form = form.like(held["law"]["roles"], **held["law"]["given"])
        rows = {key: np.array(values) for key, values in held["rows"].items()}
        others = {key: rows.pop(key) for key in ("y", "cluster", "run", "noise") if key in rows}
        points = Points(x=rows, columns=held["columns"], **others)
        if points.digest() != held["digest"]:
            raise LawError(
                "stored fit: its rows were changed, they do not have the digest it names"
            )
        logs = centre(points, form, held["log_means"])
        options = Options(**{**held["options"], "delta": read_delta(held["options"]["delta"])})
        status = Status(held["status"]["kind"], tuple(held["status"]["reasons"]))
        return cls(
            points=points,
            form=form,
            law=form.bound_to(logs),
            options=options,
            log_means=held["log_means"],
            theta=np.array([float(value) for value in held["theta"]]),
            objective=float(held["objective"]),
            status=status,
            starts_reached=held["starts_reached"],
            condition=float(held["condition"]),
            delta=float(held["delta"]),
        )


def named(value: float | str | None) -> float | str | None:
    """JSON has no word for what is not finite."""
    return value if value is None or isinstance(value, str) or np.isfinite(value) else str(value)


def read_delta(value: float | str | None) -> Any:
    return value if value in (None, "noise") else float(value or "nan")


def centre(points: Points, law: Law, log_means: Mapping[str, float]) -> dict[str, Floats]:
    return {role: np.log(points.x[role]) - log_means[role] for role in law.roles}


def make_problem(
    points: Points, law: Law, log_means: Mapping[str, float], scale: str, delta: float
) -> Problem:
    """The search for a law already bound; a row's unit is its relative precision on the scale."""
    unit = np.ones(len(points))
    if points.noise is not None:
        precision = 1 / (points.noise * np.abs(slope_of(points.y, scale)))
        unit = precision / np.exp(np.log(precision).mean())
    target = to_scale(points.y, scale)
    if not np.isfinite(target).all():
        first = points.y[~np.isfinite(target)][0]
        raise LawError(f"points: y={first:g} has no {scale}; exclude it or choose another scale")
    logs: Logs = centre(points, law, log_means)
    return Problem(law, logs, target, unit, np.ones(len(points)), scale, delta)
