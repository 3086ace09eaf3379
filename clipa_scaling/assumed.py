"""What a study is taken to be like before it has run: a law of accuracy, and the noise of its runs.

Measurements take the place of assumptions as runs finish: see `learn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from clipa_scaling.compared import Compared
from clipa_scaling.multiplier import Floats
from clipa_scaling.resample import logits
from clipa_scaling.worlds import EXPONENT, PER_SIZE

ACCURACY = 0.6  # of the middle size at the middle samples and full length: assumed
SEED_SD = 0.005  # of an accuracy, a fraction: assumed
ROOT_SHARE = 0.5  # of seeds' variance that branches of one trunk have in common: assumed
DATA_SHARE = 2 / 3  # of the middle's error odds that more data would remove: assumed, as in worlds
ALPHA, BETA = 0.4, 0.5  # exponents of N and D: assumed, as in worlds
# How far measurements may pull: standard deviations of log a, log alpha, log b, log beta, exponent
# and strength around what was assumed. Amplitudes are wide open, shapes less.
LOOSE = np.array([2.0, 0.3, 2.0, 0.3, 0.3, 0.15])
STEPS, TINY = 60, 1e-5


@dataclass(frozen=True)
class Truth:
    """accuracy = 1 / (1 + a n^-alpha + b (d t^e)^-beta), with e = exponent - strength log n.

    n, d: size and samples over the middle ones of a design; t: tokens over the full length. Then
    m = t^-e, d log m / d log N = strength log t, and strength 0 is a study without an inverse law.
    """

    size: float
    samples: float
    full: Mapping[str, int]
    a: float
    alpha: float
    b: float
    beta: float
    exponent: float
    strength: float

    def accuracy(self, runs: pd.DataFrame) -> Floats:
        """Of runs with `model`, `size`, `length`, `samples`: (n,)."""
        n = runs["size"].to_numpy(float) / self.size
        d = runs["samples"].to_numpy(float) / self.samples
        t = runs["length"].to_numpy(float) / runs["model"].map(self.full).to_numpy(float)
        data = d * t ** (self.exponent - self.strength * np.log(n))
        return np.asarray(1 / (1 + self.a * n**-self.alpha + self.b * data**-self.beta))


def assume(
    compared: Compared,
    accuracy: float = ACCURACY,
    exponent: float = EXPONENT,
    strength: float = PER_SIZE,
) -> Truth:
    """A law with its middle in the middle of a design: the geometric means of sizes and samples."""
    runs = compared.runs
    size, samples = (
        float(np.exp(np.log(runs[name].drop_duplicates().astype(float)).mean()))
        for name in ("size", "samples")
    )
    odds = 1 / accuracy - 1
    a, b = (1 - DATA_SHARE) * odds, DATA_SHARE * odds
    return Truth(size, samples, dict(compared.full), a, ALPHA, b, BETA, exponent, strength)


def learn(truth: Truth, runs: pd.DataFrame, sd: float, keep_strength: bool) -> Truth:
    """The truth after runs that have finished: least squares of logits, what was assumed as prior.

    runs: `value`, `n` and the axes; sd: of a run, in logits. keep_strength: strength stays as it is
    while all else adapts.
    """
    if runs.empty:
        return truth
    y = logits(runs["value"].to_numpy(float), runs["n"].to_numpy(float))
    start = pack(truth)
    loose = LOOSE.copy()
    loose[-1] = TINY if keep_strength else loose[-1]

    def residuals(theta: Floats) -> Floats:
        fitted = unpack(truth, theta).accuracy(runs)
        return np.concatenate([(y - logit(fitted)) / sd, (theta - start) / loose])

    theta, damping = start, 1e-3
    now = residuals(theta)
    for _ in range(STEPS):
        slopes = np.stack([(residuals(theta + step) - now) / TINY for step in TINY * np.eye(6)], 1)
        normal = slopes.T @ slopes
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slopes.T @ now)
        then = residuals(theta + np.clip(step, -1, 1))
        if (then**2).sum() < (now**2).sum():
            theta, now, damping = theta + np.clip(step, -1, 1), then, damping / 5
        else:
            damping *= 5
    return unpack(truth, theta)


def pack(truth: Truth) -> Floats:
    logs = np.log([truth.a, truth.alpha, truth.b, truth.beta])
    return np.array([*logs, truth.exponent, truth.strength])


def unpack(truth: Truth, theta: Floats) -> Truth:
    a, alpha, b, beta = np.exp(np.clip(theta[:4], -12, 12))
    return replace(truth, a=a, alpha=alpha, b=b, beta=beta, exponent=theta[4], strength=theta[5])


def logit(fraction: Floats) -> Floats:
    inside = np.clip(fraction, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1 - inside)))
