"""The 240 Chinchilla points: how long a fit and its bootstraps take: `python bench/fit.py`.

The named peer is the published recipe (arXiv:2203.15556, arXiv:2404.10102): scipy's L-BFGS-B from
each of a grid of 4,500 starts with numeric gradients, here on every 45th, its time scaled up.
Seconds are of one core's work, which other programs do not lengthen. Writes bench/fit.csv.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import itertools
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from chinchilla import OBJECTIVE, PUBLISHED_ERRORS, load_chinchilla

from clipa_scaling.bootstrap import bootstrap
from clipa_scaling.laws import additive
from clipa_scaling.profile import intervals
from clipa_scaling.solve import fit

OUT = Path(__file__).with_suffix(".csv")
EVERY, BOOTSTRAPS = 45, 4000
LAW = additive(("N", "D"))


def peer() -> tuple[float, float, float]:
    """Seconds for the whole grid; the best objective; the share of starts within 0.1 % of it."""
    points = load_chinchilla()
    logs = [np.log(points.x[role]) for role in "ND"]
    target = np.log(points.y)

    def objective(at: np.ndarray) -> float:
        a, b, e, alpha, beta = at
        terms = np.stack([a - alpha * logs[0], b - beta * logs[1], np.full(len(target), e)])
        size = np.abs(np.logaddexp.reduce(terms) - target)
        least = np.minimum(size, 1e-3)
        return float((least * (size - least / 2)).sum())

    grid = itertools.product(
        np.arange(0, 30, 5), np.arange(0, 30, 5), np.arange(-1, 1.5, 0.5),
        np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5),
    )  # fmt: skip
    starts = list(grid)[::EVERY]
    begun = time.process_time()
    found = np.array([minimize(objective, start, method="L-BFGS-B").fun for start in starts])
    seconds = (time.process_time() - begun) * EVERY
    return seconds, found.min(), float((found <= OBJECTIVE * 1.001).mean())


def main() -> None:
    points, rows = load_chinchilla(), []
    for what in ("fit, first", "fit, best of 5"):
        times = []
        for _ in range(1 if what.endswith("first") else 5):
            begun = time.process_time()
            found = fit(points, LAW)
            times.append(time.process_time() - begun)
        reached = found.starts_reached / found.options.keep
        rows.append({"what": what, "seconds": min(times), "objective": found.objective,
                     "reached": reached})  # fmt: skip
    begun = time.process_time()
    intervals(found)
    rows.append({"what": "intervals by profile", "seconds": time.process_time() - begun})
    begun = time.process_time()
    draws = bootstrap(found, BOOTSTRAPS)
    rows.append({"what": f"{BOOTSTRAPS} bootstraps", "seconds": time.process_time() - begun})
    errors = draws.params.std(axis=0)
    for name, error in zip(LAW.names, errors, strict=True):
        rows.append({"what": f"standard error of {name}", "value": error,
                     "published": PUBLISHED_ERRORS[name]})  # fmt: skip
    seconds, best, reached = peer()
    rows.append({"what": "peer: 4,500 starts of L-BFGS-B, numeric gradient", "seconds": seconds,
                 "objective": best, "reached": reached})  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, na_rep=""))
    table.to_csv(OUT, index=False, float_format="%.11g")


if __name__ == "__main__":
    main()
