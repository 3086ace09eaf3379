"""Whether a sweep's interval is foreseen: `python bench/foresee.py`, a few minutes.

Each world is made as the tables of a sweep (clipa_scaling/worlds.py) and judged; beside it stands
what was foreseen of it. Writes bench/foresee.csv, a row for each design, truth, path and number:
`reckoned` and `simulated`, half the 95 % interval's width foreseen in closed form and by 20 made-up
studies; `judged`, its median over the worlds; `scattered`, 1.96 standard deviations of the number
itself over the worlds. And bench/recipe.csv: what a recipe found under a law fitted to such a world
is worse than the best there is, in points of the true accuracy.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from clipa_scaling.assumed import Truth
from clipa_scaling.compared import Compared, find_compared
from clipa_scaling.foresee import Scatter, reckon, simulate
from clipa_scaling.judge import judge
from clipa_scaling.multiplier import Floats
from clipa_scaling.points import choose_points
from clipa_scaling.pricing import Budget, Pricing
from clipa_scaling.recipe import choose_law, find_recipe
from clipa_scaling.split import Split
from clipa_scaling.worlds import (
    EXPONENT,
    FULL,
    MIDDLE_SAMPLES,
    MIDDLE_SIZE,
    PER_SIZE,
    Design,
    inverse,
    make_study,
    size_independent,
)

OUT = Path(__file__).with_suffix(".csv")
SEED_SD = Design.seed_sd
SMALL = Design(lengths=(196, 49, 16))
DESIGNS = {
    "3 sizes, 5 lengths, 5 decays, 2 seeds": Design(),
    "3 sizes, 3 lengths, 5 decays, 2 seeds": SMALL,
    "3 sizes, 3 lengths, 5 runs, 4 seeds": replace(SMALL, decay=False, seeds=4),
    "3 sizes, 3 lengths, 3 decays, 2 seeds": replace(SMALL, samples=SMALL.samples[::2]),
    "the second, three times the noise": replace(SMALL, seed_sd=3 * SEED_SD, pictures=5000),
}
TRUTHS = {"inverse": (inverse, PER_SIZE), "size-independent": (size_independent, 0.0)}
BUDGETS = (1e19, 1e20, 1e21)
PRICING = Pricing("FLOPs", "a100-80gb", 0.3, "assumed", 49_408, True, True, False, "bf16", False)


def same_law(compared: Compared, strength: float) -> Truth:
    """The law of `worlds` in the words of `assumed`."""
    return Truth(
        MIDDLE_SIZE, MIDDLE_SAMPLES, dict(compared.full), 0.2, 0.4, 0.4, 0.5, EXPONENT, strength
    )


def measure(name: str, truth: str, worlds: int) -> list[dict[str, object]]:
    design = DESIGNS[name]
    law, strength = TRUTHS[truth]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    compared = None
    for world in range(worlds):
        [compared] = find_compared(make_study(law, np.random.default_rng(world), design))
        verdict = judge(compared, draws=200, with_drops=False)
        nu = verdict.nu.drop_duplicates("path").set_index("path")
        for item in verdict.answers:
            own = nu.loc[item.path]
            for number, value, low, high in (
                ("slope", item.slope, item.low, item.high),
                ("nu", own["nu"], own["low"], own["high"]),
            ):
                found.setdefault((item.path, number), []).append((value, (high - low) / 2))
    assert compared is not None
    planned = replace(compared, runs=compared.runs.assign(done=False))
    scatter = Scatter(logits=design.seed_sd, degrees=np.inf)
    reckoned = {item.path: item for item in reckon(planned, same_law(planned, strength), scatter)}
    simulated = simulate(planned, same_law(planned, strength), scatter).set_index("path")
    rows: list[dict[str, object]] = []
    for (path, number), numbers in found.items():
        values, halves = np.array(numbers, float).T
        known = ~np.isnan(halves)
        if known.mean() < 0.5:
            continue
        column = "half" if number == "slope" else "nu_half"
        rows.append(
            {
                "design": name, "truth": truth, "path": path, "number": number, "worlds": worlds,
                "reckoned": round(getattr(reckoned[path], column), 4),
                "simulated": round(float(simulated[column][path]), 4),
                "judged": round(float(np.median(halves[known])), 4),
                "scattered": round(1.96 * float(np.std(values[known], ddof=1)), 4),
                "have_interval": round(float(known.mean()), 3),
            }
        )  # fmt: skip
    return rows


def recipes(worlds: int) -> list[dict[str, object]]:
    """Regret under the law that the world was made by, and under the others' choice."""
    rows = []
    for law in ("primary", "additive", None):
        for budget in BUDGETS:
            regrets, kept = [], []
            for world in range(worlds):
                rng = np.random.default_rng(world)
                chosen = choose_points(make_study(size_independent, rng, SMALL))
                recipe = find_recipe(
                    chosen, PRICING, Budget(budget, "FLOPs"), Split(),
                    choose_law(chosen, law, None, starts=256), batch_size=16_384, draws=100,
                )  # fmt: skip
                table = recipe.table
                true = true_accuracy(table)
                regrets.append(100 * float(true.max() - true[0]))
                kept.append(bool(table["as_good"].to_numpy()[true.argmax()]))
            rows.append(
                {
                    "law": law or "the tournament's", "budget_flops": budget, "worlds": worlds,
                    "mean_regret": round(float(np.mean(regrets)), 3),
                    "most": round(float(np.max(regrets)), 3),
                    "band_held_the_best": float(np.mean(kept)),
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def true_accuracy(table: pd.DataFrame) -> Floats:
    columns = (table[name].to_numpy(float) for name in ("N", "image_tokens", "samples"))
    size, length, samples = columns
    assert table["image_tokens"].max() <= FULL
    return size_independent(size, length, samples, np.ones(len(size)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=40)
    parser.add_argument("--recipes", type=int, default=6)
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name in DESIGNS:
        for truth in TRUTHS:
            start = time.monotonic()
            rows += measure(name, truth, given.worlds)
            pd.DataFrame(rows).to_csv(OUT, index=False)
            print(f"{name}, {truth}: {time.monotonic() - start:.0f} s", flush=True)
    pd.DataFrame(recipes(given.recipes)).to_csv(OUT.with_name("recipe.csv"), index=False)


if __name__ == "__main__":
    main()
