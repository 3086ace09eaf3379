"""Intervals of a fit's parameters by profile likelihood, and which of them the data do not fix.

These are the intervals of a fit: `bench/laws.csv` has how often they hold the truth, for every law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from clipa_scaling.fitted import Fit, centre
from clipa_scaling.lawform import Floats, LawError, Parameter
from clipa_scaling.minimise import Bools, Problem, minimise
from clipa_scaling.scatter import Spread, find_spread
from clipa_scaling.valleys import Walks, check_ends, follow

LEVEL = 0.95
CLOSE = 2e-3  # of the quantile: an end is then within a thousandth of its distance
TOLERANCE = 1e-5  # of the objective; a squared t then errs by as much times the rows
STEPS = 16
WIDEST = 12.0  # in logarithms: a factor of 160,000 to either side
WIDEST_ERRORS = 100.0
ROWS = 4096  # searches at once
GRID = 25


@dataclass(frozen=True)
class Interval:
    """Of a parameter, variables in their units. reason: why it is not identified, else empty.

    An end that the data do not give is the bound itself, or infinite.
    """

    estimate: float
    low: float
    high: float
    reason: str = ""

    @property
    def identified(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Profile:
    """How much worse the fit is with a parameter held at values (G,): rise in t, its sign dropped.

    An interval is where rise <= quantile.
    """

    name: str
    values: Floats
    rise: Floats
    quantile: float
    interval: Interval


def find_ends(
    problem: Problem, u: Floats, objective: Floats, spread: Spread, wanted: Sequence[int]
) -> tuple[Floats, Bools]:
    """Where the rise reaches the quantile, for B fits: (B, wanted, 2) coordinates.

    And whether that is an end: False where it lies at a bound of the law or too far to matter.
    """
    shape = (len(u), len(wanted), 2)
    fits, place, side = (part.ravel() for part in np.indices(shape))
    column, sign = np.asarray(wanted)[place], 2.0 * side - 1
    ends, known = np.empty(len(fits)), np.empty(len(fits), bool)
    for at in range(0, len(fits), ROWS):
        rows = slice(at, at + ROWS)
        ends[rows], known[rows] = search_ends(
            problem.take(fits[rows]),
            u[fits[rows]],
            objective[fits[rows]],
            spread.count[fits[rows], column[rows]],
            spread.errors[fits[rows]],
            column[rows],
            sign[rows],
            quantile(spread.degrees)[fits[rows]],
        )
    return ends.reshape(shape), known.reshape(shape)


def quantile(degrees: Floats) -> Floats:
    """Of Student's t, two-sided; infinite without any degrees of freedom."""
    return np.where(degrees > 0, stdtrit(np.maximum(degrees, 1e-9), 0.5 + LEVEL / 2), np.inf)


def search_ends(
    problem: Problem,
    u: Floats,
    objective: Floats,
    count: Floats,
    errors: Floats,
    column: NDArray[np.int64],
    sign: Floats,
    goal: Floats,
) -> tuple[Floats, Bools]:
    """One end for each row: bracketed outwards from the estimate, then by false position."""
    rows = np.arange(len(u))
    low, high = (bound[column] for bound in problem.law.box())
    middle, variance = u[rows, column], np.maximum(errors[rows, column, column], 1e-300)
    along = errors[rows, :, column] / variance[:, None]
    is_log = problem.law.is_log[column]
    error = np.sqrt(variance)
    far = np.where(is_log, WIDEST, WIDEST_ERRORS * error)
    inner, inner_rise = np.zeros(len(u)), np.zeros(len(u))  # distances from the estimate
    outer, outer_rise = np.full(len(u), np.inf), np.full(len(u), np.inf)
    wall = np.where(sign > 0, high - middle, middle - low)
    reach = np.minimum(np.minimum(goal * error, far), wall)
    nearest, near = u.copy(), np.zeros(len(u))
    known = np.ones(len(u), bool)
    going = np.flatnonzero(wall > 0)
    known[wall <= 0] = False
    for _ in range(STEPS):
        if len(going) == 0:
            break
        start = nearest[going] + along[going] * (sign * (reach - near))[going, None]
        start[np.arange(len(going)), column[going]] = (middle + sign * reach)[going]
        fixed = np.arange(u.shape[1]) == column[going, None]
        found = minimise(problem.take(going), start, fixed, 40, TOLERANCE)
        rise = np.sqrt(2 * np.maximum(found.objective - objective[going], 0) / count[going])
        inside = rise < goal[going]
        at, out = going[inside], going[~inside]
        inner[at], inner_rise[at], nearest[at], near[at] = (
            reach[at], rise[inside], found.u[inside], reach[at]
        )  # fmt: skip
        outer[out], outer_rise[out] = reach[out], rise[~inside]
        known[at[reach[at] >= np.minimum(wall, far)[at]]] = False
        done = (np.abs(rise - goal[going]) < CLOSE * goal[going]) | ~known[going]
        going = going[~done]
        reach[going] = next_reach(
            inner[going], inner_rise[going], outer[going], outer_rise[going], goal[going]
        )
        reach[going] = np.minimum(reach[going], np.minimum(wall, far)[going])
    known[going] &= np.isfinite(outer[going])
    return middle + sign * reach, known


