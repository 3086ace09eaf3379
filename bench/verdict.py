"""How often a verdict errs, on studies of known truth: `python bench/verdict.py`, 50 worlds each.

Each world is made as the tables of a sweep. Writes bench/verdict.csv, one row for each truth,
design, path and number: the share of each answer, and how often the 95 % interval held the truth.
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
# Far enough in D that every size is compute-optimal somewhere, which no real study reaches.
WIDE = Design(lengths=(196, 49, 16), samples=tuple(125_000_000 * 4**step for step in range(7)))
DESIGNS = {
    "3 sizes, 5 lengths, 5 decays, 2 seeds": Design(),
    "3 sizes, 3 lengths, 5 decays, 2 seeds": SMALL,
    "3 sizes, 5 lengths, 5 runs, 2 seeds": Design(decay=False),
    "the first, three times the noise": Design(seed_sd=0.06, pictures=5000),
    "3 sizes, 3 lengths, 7 decays to 512 G, 2 seeds": WIDE,
}
TRUTHS: dict[str, tuple[Law, bool]] = {
    **{name: (law, False) for name, law in NULLS.items()},
    "size-independent, rates mistuned, tuned": (FALSE_LAW, True),
    "size-independent, rates mistuned, one rate": (FALSE_LAW, False),
    "inverse": (inverse, False),
}
ONCE = list(TRUTHS)[-2:]  # on the first design and the last alone
M, NU, ALL = "d log m / d log N", "nu", "all paths"
DRAWS = 200


def measure(truth: str, name: str, worlds: int) -> list[dict[str, object]]:
    """A row for each path and number, and one for the verdict."""
    law, tuned = TRUTHS[truth]
    found: dict[tuple[str, str], list[tuple[str, float, float, float]]] = {}
    for world in range(worlds):
        tables = make_study(law, np.random.default_rng(world), DESIGNS[name], tuned)
        [compared] = find_compared(tables)
        verdict = judge(compared, draws=DRAWS, scales=("logit",))
        for item in verdict.answers:
            row = (item.answer, item.slope, item.low, item.high)
            found.setdefault((item.path, M), []).append(row)
        for path, *numbers in verdict.nu[["path", "answer", "nu", "low", "high"]].to_numpy():
            found.setdefault((path, NU), []).append(tuple(numbers))
        found.setdefault((ALL, M), []).append((verdict.answer, np.nan, np.nan, np.nan))
    return [
        {"truth": truth, "design": name, "path": path, "number": number, "worlds": worlds}
        | summarise(answers, is_null(truth, path))
        for (path, number), answers in found.items()
    ]


def is_null(truth: str, path: str) -> bool:
    """Whether the number is truly 0; elsewhere it depends on the length, or on D."""
    return (truth in NULLS or TRUTHS[truth][1]) and (truth != "additive" or path == FIXED_D)


def summarise(answers: list[tuple[str, float, float, float]], is_zero: bool) -> dict[str, object]:
    """Shares of the answers; mean and scatter; how often intervals held 0, of those there were."""
    told = [answer for answer, *_ in answers]
    row: dict[str, object] = {
        answer: round(told.count(answer) / len(told), 4) for answer in (YES, NO, UNDETERMINED)
    }
    value, low, high = np.array([numbers for _, *numbers in answers], float).T
    known = ~np.isnan(low)
    if not known.any():
        return row
    row |= {"known": round(float(known.mean()), 4)}
    row |= {"mean": round(float(value[known].mean()), 4), "sd": round(float(value[known].std()), 4)}
    if is_zero:
        row["held"] = round(float(((low <= 0) & (high >= 0))[known].mean()), 4)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=50)
    worlds = parser.parse_args().worlds
    rows = []
    for truth in TRUTHS:
        for name in [list(DESIGNS)[0], list(DESIGNS)[-1]] if truth in ONCE else DESIGNS:
            start = time.monotonic()
            own = measure(truth, name, worlds)
            rows += own
            seconds = time.monotonic() - start
            print(f"{pd.DataFrame(own).to_string(header=False)}   {seconds:.0f} s", flush=True)
            pd.DataFrame(rows).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
