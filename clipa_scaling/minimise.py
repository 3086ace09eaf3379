"""Many robust least-squares fits of one law at once: starts, bootstraps, profiles, worlds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clipa_scaling.lawform import Floats, Law, LawError, Logs

Bools = NDArray[np.bool_]
Scale = str
STEP = 6e-6  # of differences, in coordinates: the cube root of the rounding error
SLOW = 1e-2  # gain of a step, over the objective, below which true curvature pays
LASTING = 0.1  # and over the gain before
UNSURE = 1e-2
NEAR = 1e-3  # of the objective's own width: what is pushed to a bound from nearer is put there
CURVED, BEND = 12, 0.75  # steps until a valley counts as bent, and the most that a step is bent by
LEAST_DAMPING, MOST_DAMPING = 1e-12, 1e12
CHUNK = 400_000  # numbers of one evaluation that stay near the processor


def to_scale(y: Floats, scale: Scale) -> Floats:
    """y on the scale of the fit; NaN where it has no value there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "log":
            return np.log(y)
        return np.log(y) - np.log1p(-y) if scale == "logit" else y


def slope_of(y: Floats, scale: Scale) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        if scale == "log":
            return 1 / y
        return 1 / (y * (1 - y)) if scale == "logit" else np.ones_like(y)


def from_scale(z: Floats, scale: Scale) -> Floats:
    if scale == "log":
        return np.exp(z)
    return np.asarray(1 / (1 + np.exp(-z))) if scale == "logit" else z


@dataclass(frozen=True)
class Problem:
    """Minimise the sum of weights x Huber(unit x (law - target)) over the law's parameters.

    logs: (n,) each; target: (n,) or (B, n), on the scale; unit (n,): what one step of a row counts,
    1 over its relative noise; weights: (n,) or (B, n), how often a row is there. delta: from where
    residuals count by their size, not their square; infinite for least squares.
    """

    law: Law
    logs: Logs
    target: Floats
    unit: Floats
    weights: Floats
    scale: Scale
    delta: float | Floats  # one, or (B, 1)

    def take(self, rows: NDArray[np.int64] | Bools) -> Problem:
        """The fits `rows` among B."""
        delta = self.delta
        return replace(
            self,
            target=self.target if self.target.ndim == 1 else self.target[rows],
            weights=self.weights if self.weights.ndim == 1 else self.weights[rows],
            delta=delta[rows] if isinstance(delta, np.ndarray) and delta.ndim else delta,
        )

    def residuals(self, u: Floats) -> Floats:
        """(B, n); NaN where the law has no value on the scale."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value, _ = self.law.evaluate(self.law.from_coordinates(u), self.logs)
            z = value if self.law.on_scale else to_scale(value, self.scale)
            return np.asarray((z - self.target) * self.unit)

    def slopes(self, u: Floats) -> tuple[Floats, Floats]:
        """Residuals (B, n), and their slopes by coordinates, (B, n, P)."""
        theta = self.law.from_coordinates(u)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value, by_theta = self.law.evaluate(theta, self.logs)
            if by_theta is None:
                return self.residuals(u), self.differences(u)
            z = value if self.law.on_scale else to_scale(value, self.scale)
            factor = self.unit
            if not self.law.on_scale:
                factor = self.unit * slope_of(value, self.scale)
            chain = np.where(self.law.is_log, theta, 1.0)[:, None, :]
            return (z - self.target) * self.unit, by_theta * factor[..., None] * chain

    def differences(self, u: Floats) -> Floats:
        found = np.empty((len(u), len(self.unit), u.shape[1]))
        for at in range(u.shape[1]):
            step = STEP * np.maximum(1.0, np.abs(u[:, at]))
            ahead, behind = u.copy(), u.copy()
            ahead[:, at] += step
            behind[:, at] -= step
            change = self.residuals(ahead) - self.residuals(behind)
            found[:, :, at] = change / (2 * step[:, None])
        return found

    def objective(self, residuals: Floats) -> Floats:
        """(B,); infinite where a row has no value."""
        size = np.abs(residuals)
        least = np.minimum(size, self.delta)
        with np.errstate(invalid="ignore"):
            total = (self.weights * least * (size - 0.5 * least)).sum(axis=1)
        return np.where(np.isfinite(total), total, np.inf)

    def gradient(self, residuals: Floats, slopes: Floats) -> Floats:
        """(B, P)."""
        pull = self.weights * np.clip(residuals, -self.delta, self.delta)
        return np.asarray((pull[:, None, :] @ slopes)[:, 0])

    def majorant(self, residuals: Floats, slopes: Floats) -> Floats:
        """(B, P, P): the curvature of the squares that lie above Huber's function."""
        with np.errstate(divide="ignore"):
            weight = self.weights * np.minimum(1.0, self.delta / np.abs(residuals))
        return np.asarray(slopes.swapaxes(1, 2) @ (slopes * weight[..., None]))

    def curvature(self, u: Floats) -> Floats:
        """(B, P, P): the true one, by differences of the gradient."""
        count = u.shape[1]
        found = np.empty((len(u), count, count))
        for at in range(count):
            step = STEP * np.maximum(1.0, np.abs(u[:, at]))
            ahead, behind = u.copy(), u.copy()
            ahead[:, at] += step
            behind[:, at] -= step
            change = self.gradient(*self.slopes(ahead)) - self.gradient(*self.slopes(behind))
            found[:, at] = change / (2 * step[:, None])
        return 0.5 * (found + found.swapaxes(1, 2))