def next_reach(
    inner: Floats, inner_rise: Floats, outer: Floats, outer_rise: Floats, goal: Floats
) -> Floats:
    """False position between the two, well inside; further out where there is no outer one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = inner * np.clip(1.05 * goal / inner_rise, 1.2, 3.0)
        part = np.clip((goal - inner_rise) / (outer_rise - inner_rise), 0.03, 0.97)
        between = inner + np.where(np.isfinite(outer_rise), part, 0.5) * (outer - inner)
    return np.where(np.isfinite(outer), between, beyond)


# One fit


def natural(fit: Fit) -> tuple[Problem, Floats]:
    """The same fit with logs that are not centred, and its coordinates (1, P).

    A law without `uncentre` whose parameters do depend on it keeps its centred logs.
    """
    units = dict.fromkeys(fit.log_means, 0.0)
    logs = centre(fit.points, fit.form, units)
    law = fit.form.bound_to(logs)
    problem = replace(fit.problem, law=law, logs=logs)
    u = law.to_coordinates(law.uncentre(fit.theta[None], fit.log_means))
    if np.allclose(problem.residuals(u)[0], fit.residuals, atol=1e-7 + 1e-6 * fit.sd):
        return problem, u
    return fit.problem, fit.law.to_coordinates(fit.theta)[None]


def intervals(fit: Fit) -> dict[str, Interval]:
    """The 95 % interval of every parameter, variables in their units.

    Each end holds along the valley followed from the estimate, as `profile` shows it.
    """
    return dict(zip(fit.law.names, find_intervals(fit, range(len(fit.theta))), strict=True))


def find_intervals(fit: Fit, wanted: Sequence[int]) -> list[Interval]:
    reason = tell_none(fit)
    if reason:
        return [Interval(np.nan, np.nan, np.nan, reason) for _ in wanted]
    walks, ends, known = locate(fit, wanted)
    return [describe(walks.problem, j, walks.u, ends[at], known[at]) for at, j in enumerate(wanted)]


def tell_none(fit: Fit) -> str:
    if fit.status.kind == "not identified" or fit.degrees < 1:
        return "; ".join(fit.status.reasons) or "no more rows than parameters"
    return ""


def locate(fit: Fit, wanted: Sequence[int]) -> tuple[Walks, Floats, Bools]:
    """Ends (wanted, 2) and whether they are ends, those moved out that bent valleys lie below.

    And the walks there, low and high of each wanted in turn.
    """
    problem, u = natural(fit)
    spread = find_spread(problem, u, fit.points.codes())
    objective = problem.objective(problem.residuals(u))
    found, are_ends = find_ends(problem, u, objective, spread, wanted)
    ends, known = found[0].ravel(), are_ends[0].ravel()
    column, sign = np.repeat(wanted, 2), np.tile([-1.0, 1.0], len(wanted))
    variance = np.maximum(np.diagonal(spread.errors[0])[column], 1e-300)
    far = np.where(problem.law.is_log[column], WIDEST, WIDEST_ERRORS * np.sqrt(variance))
    low, high = (bound[column] for bound in problem.law.box())
    walks = Walks(
        problem=problem,
        u=u[0],
        objective=float(objective[0]),
        column=column,
        along=spread.errors[0][column] / variance[:, None],
        count=spread.count[0, column],
        goal=float(quantile(spread.degrees)[0]),
        reach=ends,
        limit=np.clip(u[0, column] + sign * far, low, high),
    )
    ends, check = ends.copy(), np.flatnonzero(known)
    ends[check], known[check] = check_ends(walks.take(check))
    return walks, ends.reshape(-1, 2), known.reshape(-1, 2)


def describe(problem: Problem, j: int, u: Floats, ends: Floats, known: Bools) -> Interval:
    """An end that is none is the law's bound; beyond it the parameter could be anything."""
    parameter = problem.law.parameters[j]
    both = np.repeat(u[None], 2, axis=0)
    both[:, j] = ends
    bounds = np.array([parameter.low, parameter.high])
    low, high = np.where(known, problem.law.from_coordinates(both)[:, j], bounds)
    estimate = float(problem.law.from_coordinates(u)[j])
    reason = ""
    if not known.any():
        reason = f"every value from {parameter.low:g} to {parameter.high:g} fits about as well"
    elif not (known[0] or is_value(parameter, "low")):
        reason = f"no lower end above {parameter.low:g}"
    elif not (known[1] or is_value(parameter, "high")):
        reason = f"no upper end below {parameter.high:g}"
    return Interval(estimate, float(low), float(high), reason)


def is_value(parameter: Parameter, end: str) -> bool:
    """Whether a bound is a value like others, as a floor of 0; a limit of a search is none."""
    if parameter.kind == "between":
        return True
    return parameter.kind == "free" and end == "low" and np.isinf(parameter.high)


def profile(fit: Fit, name: str) -> Profile:
    """The rise of the objective along one parameter, past both ends of its interval."""
    if name not in fit.law.names:
        raise LawError(f"parameter {name!r}; {fit.law.name} has {', '.join(fit.law.names)}")
    reason = tell_none(fit)
    if reason:
        raise LawError(f"{name}: {reason}")
    j = fit.law.names.index(name)
    walks, [ends], [known] = locate(fit, [j])
    interval = describe(walks.problem, j, walks.u, ends, known)
    least, most = (bound[j] for bound in walks.problem.law.box())
    far = np.clip(ends + 0.2 * (ends[1] - ends[0]) * np.array([-1, 1]), least, most)
    coordinates, rise = follow(walks, far, GRID // 2)
    values = walks.problem.law.from_coordinates(coordinates)[:, j]
    return Profile(name, values, rise, walks.goal, interval)
