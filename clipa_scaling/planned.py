"""A plan's runs as the tables they will leave, so that what compares results compares plans."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clipa_scaling import schema
from clipa_scaling.collect import make_table, plain
from clipa_scaling.compared import LENGTHS, Compared, find_compared
from clipa_scaling.evaluation_cost import SetSizes
from clipa_scaling.exclusions import load_study
from clipa_scaling.plan import PlanRow, make_plan
from clipa_scaling.rundir import find_packs
from clipa_scaling.schema import TRIAL_STAGES, TableError
from clipa_scaling.speed import Rate, load_rates
from clipa_scaling.sweepfile import Sweep, load_sweep

PICTURES = 50_000  # of an evaluation set that is not packed yet: ImageNet-1k's, assumed


@dataclass(frozen=True)
class Study:
    """A sweep's runs with their prices, and what the finished ones measured.

    length: which tokens are compared. pictures: examples of the evaluation set. measured: value by
    run id. done: ids of finished runs, those that measured nothing too. rates: calibrated speeds.
    """

    sweep: Sweep
    rows: tuple[PlanRow, ...]
    length: str
    measure: str
    eval_set: str
    pictures: int
    assumed_pictures: bool
    measured: Mapping[str, float] = field(default_factory=dict)
    done: frozenset[str] = frozenset()
    rates: Mapping[str, Rate] = field(default_factory=dict)

    @property
    def gpu_hours(self) -> float:
        return math.fsum(row.cost.gpu_hours for row in self.rows)

    def is_done(self, row: PlanRow) -> bool:
        return row.planned.id in self.done


def read_study(
    path: Path, runs: Path, length: str | None = None, results: Path | None = None
) -> Study:
    """The study that a sweep file plans; `runs` is where its runs would lie.

    results: the folder of tables of those that have finished. SweepError for a mistake in the file,
    TableError where no run of the results is the sweep's, FileNotFoundError without tables.
    """
    plan = make_plan(load_sweep(path, find_packs(runs)), runs)
    item = next(
        (each for each in plan.sweep.asked.evals if each.task == "classify"),
        next(iter(plan.sweep.asked.evals), None),
    )
    if item is None:
        raise TableError(f"{path}: data.evals names no set, so that runs measure nothing; add one")
    pictures = SetSizes(plan.sweep.packs).pictures(item)
    study = Study(
        plan.sweep,
        plan.rows,
        length or find_length(plan.rows),
        "accuracy" if item.task == "classify" else "text_to_image_r1",
        item.name,
        PICTURES if math.isnan(pictures) else int(pictures),
        math.isnan(pictures),
        rates=load_rates(runs, plan.sweep.resources.device),
    )
    return study if results is None else replace(study, **measure(study, results))


def find_length(rows: Iterable[PlanRow]) -> str:
    """The tokens that the first stage varies most."""
    specs = [row.planned.spec for row in rows if not row.planned.spec.parent]
    levels = {name: len({getattr(spec, name) for spec in specs}) for name in LENGTHS}
    return max(levels, key=lambda name: levels[name])


def measure(study: Study, results: Path) -> dict[str, Any]:
    """What finished runs of the study scored, and on how many examples."""
    tables = load_study(results)
    found = find_compared(tables, measure=study.measure, length=study.length)
    ids = {row.planned.id for row in study.rows}
    values = {
        str(run): float(value)
        for each in found
        for run, value in zip(each.runs["run"], each.runs["value"], strict=True)
        if run in ids
    }
    if not values:
        raise TableError(
            f"{results}: none of its {len(tables['runs'])} runs is a finished one of "
            f"{study.sweep.path}; give the results of that sweep"
        )
    pictures = int(found[0].runs["n"].iloc[0])
    runs = tables["runs"]
    done = frozenset(runs.loc[runs["state"] == "done", "run"].dropna())
    return {"measured": values, "done": done, "pictures": pictures, "assumed_pictures": False}


def compare(study: Study) -> list[Compared]:
    """The comparisons that the study will hold, by the rules for real results.

    Values are those measured, else NaN; `done` says which.
    """
    found = find_compared(make_tables(study), measure=study.measure, length=study.length)
    return [
        replace(
            each,
            runs=each.runs.assign(
                done=each.runs["run"].isin(study.measured),
                value=each.runs["run"].map(study.measured).astype(float),
            ),
        )
        for each in found
    ]


def make_tables(study: Study) -> dict[str, pd.DataFrame]:
    """The tables as if all runs were done, each with one evaluation of no meaning."""
    runs, evals = [], []
    for row in study.rows:
        spec = row.planned.spec
        runs.append(
            {
                "run": row.planned.id,
                "stage": spec.stage,
                "state": "done",
                **{name: plain(getattr(spec, name)) for name in (*schema.SPEC, "tuned")},
                **dict.fromkeys(row.planned.unknown),
                **asdict(row.cost),
            }
        )
        if spec.kind != "evaluate" and spec.stage not in TRIAL_STAGES:
            evals.append(
                {
                    "run": row.planned.id,
                    "samples": spec.samples,
                    "set": study.eval_set,
                    "fingerprint": "planned",
                    "protocol": "common",
                    "size": "training",
                    "name": study.measure,
                    "value": 0.5,
                    "n": study.pictures,
                }
            )
    return {
        "runs": make_table(runs, schema.RUNS),
        "evals": make_table(evals, schema.EVALS),
        "curves": make_table([], schema.CURVES),
    }