@dataclass(frozen=True)
class Minimum:
    """Where B searches ended; u (B, P), objective (B,), held (B, P): fixed, or at a bound.

    decrement (B,): what a further step would gain, over the objective.
    """

    u: Floats
    objective: Floats
    held: Bools
    decrement: Floats


def minimise(
    problem: Problem,
    u: Floats,
    fixed: Bools | None = None,
    iterations: int = 200,
    tolerance: float = 1e-12,
) -> Minimum:
    """The nearest minimum to each start u (B, P), coordinates in `fixed` (P,) or (B, P) held.

    Levenberg's and Marquardt's damped steps: with the curvature of squares that lie above the
    objective while these gain, then with the true one, whose negative directions are turned round.
    Bounds are a box: what pushes against one is held there until it no longer does. Nothing here
    depends on the units of the objective, of a coordinate, or on the order of rows.
    """
    low, high = problem.law.box()
    u = np.clip(u, low, high)
    count, size = u.shape
    fixed = np.broadcast_to(np.zeros(size, bool) if fixed is None else fixed, u.shape)
    value = problem.objective(problem.residuals(u))
    damping, exact = np.full(count, 1e-3), np.zeros(count, bool)
    held, decrement, last = fixed.copy(), np.full(count, np.inf), np.full(count, np.inf)
    going = np.flatnonzero(np.isfinite(value))
    for passed in range(iterations):
        if len(going) == 0:
            break
        here, at = problem.take(going), u[going]
        trial, gain, held[going] = propose(
            here, at, value[going], fixed[going], damping[going], exact[going], passed >= CURVED
        )
        after = here.objective(here.residuals(trial))
        better = after < value[going]
        gained = np.where(better, value[going] - after, 0.0)
        decrement[going] = gain / np.maximum(value[going], 1e-300)
        slow = better & (gained < SLOW * value[going]) & (gained > LASTING * last[going])
        # The majorant may be far above the true curvature, and then expects too little.
        done = decrement[going] < np.where(exact[going], tolerance, UNSURE * tolerance)
        done |= ~better & (damping[going] >= MOST_DAMPING)
        u[going[better]], value[going[better]] = trial[better], after[better]
        exact[going] |= slow | (decrement[going] < tolerance) & ~done
        last[going] = gained
        factor = np.where(better, 0.1, 10.0)
        damping[going] = np.clip(damping[going] * factor, LEAST_DAMPING, MOST_DAMPING)
        going = going[~done & (value[going] > 0)]
    nearest = np.where(np.abs(u - low) < np.abs(u - high), low, high)
    return Minimum(np.where(held & ~fixed, nearest, u), value, held, decrement)


