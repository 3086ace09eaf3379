"""results/<sweep>/exclusions.yaml: which runs fits and figures leave out, and who said so when.

python -m clipa_scaling.exclusions RESULTS_DIR applies an edited file to tables that are there.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from clipa_scaling.collect import load_tables, save_tables
from clipa_scaling.pipelines import make_pipelines
from clipa_scaling.schema import TableError
from clipa_scaling.yamlfile import Document, SweepError, load_list

NAME = "exclusions.yaml"
EXAMPLE = '{run: pretrain-B-16-*, because: "a broken node", by: A. B., date: 2026-01-31}'
KEYS = ("run", "because", "by", "date")
CHILD = "child of "
FAILED = ("failed", "diverged")
# Lengths fail alone or with a learning rate that only some lengths bear.
FAILURE_FIELDS = (("lr",), ("image_tokens",), ("text_tokens",), ("lr", "image_tokens"))
LEVEL = 0.05
DRAWS = 19_999


@dataclass(frozen=True)
class Exclusion:
    """An entry: the runs that it names, and the reason that tables give for them."""

    runs: tuple[str, ...]
    reason: str


def read_exclusions(folder: Path, known: Iterable[str]) -> list[Exclusion]:
    """The entries of a results folder's file, none without a file.

    known: ids of the runs there are. Raises SweepError with file, line and key for a run or pattern
    that fits none of them, a missing or unknown key, and a date that is none.
    """
    path = folder / NAME
    if not path.exists():
        return []
    document, entries = load_list(path, EXAMPLE)
    ids = sorted(set(known))
    return [read_entry(document, index, entry, ids) for index, entry in enumerate(entries)]


def read_entry(document: Document, index: int, entry: object, ids: Sequence[str]) -> Exclusion:
    given = document.check_keys((index,), entry, KEYS)
    for key in KEYS:
        if key not in given:
            raise document.error((index,), f"has no {key}; an entry looks so: {EXAMPLE}")
        if not document.check_scalar((index, key), given[key], str).strip():
            raise document.error((index, key), f"is empty; an entry looks so: {EXAMPLE}")
    try:
        day = date.fromisoformat(given["date"])
    except ValueError:
        said = f"got {given['date']!r}; allowed: a date, e.g. 2026-01-31"
        raise document.error((index, "date"), said) from None
    runs = tuple(run for run in ids if fnmatchcase(run, given["run"]))
    if not runs:
        close = get_close_matches(given["run"], ids, n=1, cutoff=0.5)
        way_out = f"nearest: {close[0]}" if close else "the column run of runs.csv lists them"
        said = f"{given['run']!r} fits no run of this study; {way_out}"
        raise document.error((index, "run"), said)
    return Exclusion(runs, f"{given['because']} ({given['by']}, {day.isoformat()})")


def mark_left_out(runs: pd.DataFrame, exclusions: Sequence[Exclusion]) -> pd.DataFrame:
    """The `runs` table with its column `left_out`; a run that starts from such a one has it too."""
    reasons: dict[str, str] = {}
    for entry in exclusions:
        for run in entry.runs:
            reasons[run] = f"{reasons[run]}; {entry.reason}" if run in reasons else entry.reason
    named = runs.dropna(subset=["run"])
    parents = dict(zip(named["run"], named["parent"].fillna(""), strict=True))

    def reason(run: str) -> str | None:
        if run in reasons:
            return reasons[run]
        parent = parents.get(run, "")
        above = reason(parent) if parent else None
        return None if above is None else f"{CHILD}{parent}: {root_reason(above)}"

    told = [None if pd.isna(run) else reason(run) for run in runs["run"]]
    return runs.assign(left_out=pd.Series(told, index=runs.index, dtype="string"))


def load_study(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a results folder, with exclusions.yaml as it is now, not as when collected."""
    tables = load_tables(folder)
    runs = tables["runs"]
    try:
        entries = read_exclusions(folder, runs["run"].dropna())
    except SweepError as error:
        raise TableError(str(error)) from None
    return {**tables, "runs": mark_left_out(runs, entries)}


def root_reason(reason: str) -> str:
    """What exclusions.yaml says, of a child too."""
    return reason.partition(": ")[2] if reason.startswith(CHILD) else reason


