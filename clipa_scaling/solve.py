"""Points and a law -> the law's parameters: many starts, the best polished, a typed status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from clipa_scaling.fitted import Fit, Options, Points, Status, centre, make_problem
from clipa_scaling.identify import find_faults
from clipa_scaling.lawform import Floats, Law
from clipa_scaling.minimise import Minimum, Problem, even_numbers, from_scale, minimise, screen

__all__ = ["Fit", "Options", "Points", "Status", "fit"]

LOG_DELTA = 1e-3  # on the log of a loss: arXiv:2203.15556, section 3.3
EFFICIENT = 1.345  # standard deviations: Huber's estimate is then 95 % efficient on normal noise
LEAST_DELTA = 1e-9  # where nothing scatters
SAME_OBJECTIVE, SAME_PLACE = 1e-6, 1e-3
MOST_CONDITION = 1e10
MOST_SPREAD = 2.0  # standard error of a logarithm: its 95 % interval spans a factor of 3,000
STATIONARY = 1e-8  # gain of a further step, over the objective


def fit(points: Points, law: Law, options: Options | None = None) -> Fit:
    """The law that fits the points best; where the design cannot identify it, NaN and the reasons.

    Errors: LawError where a row has no value on the scale, or no start has one.
    """
    options = options or Options()
    log_means = {
        role: float(np.log(points.x[role]).mean()) for role in law.roles if role in points.x
    }
    faults = find_faults(points.x, law) if len(log_means) < len(law.roles) else ()
    bound = law if faults else law.bound_to(centre(points, law, log_means))
    faults = faults or find_faults(points.x, bound)
    if faults:
        unknown = np.full(len(bound.parameters), np.nan)
        status = Status("not identified", faults)
        nan = float("nan")
        return Fit(points, law, bound, options, log_means, unknown, nan, status, 0, nan, nan)
    estimated = options.delta == "noise" or (options.delta is None and options.scale != "log")
    delta = np.inf if estimated else float(options.delta or LOG_DELTA)
    problem = make_problem(points, bound, log_means, options.scale, delta)
    found = search(problem, options)
    if estimated:
        best = found.u[[found.objective.argmin()]]
        problem = replace(problem, delta=float(find_delta(problem, best)[0, 0]))
        found = minimise(problem, found.u, None, options.iterations, options.tolerance)
    return describe(points, law, options, log_means, problem, found)


def search(problem: Problem, options: Options) -> Minimum:
    """The minima that the best of many starts lead to."""
    law, logs = problem.law, problem.logs
    y = problem.target if law.on_scale else from_scale(problem.target, problem.scale)

    def draw(count: int) -> Floats:
        uniform = even_numbers(count, len(law.parameters), options.seed)
        return law.to_coordinates(law.starts(uniform, logs, y))

    begun = screen(problem, draw, options.starts, options.keep)
    return minimise(problem, begun, None, options.iterations, options.tolerance)


def find_delta(problem: Problem, u: Floats) -> Floats:
    """1.345 standard deviations of the residuals of B fits, (B, 1), by their median size.

    As many of the smallest as the law has parameters are left out: it was fitted to them.
    """
    sizes = np.sort(np.abs(problem.residuals(u)), axis=1)
    spare = min(u.shape[1], sizes.shape[1] - 1)
    sd = 1.4826 * np.median(sizes[:, spare:], axis=1)
    return np.asarray(np.maximum(EFFICIENT * sd, LEAST_DELTA)[:, None])


def describe(
    points: Points,
    law: Law,
    options: Options,
    log_means: Mapping[str, float],
    problem: Problem,
    found: Minimum,
) -> Fit:
    best = int(found.objective.argmin())
    objective, u = float(found.objective[best]), found.u[best]
    slack = SAME_OBJECTIVE * objective + 1e-24 * len(points)
    reached = found.objective <= objective + slack
    spread = np.ptp(found.u[reached], axis=0)
    residuals, slopes = problem.slopes(u[None])
    free = ~found.held[best]
    squares = slopes[0].T @ slopes[0]
    norms = np.sqrt(np.maximum(np.diagonal(squares), 1e-300))
    scaled = (squares / norms / norms[:, None])[np.ix_(free, free)]
    roots, vectors = np.linalg.eigh(scaled)
    condition = float(roots[-1] / max(roots[0], 1e-300))
    errors = np.zeros(len(u))
    errors[free] = find_sd(problem, residuals[0], len(u)) * (
        np.sqrt((vectors**2 / np.maximum(roots, 1e-300)).sum(axis=1)) / norms[free]
    )
    status = judge(problem, found, best, int(reached.sum()), condition, errors, spread)
    return Fit(
        points,
        law,
        problem.law,
        options,
        log_means,
        problem.law.from_coordinates(u),
        objective,
        status,
        int(reached.sum()),
        condition,
        float(problem.delta),
    )


def find_sd(problem: Problem, residuals: Floats, count: int) -> float:
    """Huber's standard deviation of a residual, as it acts on the parameters' errors.

    P. Huber, Robust Statistics (1981), section 7.6.
    """
    pull = np.clip(residuals, -problem.delta, problem.delta)
    inside = max(float((np.abs(residuals) <= problem.delta).mean()), 1 / len(residuals))
    return float(np.sqrt((pull**2).sum() / max(len(residuals) - count, 1)) / inside)


def judge(
    problem: Problem,
    found: Minimum,
    best: int,
    reached: int,
    condition: float,
    errors: Floats,
    spread: Floats,
) -> Status:
    """What the fit is worth, the gravest reason first."""
    law = problem.law
    names = np.array(law.names)
    if len(found.u) > 1 and reached < 2:
        return Status(
            "starts disagree", ("only one of the polished starts ends at the best value",)
        )
    if found.objective[best] > 1e-24 * len(problem.unit) and found.decrement[best] > STATIONARY:
        told = f"a further step would gain {found.decrement[best]:.1g} of the objective"
        return Status("starts disagree", (told,))
    low, high = law.box()
    at = np.flatnonzero(found.held[best] & ((found.u[best] <= low) | (found.u[best] >= high)))
    if len(at):
        theta = law.from_coordinates(found.u[best])
        ends = [f"{names[j]} ({law.parameters[j].meaning}) at {theta[j]:.4g}" for j in at]
        return Status("at bound", tuple(ends))
    loose = names[law.is_log & (errors > MOST_SPREAD)]
    if len(loose):
        return Status("ridge", (f"{', '.join(loose)}: unknown to a factor of 50 either way",))
    apart = names[spread > SAME_PLACE * np.maximum(1.0, np.abs(found.u[best]))]
    if len(apart):
        return Status("ridge", (f"starts end at other {', '.join(apart)}, as good",))
    if condition > MOST_CONDITION:
        return Status("ridge", (f"curvature of condition {condition:.1g}",))
    return Status("converged")