def propose(
    problem: Problem,
    u: Floats,
    value: Floats,
    fixed: Bools,
    damping: Floats,
    exact: Bools,
    bent: bool,
) -> tuple[Floats, Floats, Bools]:
    """Where to go from u (B, P), what an undamped step would gain, and what is held."""
    low, high = problem.law.box()
    residuals, slopes = problem.slopes(u)
    gradient, matrix = problem.gradient(residuals, slopes), problem.majorant(residuals, slopes)
    # Scaled by the squares' own curvature, so that no unit matters.
    spread = 1 / np.sqrt(np.maximum(np.diagonal(matrix, axis1=1, axis2=2), 1e-300))
    newton = np.flatnonzero(exact)
    if len(newton):
        matrix[newton] = problem.take(newton).curvature(u[newton])
    near = NEAR * spread * np.sqrt(value[:, None])
    pushed = ((u <= low + near) & (gradient > 0)) | ((u >= high - near) & (gradient < 0))
    pushed &= ~fixed
    scaled = matrix * spread[:, :, None] * spread[:, None, :]
    solve, gain = damped(scaled, gradient * spread, ~(fixed | pushed), damping)
    step = solve(gradient * spread) * spread
    if bent:
        bend = solve(bending(problem, u, step, residuals, slopes) * spread) * spread
        usable = length(bend / spread) < BEND * length(step / spread)
        step = np.where(usable, step + bend / 2, step)
    trial = np.where(pushed, np.where(gradient > 0, low, high), u + step)
    return np.clip(trial, low, high), gain, fixed | pushed


def length(steps: Floats) -> Floats:
    return np.asarray(np.abs(steps).sum(axis=1, keepdims=True))


def damped(
    matrix: Floats, gradient: Floats, free: Bools, damping: Floats
) -> tuple[Callable[[Floats], Floats], Floats]:
    """The damped step against any pull (B, P), and what `gradient`'s undamped one gains, (B,)."""
    both = free[:, :, None] & free[:, None, :]
    matrix = np.where(both, matrix, np.eye(matrix.shape[1]))
    roots, vectors = np.linalg.eigh(np.where(np.isfinite(matrix), matrix, 0.0))
    roots = np.abs(roots)
    roots = np.maximum(roots, 1e-14 * np.maximum(roots.max(axis=1, keepdims=True), 1e-300))

    def turn(pull: Floats) -> Floats:
        known = np.where(free & np.isfinite(pull), pull, 0.0)
        return np.asarray((known[:, None, :] @ vectors)[:, 0])

    def solve(pull: Floats) -> Floats:
        step = -(vectors @ (turn(pull) / (roots + damping[:, None]))[..., None])[..., 0]
        return np.where(free, step, 0.0)

    return solve, (turn(gradient) ** 2 / roots).sum(axis=1) / 2


def bending(problem: Problem, u: Floats, step: Floats, residuals: Floats, slopes: Floats) -> Floats:
    """The pull (B, P) by which residuals curve along a step: it leads round bent ridges.

    M. Transtrum and J. Sethna, arXiv:1201.5885, geodesic acceleration.
    """
    part = 0.1
    ahead = problem.residuals(u + part * step)
    straight = (slopes @ step[..., None])[..., 0]
    second = 2 / part * ((ahead - residuals) / part - straight)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = problem.weights * np.minimum(1.0, problem.delta / np.abs(residuals))
        return np.asarray(((weight * second)[:, None, :] @ slopes)[:, 0])


def screen(problem: Problem, draw: Callable[[int], Floats], starts: int, keep: int) -> Floats:
    """The best `keep` of `starts` coordinates that draw(count) gives, (keep, P), best first."""
    size = max(1, CHUNK // len(problem.unit))
    u = draw(starts)
    low, high = problem.law.box()
    u = np.clip(u, low, high)
    found = np.concatenate(
        [problem.objective(problem.residuals(u[at : at + size])) for at in range(0, len(u), size)]
    )
    if not np.isfinite(found).any():
        raise LawError(f"law {problem.law.name}: none of {starts} starts has a value on every row")
    order = np.argsort(found, kind="stable")[:keep]
    return np.asarray(u[order[np.isfinite(found[order])]])


def even_numbers(count: int, size: int, seed: int) -> Floats:
    """Numbers in (0, 1), (count, size), more even than random ones: a shifted additive recurrence.

    M. Roberts' R sequence: multiples of powers of the inverse of the root of x^(size + 1) = x + 1.
    """
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (size + 1))
    shift = np.random.default_rng(seed).random(size)
    found = (shift + np.outer(np.arange(1, count + 1), root ** -np.arange(1.0, size + 1))) % 1.0
    return np.clip(found, 1e-9, 1 - 1e-9)