def tell_left_out(runs: pd.DataFrame) -> str:
    """`3 runs left out: a broken node (A. B., 2026-01-31)`; empty where none is."""
    reasons = Counter(map(root_reason, runs["left_out"].dropna()))
    if not reasons:
        return ""
    count = reasons.total()
    several = len(reasons) > 1
    said = (f"{number} × {reason}" if several else reason for reason, number in reasons.items())
    return f"{count} run{'s' * (count > 1)} left out: {'; '.join(said)}"


def warn_of_failures(runs: pd.DataFrame) -> list[str]:
    """A line for each stage and field in which failures cluster, so that what is left is no sample.

    Failures are runs that failed, diverged or are left out by exclusions.yaml, less children of
    such; the others are done. For lr, both token counts, and lr with image_tokens: Pearson's
    chi-squared of failures over the field's values, against its distribution when as many failures
    fall on runs at random (19,999 draws, seed 0); at 0.05 over the number of fields that vary
    (Bonferroni). The pair is told only where neither of its fields is.
    """
    lines = []
    left_out = runs["left_out"].fillna("")
    bad = runs["state"].isin(FAILED) | (left_out != "")
    ended = runs[(bad | (runs["state"] == "done")) & ~left_out.str.startswith(CHILD)]
    for stage, rows in ended.assign(bad=bad).groupby("stage", sort=False):
        keys = {
            names: key
            for names in FAILURE_FIELDS
            if all(rows[name].nunique(dropna=False) > 1 for name in names)
            for key in [rows[list(names)].astype("string").fillna("unknown").agg(", ".join, axis=1)]
        }
        told: set[str] = set()
        for names, key in keys.items():
            p_value = permutation_test(rows["bad"].to_numpy(bool), key)
            if p_value >= LEVEL / len(keys) or told.intersection(names):
                continue
            told.update(names)
            lines.append(
                f"failures are not random: {tell_worst(rows['bad'], names, key)} of stage {stage} "
                f"(permutation test: p = {p_value:.2g}, below {LEVEL}/{len(keys)}); what is left "
                "is no fair sample of the grid"
            )
    return lines


def permutation_test(bad: np.ndarray, key: pd.Series) -> float:
    """The p-value of failures that cluster in a key: how often chance makes as large a statistic.

    bad: (R,) bool, one a run; key: the value of each. Exact but for the number of draws.
    """
    codes = key.factorize()[0]
    sizes = np.bincount(codes)
    failed = int(bad.sum())
    if failed in (0, len(bad)) or len(sizes) < 2:
        return 1.0
    expected = sizes * (failed / len(bad))

    def statistic(counts: np.ndarray) -> np.ndarray:
        return np.asarray(((counts - expected) ** 2 / expected).sum(axis=-1))

    observed = statistic(np.bincount(codes[bad], minlength=len(sizes)))
    method: Literal["count", "marginals"] = "count" if len(bad) < 1000 else "marginals"  # speed
    rng = np.random.default_rng(0)
    drawn = rng.multivariate_hypergeometric(sizes, failed, size=DRAWS, method=method)
    # A tie counts as at least as large, whatever the last digits say.
    larger = int((statistic(drawn) >= observed * (1 - 1e-9)).sum())
    return (1 + larger) / (1 + DRAWS)


def tell_worst(bad: pd.Series, names: tuple[str, ...], key: pd.Series) -> str:
    """`5 of 6 runs at lr=0.004, and 1 of 18 elsewhere`."""
    excess = (bad.astype(float) - bad.mean()).groupby(key, sort=False).sum()
    worst = str(excess.idxmax())
    here, there = bad[key == worst], bad[key != worst]
    values = zip(names, worst.split(", "), strict=True)
    where = ", ".join(f"{name}={value}" for name, value in values)
    return (
        f"{here.sum()} of {len(here)} runs at {where}, and {there.sum()} of {len(there)} elsewhere,"
    )


def main(folders: list[str]) -> int:
    """0, or 2 at the first folder without tables or with a mistake in its file."""
    for name in folders:
        try:
            tables = load_tables(Path(name))
            exclusions = read_exclusions(Path(name), tables["runs"]["run"].dropna())
        except (FileNotFoundError, SweepError, TableError) as error:
            print(error, file=sys.stderr)
            return 2
        tables["runs"] = mark_left_out(tables["runs"], exclusions)
        if "pipelines" in tables:
            tables["pipelines"] = make_pipelines(tables)
        save_tables(tables, Path(name))
        print(f"{name}: {tell_left_out(tables['runs']) or 'no run is left out'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
