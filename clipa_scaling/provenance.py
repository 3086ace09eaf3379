"""What the cells of one curve should share and do not: a line of warning for each."""

from __future__ import annotations

import pandas as pd

from clipa_scaling.cells import CELL, main_measure, name_lines, name_parents
from clipa_scaling.pipelines import choose_evals

# Columns of `runs`, and why a curve that mixes their values may show those instead of lengths.
OF_RUNS = {
    "revision": "the code changed between them",
    "device": "rounding and kernels differ between devices",
    "data_fingerprint": "they did not learn from the same data",
    "precision": "rounding differs",
    "tuned": "some cells had their best values searched for, others did not",
    "imported": "numbers of other programs stand beside our own",
    "schedule": "cells that ended at a high learning rate are no match for annealed ones",
}
# Columns of `evals`, likewise.
OF_EVALS = {
    "protocol": "the prompts differ",
    "fingerprint": "the pictures or prompts differ",
    "evaluation": "they were not measured in the same way",
}
MOST = 2  # runs named for each value, and curves for each field

Mixed = dict[str, list[str]]  # the runs behind each value


def find_mixed(tables: dict[str, pd.DataFrame], measure: str | None = None) -> list[str]:
    """A line for each field in which done runs of one curve differ: curves, values, runs.

    A curve is a line of the figures: cells that differ in image tokens alone, or in what is looked
    at here, or in what tuning chose. Evaluations are those that the figures draw. Runs left out by
    exclusions.yaml do not count, and what nobody recorded is no value.
    """
    runs = tables["runs"]
    kept = runs[(runs["state"] == "done") & runs["left_out"].isna()].dropna(subset=["run"])
    if kept.empty:
        return []
    evals, _ = choose_evals(tables["evals"], measure or main_measure(tables), None)
    evals = evals[evals["positions"].isna()].merge(kept[["run", "samples"]])
    mixed: dict[tuple[str, tuple[str, ...]], list[tuple[str, Mixed]]] = {}
    for curve, rows in kept.groupby(name_curves(kept, runs), sort=False):
        measured = evals[evals["run"].isin(rows["run"])]
        for table, names in ((rows, OF_RUNS), (measured, OF_EVALS)):
            for name in names:
                found = read_values(name, table.set_index("run")[name])
                if len(found) > 1:
                    same = mixed.setdefault((name, tuple(sorted(found))), [])
                    same.append((str(curve), found))
    return [tell_mixed(name, same) for (name, _), same in mixed.items()]


def name_curves(kept: pd.DataFrame, runs: pd.DataFrame) -> pd.Series:
    """Each run's line in the figures, named without what this module looks at."""
    plain = kept.assign(before=name_parents(runs).loc[kept.index], evaluated_at=kept["samples"])
    tuned = {name for told in kept["tuned"].dropna() for name in told.split(" | ")}
    for name in CELL:
        if name in OF_RUNS or name in tuned:
            plain[name] = pd.NA
    return name_lines(plain)


def read_values(name: str, values: pd.Series) -> Mixed:
    """The runs behind each value; of two fields to have none is to have one."""
    known = values.astype("string")
    known = known.where(known != "")
    if name == "tuned":
        known = known.fillna("none")
    elif name == "imported":  # from which file makes no difference
        known = known.where(known.isna(), "imported").fillna("own")
    found: Mixed = {}
    for run, value in known.dropna().items():
        if str(run) not in found.setdefault(str(value), []):
            found[str(value)].append(str(run))
    return found


def tell_mixed(name: str, same: list[tuple[str, Mixed]]) -> str:
    """`T32/8: one curve mixes device, …: cpu (run, run and 3 more); A100 (run)`."""
    values = same[0][1]
    told = (
        f"{value} ({shorten([run for _, found in same for run in found[value]])})"
        for value in values
    )
    curves = shorten([curve for curve, _ in same])
    return f"{curves}: one curve mixes {name}, {(OF_RUNS | OF_EVALS)[name]}: {'; '.join(told)}"


def shorten(names: list[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more
