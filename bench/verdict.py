"""How often a verdict errs, on studies of known truth: `python bench/verdict.py`, ten minutes.

Each world is made as the tables of a sweep. Writes bench/verdict.csv, one row for each truth,
design and path: the share of each answer, and how often the 95 % interval held the true slope.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from clipa_scaling.compared import find_compared
from clipa_scaling.inverse import judge
from clipa_scaling.slopes import FIXED_D
from clipa_scaling.verdict import NO, UNDETERMINED, YES
from clipa_scaling.worlds import FALSE_LAW, NULLS, Design, Law, inverse, make_study

OUT = Path(__file__).with_suffix(".csv")
SMALL = Design(lengths=(196, 49, 16))
DESIGNS = {
    "3 sizes, 5 lengths, 5 decays, 2 seeds": Design(),
    "3 sizes, 3 lengths, 5 decays, 2 seeds": SMALL,
    "3 sizes, 5 lengths, 5 runs, 2 seeds": Design(decay=False),
    "the first, three times the noise": Design(seed_sd=0.06, pictures=5000),
}
TRUTHS: dict[str, tuple[Law, bool]] = {
    **{name: (law, False) for name, law in NULLS.items()},
    "size-independent, rates mistuned, tuned": (FALSE_LAW, True),
    "size-independent, rates mistuned, one rate": (FALSE_LAW, False),
    "inverse": (inverse, False),
}
ONCE = list(TRUTHS)[-2:]  # on the first design alone
DRAWS = 200


def measure(truth: str, name: str, worlds: int) -> list[dict[str, object]]:
    """One row for each path."""
    law, tuned = TRUTHS[truth]
    found: dict[str, list[tuple[str, float, float, float]]] = {}
    for world in range(worlds):
        tables = make_study(law, np.random.default_rng(world), DESIGNS[name], tuned)
        [compared] = find_compared(tables)
        for item in judge(compared, draws=DRAWS, scales=("logit",)).answers:
            row = (item.answer, item.slope, item.low, item.high)
            found.setdefault(item.path, []).append(row)
    rows: list[dict[str, object]] = []
    for path, answers in found.items():
        told = [answer for answer, *_ in answers]
        slope, low, high = np.array([numbers for _, *numbers in answers]).T
        row = {"truth": truth, "design": name, "path": path, "worlds": worlds}
        row |= {answer: round(told.count(answer) / worlds, 4) for answer in (YES, NO, UNDETERMINED)}
        row |= {"mean": round(float(slope.mean()), 4), "sd": round(float(slope.std()), 4)}
        # Elsewhere the slope depends on the length, or on D, and has no one true value.
        null = truth in NULLS or tuned
        if null and not (truth == "additive" and path != FIXED_D):
            row["held"] = round(float(((low <= 0) & (high >= 0)).mean()), 4)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=100)
    worlds = parser.parse_args().worlds
    rows = []
    for truth in TRUTHS:
        for name in list(DESIGNS)[: 1 if truth in ONCE else None]:
            start = time.monotonic()
            rows += measure(truth, name, worlds)
            seconds = time.monotonic() - start
            told = pd.DataFrame(rows[-2:]).to_string(header=False, index=False)
            print(f"{told}   {seconds:.0f} s", flush=True)
            pd.DataFrame(rows).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
