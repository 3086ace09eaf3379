"""Worlds that obey a known law: designs and truths for every registered law, alone and noisy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clipa_scaling.fitted import make_problem
from clipa_scaling.lawform import Floats, Law
from clipa_scaling.laws import find_law
from clipa_scaling.minimise import Bools, Problem, from_scale, minimise, to_scale
from clipa_scaling.profile import find_ends
from clipa_scaling.scatter import find_spread
from clipa_scaling.solve import Options, Points, find_delta, fit

SIZES = np.array([22e6, 50e6, 86e6, 304e6])  # image parameters from S/16 to L/16
COUNTS = np.array([1e8, 3e8, 1e9, 3e9])
LENGTHS = np.array([16.0, 36, 49, 100, 196])
PICTURES = 50_000  # of an evaluation; their part of the noise
WORST = 1 - 1 / 1000


def cross(**axes: Floats) -> dict[str, Floats]:
    grids = np.meshgrid(*axes.values(), indexing="ij")
    return {role: grid.ravel() for role, grid in zip(axes, grids, strict=True)}


def repeat(x: Mapping[str, Floats], times: int) -> dict[str, Floats]:
    return {role: np.tile(values, times) for role, values in x.items()}


NARROW = repeat(cross(N=SIZES[[0, 2, 3]], D=COUNTS, T=LENGTHS[[0, 1, 2, 4]]), 2)  # 96 runs
STUDY = cross(N=SIZES, D=COUNTS, T=LENGTHS)  # 80 runs
SMALL = cross(N=SIZES[[0, 2, 3]], T=LENGTHS)  # 15 runs, as a table of the papers
TABLE = repeat(SMALL, 2)  # twice
AXIS = {"C": np.geomspace(1e18, 1e22, 24)}
LONG_AXIS = {"C": np.geomspace(1e18, 1e22, 40)}


@dataclass(frozen=True)
class World:
    """A truth and a design: theta (P,) at centred logs; seed_sd on the scale of the fit.

    On logits the noise is that of `resample.Noise`: seeds, and an evaluation's pictures.
    """

    law: str
    x: Mapping[str, Floats]
    theta: tuple[float, ...]
    scale: str
    seed_sd: float
    decays: bool = False  # all D of a size and length branch from one run, and share its seed

    def points(self) -> Points:
        """Without noise."""
        logs, _ = self.logs()
        law = self.form().bound_to(logs)
        value, _ = law.evaluate(np.array([self.theta]), logs)
        y = from_scale(value, self.scale) if law.on_scale else value
        return Points(self.x, y[0], cluster=self.root().astype(str))

    def root(self) -> NDArray[np.int64]:
        """The root run of each row, (n,)."""
        if not self.decays:
            return np.arange(len(self.x[next(iter(self.x))]))
        pairs = np.column_stack([self.x["N"], self.x["T"]])
        return np.unique(pairs, axis=0, return_inverse=True)[1].ravel()

    def form(self) -> Law:
        law = find_law(self.law)
        return law.like(worst=WORST) if "worst" in law.given else law

    def logs(self) -> tuple[dict[str, Floats], dict[str, float]]:
        logs = {role: np.log(values) for role, values in self.x.items()}
        means = {role: float(values.mean()) for role, values in logs.items()}
        return {role: values - means[role] for role, values in logs.items()}, means

    def truth(self) -> dict[str, float]:
        """Variables in their units."""
        logs, means = self.logs()
        law = self.form().bound_to(logs)
        found = law.uncentre(np.array([self.theta]), means)[0]
        return dict(zip(law.names, found.tolist(), strict=True))

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """y with noise, (count, n)."""
        y = self.points().y
        errors = self.seed_sd * rng.standard_normal((count, len(y)))[:, self.root()]
        if self.scale == "logit":
            errors += rng.standard_normal(errors.shape) / np.sqrt(PICTURES * y * (1 - y))
        return from_scale(to_scale(y, self.scale) + errors, self.scale)


WORLDS = (
    World("primary", STUDY, (0.3, 0.44, 0.39, 0.25, 0.6, 0.21, 1.2, 0.12), "logit", 0.02),
    World("primary", NARROW, (0.3, 0.44, 0.39, 0.25, 0.6, 0.21, 1.2, 0.12), "logit", 0.02),
    World(
        "primary", STUDY, (0.3, 0.44, 0.39, 0.25, 0.6, 0.21, 1.2, 0.12), "logit", 0.02, decays=True
    ),
    World("trend", STUDY, (0.3, 0.44, 0.25, 0.6, 0.3, -0.06, 1.2, 0.12), "logit", 0.02),
    World("trend", NARROW, (0.3, 0.44, 0.25, 0.6, 0.3, -0.06, 1.2, 0.12), "logit", 0.02),
    World("bounded", STUDY, (0.3, 0.44, 0.25, 0.6, 0.1, 0.8, 0.12), "logit", 0.02),
    World("additive", STUDY, (0.12, 0.4, 0.12, 0.5, 0.03, 0.9, 0.15), "log", 0.01),
    World("additive", NARROW, (0.12, 0.4, 0.12, 0.5, 0.03, 0.9, 0.15), "log", 0.01),
    World("multiplicative", STUDY, (0.3, 0.3, 0.35, 0.2, 0.15), "log", 0.01),
    World("loglinear", STUDY, (-1.0, 0.2, 0.25, 0.1), "log", 0.02),
    World("power", AXIS, (0.3, 0.3, 0.15), "log", 0.01),
    World("one_break", LONG_AXIS, (0.3, 0.1, 0.5, 1.5, 0.4, 0.1), "log", 0.01),
    World("per_size", SMALL, (0.05, 0.9, 0.25, -0.5, -0.2, 0.1), "logit", 0.01),
    World("per_size", TABLE, (0.05, 0.9, 0.25, -0.5, -0.2, 0.1), "logit", 0.01),
)


@dataclass(frozen=True)
class Coverage:
    """Of W worlds' 95 % intervals: low and high (W, P), and the truth (P,), in units."""

    names: tuple[str, ...]
    low: Floats
    high: Floats
    truth: Floats
    objective: Floats  # (W,)
    known: Bools  # (W, P, 2): whether each side has an end

    @property
    def held(self) -> Floats:
        """How many hold the truth, (P,)."""
        return np.asarray(((self.low <= self.truth) & (self.truth <= self.high)).sum(axis=0))


