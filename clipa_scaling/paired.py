"""Differences between runs on the same examples, with paired intervals from per-example bits.

python -m clipa_scaling.paired results/NAME RUN_A RUN_B [--set S] [--measure accuracy]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clipa_scaling.cells import CELL, main_measure, name_parents
from clipa_scaling.collect import load_tables
from clipa_scaling.correct import unpack_bits
from clipa_scaling.intervals import Difference, Seeds, compare_bits, pool, seed_noise
from clipa_scaling.pipelines import choose_evals, find_full, follow_back, read_runs
from clipa_scaling.schema import TableError

Row = dict[str, Any]

SAME = ("set", "fingerprint", "protocol", "size", "evaluation", "name", "n", "clusters")


def end_rows(
    tables: dict[str, pd.DataFrame], measure: str | None = None, eval_set: str | None = None
) -> dict[str, Row]:
    """Each run's row of `evals` after its last step, with its bits; choices as for pipelines."""
    runs = read_runs(tables)
    chosen, _ = choose_evals(tables["evals"], measure or main_measure(tables), eval_set)
    chosen = chosen[chosen["positions"].isna()]
    plain = chosen.astype(object).where(chosen.notna(), None)
    rows: dict[str, Row] = {}
    for values in zip(*(plain[name].tolist() for name in plain), strict=True):
        row = dict(zip(map(str, plain), values, strict=True))
        if row["run"] in runs and runs[row["run"]]["samples"] == row["samples"]:
            rows.setdefault(row["run"], row)
    return rows


def compare_runs(
    rows: dict[str, Row], pairs: Sequence[tuple[str, str]], pooled: Seeds | None = None
) -> Difference:
    """The difference of runs that are paired by seed, from their rows of `end_rows`.

    Raises TableError where a run has no such row, no bits, or was measured in another way.
    """
    first, second, clusters = stack_bits(rows, pairs)
    return compare_bits(first, second, clusters, pooled)


def stack_bits(
    rows: dict[str, Row], pairs: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray, str]:
    for run in (run for pair in pairs for run in pair):
        if run not in rows or not rows[run]["correct"]:
            raise TableError(
                f"{run}: has no bits of single examples after its last step; they are kept for "
                "accuracy and recall of done runs"
            )
    model = rows[pairs[0][0]]
    for run in (run for pair in pairs for run in pair):
        for name in SAME:
            if rows[run][name] != model[name]:
                raise TableError(
                    f"{run}: {name}={rows[run][name]} where {model['run']} has {model[name]}; only "
                    "runs evaluated on the same examples in the same way can be paired"
                )
    bits = [
        np.stack([unpack_bits(rows[run]["correct"], int(model["n"])) for run in side])
        for side in zip(*pairs, strict=True)
    ]
    return bits[0], bits[1], model["clusters"] or ""


def drops_from_full(
    tables: dict[str, pd.DataFrame], measure: str | None = None, eval_set: str | None = None
) -> pd.DataFrame:
    """The papers' statistic with paired intervals: a row per cell that has a full-length cell.

    Columns: the cell's, `before`, `drop` (full - cell, a fraction), `low`, `high`, `seeds`. The
    full-length run of each is `pipelines.find_full`'s, of the same seed; the noise of seeds is
    pooled over the cells of a model and stage. Runs left out by exclusions.yaml are left out.
    """
    rows = end_rows(tables, measure, eval_set)
    runs = tables["runs"]
    kept = runs[runs["left_out"].isna() & (runs["state"] == "done") & runs["run"].isin(list(rows))]
    known = read_runs(tables)
    full = find_full({run: follow_back(known, run) for run in known})  # also of runs not done
    short = kept.assign(before=name_parents(runs).loc[kept.index], full=kept["run"].map(full))
    short = short[short["full"].isin(kept["run"]) & (short["full"] != short["run"])]
    groups = [cell for _, cell in short.groupby([*CELL, "before"], dropna=False, sort=False)]
    pairs = [list(zip(cell["full"], cell["run"], strict=True)) for cell in groups]
    noises: dict[tuple[str, str], list[Seeds]] = {}
    keys = [(str(cell["model"].iloc[0]), str(cell["stage"].iloc[0])) for cell in groups]
    for key, pair in zip(keys, pairs, strict=True):
        first, second, _ = stack_bits(rows, pair)
        if len(pair) > 1:
            noises.setdefault(key, []).append(seed_noise(first.astype(float) - second))
    found = []
    for cell, key, pair in zip(groups, keys, pairs, strict=True):
        drop = compare_runs(rows, pair, pool(noises.get(key, [])))
        values = {"drop": drop.difference, "low": drop.low, "high": drop.high, "seeds": drop.seeds}
        found.append(cell[[*CELL, "before"]].iloc[:1].assign(**values))
    if not found:
        columns = ("drop", "low", "high", "seeds")
        return short[[*CELL, "before"]].assign(**dict.fromkeys(columns, math.nan))
    return pd.concat(found, ignore_index=True)


def find_pairs(tables: dict[str, pd.DataFrame], first: str, second: str) -> list[tuple[str, str]]:
    """The done runs that two ids or patterns name, paired by seed; TableError for no pair."""
    done = tables["runs"][tables["runs"]["state"] == "done"]
    sides: list[dict[int, str]] = []
    for pattern in (first, second):
        named = done[[fnmatchcase(str(run), pattern) for run in done["run"]]]
        if not len(named):
            raise TableError(f"{pattern!r} fits no done run; the column run of runs.csv lists them")
        if (
            named.assign(before=name_parents(done))[[*CELL, "before"]].drop_duplicates().shape[0]
            > 1
        ):
            raise TableError(
                f"{pattern!r} fits {len(named)} runs that differ in more than their seed: "
                f"{', '.join(named['run'].astype(str).head(3))} …; name one cell"
            )
        sides.append({int(s): str(r) for s, r in zip(named["seed"], named["run"], strict=True)})
    if all(len(side) == 1 for side in sides):
        return list(zip(*(side.values() for side in sides), strict=True))
    seeds = sorted(sides[0].keys() & sides[1].keys())
    if not seeds:
        raise TableError(f"{first!r} and {second!r} have no seed in common; name runs of one seed")
    return [(sides[0][seed], sides[1][seed]) for seed in seeds]


def tell(difference: Difference, row: Row) -> str:
    """The difference in a line."""
    noise = "examples" if difference.seeds == 1 else f"examples and {difference.seeds} seeds"
    return (
        f"{row['name']} on {row['set']} ({difference.n:,} examples, {row['protocol']} protocol): "
        f"{100 * difference.first:.2f} - {100 * difference.second:.2f} = "
        f"{100 * difference.difference:+.2f} points, 95 % interval {100 * difference.low:+.2f} to "
        f"{100 * difference.high:+.2f} over {noise}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 with one line on stderr for what cannot be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.paired",
        description="The difference between two runs on the same examples, with its 95 % interval.",
    )
    parser.add_argument("results", type=Path, help="a folder of tables, e.g. results/mini")
    parser.add_argument("first", metavar="RUN_A", help="a run, or a pattern for a cell's seeds")
    parser.add_argument("second", metavar="RUN_B", help="what is subtracted, likewise")
    parser.add_argument("--set", help="evaluation set (default: the first with the measure)")
    parser.add_argument("--measure", help="default: the study's main one")
    options = parser.parse_args(arguments)
    try:
        tables = load_tables(options.results)
        pairs = find_pairs(tables, options.first, options.second)
        rows = end_rows(tables, options.measure, options.set)
        print(tell(compare_runs(rows, pairs), rows[pairs[0][0]]))
    except (FileNotFoundError, TableError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
