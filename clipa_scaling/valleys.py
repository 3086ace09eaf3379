"""A fit's valley followed with one parameter held, step by step: it bends, and a line leaves it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clipa_scaling.lawform import Floats
from clipa_scaling.minimise import Bools, Problem, minimise

STEPS = 8  # to an end that is to be checked
GROWTH = 1.5  # of the steps beyond it
MOST = 60  # steps of one walk
ITERATIONS, TOLERANCE = 100, 1e-8
CLOSE = 2e-3  # of the goal
NARROW = 1e-6  # of the distance from the estimate
AGREED = 1e-2  # of the goal: an end whose rise lacks less stays as it is


@dataclass(frozen=True)
class Walks:
    """From one estimate u (P,), for each of R rows: along the coordinate `column`, held, outwards.

    goal: the rise in t looked for, where `count` turns the objective's into it. along (R, P): how
    the others move with the one, at the estimate. reach, limit: places of the end to check, and of
    the last that may be tried, on the same side of the estimate.
    """

    problem: Problem
    u: Floats
    objective: float
    column: NDArray[np.int64]
    along: Floats
    count: Floats
    goal: float
    reach: Floats
    limit: Floats

    def take(self, rows: NDArray[np.int64] | Bools) -> Walks:
        parts = ("column", "along", "count", "reach", "limit")
        return replace(self, **{name: getattr(self, name)[rows] for name in parts})

    @property
    def origin(self) -> Floats:
        return np.asarray(self.u[self.column])

    def step(self, now: Floats, along: Floats, place: Floats) -> tuple[Floats, Floats]:
        """The valley's floor (R, P) at places (R,), sought from the floors `now`, and its rise."""
        rows = np.arange(len(now))
        fixed = np.arange(len(self.u)) == self.column[:, None]
        problem = self.problem.take(np.zeros(len(rows), int))
        # A line that leaves the valley may begin far above it, where another does not.
        moved = (place - now[rows, self.column])[:, None]
        starts = np.stack([now + slope * moved for slope in (along, self.along, 0 * along)])
        starts[:, rows, self.column] = place
        begun = [problem.objective(problem.residuals(start)) for start in starts]
        start = starts[np.argmin(begun, axis=0), rows]
        best = minimise(problem, start, fixed, ITERATIONS, TOLERANCE)
        rise = np.sqrt(2 * np.maximum(best.objective - self.objective, 0) / self.count)
        return best.u, rise


def check_ends(walks: Walks) -> tuple[Floats, Bools]:
    """The ends (R,), further out where the valley still lies below the goal, and if they are ends.

    False where it lies below the goal as far as the limit. Never further in: each end had something
    below the goal just inside it.
    """
    origin = walks.origin
    now, along = np.repeat(walks.u[None], len(origin), axis=0), walks.along.copy()
    ends, known = walks.reach.copy(), np.ones(len(origin), bool)
    going = np.arange(len(origin))
    for part in np.linspace(0, 1, STEPS + 1)[1:]:
        here = walks.take(going)
        place = origin[going] + part * (here.reach - origin[going])
        found, rise = here.step(now[going], along[going], place)
        below = rise < (1 - AGREED) * here.goal
        along[going] = chord(now[going], found, here.column)
        now[going] = found
        going = going[below]
        if len(going) == 0:
            return ends, known
    ends[going], known[going] = walk_on(walks.take(going), now[going], along[going])
    return ends, known


def walk_on(walks: Walks, now: Floats, along: Floats) -> tuple[Floats, Bools]:
    """From floors (R, P) below the goal: in growing steps to past it, then halving back to it."""
    going = np.arange(len(now))
    inner, outer = now[going, walks.column], np.full(len(now), np.nan)
    stride = (walks.reach - walks.origin) / STEPS
    ends, known = inner.copy(), np.ones(len(now), bool)
    for _ in range(MOST):
        if len(going) == 0:
            break
        here, near, ahead = walks.take(going), inner[going], inner[going] + stride[going]
        ahead = np.where(np.abs(ahead - near) < np.abs(here.limit - near), ahead, here.limit)
        place = np.where(np.isfinite(outer[going]), (near + outer[going]) / 2, ahead)
        found, rise = here.step(now[going], along[going], place)
        inside = rise < here.goal
        at = going[inside]
        along[at] = chord(now[at], found[inside], here.column[inside])
        now[at], inner[at] = found[inside], place[inside]
        outer[going[~inside]] = place[~inside]
        stride[at] *= GROWTH
        ends[going] = place
        known[at[place[inside] == here.limit[inside]]] = False
        done = (np.abs(rise - here.goal) < CLOSE * here.goal) | ~known[going]
        # A rise that jumps over the goal is never close to it.
        done |= np.abs(outer[going] - inner[going]) < NARROW * np.abs(place - here.origin)
        going = going[~done]
    known[going] &= np.isfinite(outer[going])
    return ends, known


def chord(now: Floats, found: Floats, column: NDArray[np.int64]) -> Floats:
    """How all coordinates moved, over how the held one did."""
    moved = found - now
    return np.asarray(moved / moved[np.arange(len(now)), column][:, None])


def follow(walks: Walks, far: Floats, steps: int) -> tuple[Floats, Floats]:
    """Coordinates (G, P) and rise (G,) with one held, from the estimate out to places far (R,).

    The rise is infinite where a step led to no value of the law.
    """
    now, along, origin = np.repeat(walks.u[None], len(far), axis=0), walks.along, walks.origin
    coordinates, rises = [now[:1]], [np.zeros(1)]
    for part in np.linspace(0, 1, steps + 1)[1:]:
        found, rise = walks.step(now, along, origin + part * (far - origin))
        usable = (np.isfinite(rise) & (far != origin))[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            along = np.where(usable, chord(now, found, walks.column), along)
        now = np.where(usable, found, now)
        coordinates.append(found)
        rises.append(rise)
    every, rise = np.concatenate(coordinates), np.concatenate(rises)
    order = np.argsort(every[:, walks.column[0]], kind="stable")
    return every[order], rise[order]