def cover(world: World, y: Floats) -> Coverage:
    """The intervals of `profile.intervals` in many worlds y (W, n), as of fits begun at the truth.

    Robust with delta from the noise, as `Options(delta="noise")`.
    """
    points, form = world.points(), world.form()
    units = dict.fromkeys(world.x, 0.0)
    law = form.bound_to({role: np.log(values) for role, values in world.x.items()})
    problem: Problem = replace(
        make_problem(points, law, units, world.scale, np.inf), target=to_scale(y, world.scale)
    )
    truth = np.array([*world.truth().values()])
    u = np.repeat(law.to_coordinates(truth)[None], len(y), axis=0)
    u = minimise(problem, u).u
    problem = replace(problem, delta=find_delta(problem, u))
    found = minimise(problem, u)
    spread = find_spread(problem, found.u, points.codes())
    ends, known = find_ends(problem, found.u, found.objective, spread, range(len(truth)))
    low, high = law.from_coordinates(ends[..., 0]), law.from_coordinates(ends[..., 1])
    parameters = law.parameters
    low = np.where(known[..., 0], low, [parameter.low for parameter in parameters])
    high = np.where(known[..., 1], high, [parameter.high for parameter in parameters])
    return Coverage(law.names, low, high, truth, found.objective, known)


def recover(world: World) -> float:
    """The largest relative error of a parameter, fitted without noise."""
    found = fit(world.points(), world.form(), Options(scale=world.scale, delta="noise")).params
    return max(abs(found[name] / value - 1) for name, value in world.truth().items())
