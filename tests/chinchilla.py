"""The 240 points of Chinchilla's Figure 4 as tests and benchmarks read them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clipa_scaling.solve import Points

FILE = Path(__file__).with_name("chinchilla_240_points.csv")
# The global optimum of the sum of Huber(1e-3) on log losses, found by 200 random BFGS runs polished
# by Nelder and Mead, another program; Besiroglu et al. (arXiv:2404.10102) print it to few digits.
OBJECTIVE = 1.0182740178e-3
OPTIMUM = {"A": 477.826, "B": 2143.417, "E": 1.817218, "alpha": 0.347310, "beta": 0.367172}
# Standard deviations of the 4,000 bootstraps of arXiv:2404.10102's own program.
PUBLISHED_ERRORS = {"A": 124.5, "alpha": 0.0154, "B": 1293, "beta": 0.0206, "E": 0.0257}


def load_chinchilla() -> Points:
    rows = pd.read_csv(FILE, comment="#")
    return Points({role: rows[role].to_numpy(float) for role in "ND"}, rows["loss"].to_numpy(float))
