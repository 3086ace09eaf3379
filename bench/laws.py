"""Whether every law is recovered, and its intervals hold the truth: `python bench/laws.py`.

Some five minutes on two free cores. Writes bench/laws.csv, a row for each law, design and
parameter: digits recovered without noise (largest relative error of a parameter), the share of 95 %
intervals that hold the truth, those that miss it to either side, those without an end on a side,
and the median width over the truth. `searched`: of 20 worlds, in how many the search from many
starts ends at the minimum that the benchmark reached from the truth.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from clipa_scaling.lawworlds import WORLDS, World, cover, recover
from clipa_scaling.solve import Options, fit

OUT = Path(__file__).with_suffix(".csv")
SEARCHED = 20


def measure(world: World, worlds: int) -> pd.DataFrame:
    y = world.draw(worlds, np.random.default_rng(0))
    found = cover(world, y)
    searched = 0
    for at in range(SEARCHED):
        points = replace(world.points(), y=y[at])
        best = fit(points, world.form(), Options(world.scale, delta="noise"))
        searched += best.objective <= found.objective[at] * (1 + 1e-6)
    low, high = found.low, found.high
    kind = "decays" if world.decays else "runs"
    levels = [f"{len(set(world.x[role]))} {role}" for role in world.x]
    return pd.DataFrame(
        {
            "law": world.law,
            "design": f"{len(world.points())} {kind}: {' x '.join(levels)}",
            "scale": world.scale,
            "recovered": f"{recover(world):.0e}",
            "parameter": found.names,
            "truth": found.truth,
            "worlds": worlds,
            "held": found.held / worlds,
            "below": (high < found.truth).mean(axis=0).round(4),
            "above": (low > found.truth).mean(axis=0).round(4),
            "open": (~found.known).any(axis=2).mean(axis=0).round(4),
            "width": (np.median(high - low, axis=0) / np.abs(found.truth)).round(3),
            "searched": f"{searched}/{SEARCHED}",
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=2000)
    worlds = parser.parse_args().worlds
    begun, tables = time.monotonic(), {}
    with ProcessPoolExecutor(2) as pool:
        waiting = {pool.submit(measure, world, worlds): at for at, world in enumerate(WORLDS)}
        for done in as_completed(waiting):
            table = tables[waiting[done]] = done.result()
            told = table[["law", "design", "recovered", "parameter", "held", "open", "searched"]]
            seconds = time.monotonic() - begun
            print(told.to_string(header=False, index=False), f"  {seconds:.0f} s", flush=True)
            ordered = pd.concat([tables[at] for at in sorted(tables)])
            ordered.to_csv(OUT, index=False, float_format="%.6g")
    held = ordered["held"]
    print(f"held in {held.min():.3f} to {held.max():.3f} of worlds, mean {held.mean():.4f}")


if __name__ == "__main__":
    main()
