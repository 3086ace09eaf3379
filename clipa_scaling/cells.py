"""Tables -> one row per cell: the mean over seeds of a measure, with its interval."""

from __future__ import annotations

import math

import pandas as pd
from scipy.special import stdtrit

from clipa_scaling import schema

CELL = ["stage", *(name for name in schema.SPEC if name not in ("seed", "kind", "parent"))]
MOST_NAMES = 4  # of fields in a line's name
COSTS = ["train_flops", "flops_per_sample", "image_params", "total_params"]
LEVEL = 0.95
# What a study is judged by where the reader names no measure: the first that it has.
MAIN_MEASURES = {
    "accuracy": "Zero-shot accuracy (%)",
    "text_to_image_r1": "Text-to-image retrieval R@1 (%)",
}


def main_measure(tables: dict[str, pd.DataFrame]) -> str:
    """The first of MAIN_MEASURES among the evaluations; `accuracy` where there is none."""
    found = set(tables["evals"]["name"])
    return next((name for name in MAIN_MEASURES if name in found), "accuracy")


def summarise_cells(
    tables: dict[str, pd.DataFrame], measure: str | None = None, eval_set: str | None = None
) -> pd.DataFrame:
    """One row per cell of done runs and evaluation point; the `common` protocol where there is one.

    Columns: the cell's, `evaluated_at` (samples), `mean` over `seeds` runs, `half_width` of its
    95 % interval (see `half_widths`), and costs. `measure`: by default the study's main one.
    `eval_set`: by default the first with the measure.
    Raises TableError where the set was not measured in one way throughout.
    """
    runs, evals = tables["runs"], tables["evals"]
    measure = measure or main_measure(tables)
    chosen = evals[(evals["name"] == measure) & evals["positions"].isna()]
    common = chosen["protocol"] == "common"
    if common.any():
        chosen = chosen[common]
    if eval_set is None and len(chosen):
        eval_set = str(chosen["set"].iloc[0])
    chosen = chosen[chosen["set"] == eval_set].rename(columns={"samples": "evaluated_at"})
    done = runs[runs["state"] == "done"]
    # A decay run's own cost is its decay's; its model has seen all its samples.
    whole = 3.0 * done["samples"] * done["flops_per_sample"]
    done = done.assign(train_flops=done["train_flops"].where(done["kind"] != "decay", whole))
    check_one_benchmark(chosen[chosen["run"].isin(done["run"])])
    joined = done.merge(
        chosen[["run", "evaluated_at", "value", "n"]], on="run", validate="one_to_many"
    )
    cells = (
        joined.groupby([*CELL, "evaluated_at"], dropna=False, sort=False)
        .agg(
            mean=("value", "mean"),
            seeds=("value", "count"),
            variance=("value", "var"),
            n=("n", "first"),
            **{name: (name, "first") for name in COSTS},
        )
        .reset_index()
    )
    cells["half_width"] = half_widths(cells, is_fraction=measure != "loss")
    return cells.drop(columns="variance")


def name_lines(cells: pd.DataFrame) -> pd.Series:
    """Each cell's line: its model, its stage where there are several, and what else tells it apart.

    That is every field in which cells of one stage differ, other than image tokens; where those are
    many, only what is unusual of a cell. The image size follows from model and tokens under resize,
    so is named under masks only.
    """
    fixed = {"model", "image_tokens", "stage"}
    if (cells["image_reduction"] == "resize").all():
        fixed.add("image_size")
    stages = cells.groupby("stage", sort=False, dropna=False)
    names = [
        name
        for name in CELL
        if name not in fixed and (stages[name].nunique(dropna=False) > 1).any()
    ]
    lines = cells["model"].astype("string")
    if stages.ngroups > 1:
        lines = lines + ", " + cells["stage"].astype("string")
    for name in names:
        told = ", " + name + "=" + cells[name].astype("string")
        if len(names) > MOST_NAMES:
            usual = stages[name].transform(lambda column: column.mode(dropna=False).iloc[0])
            told = told.where(cells[name] != usual, "")
        lines = lines + told
    return lines


def sum_pipelines(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The runs that no other run starts from, with `pipeline_flops` and `pipeline_hours`.

    Those are sums over a run and all its ancestors.
    """
    runs = tables["runs"].dropna(subset=["run"]).drop_duplicates("run").set_index("run")
    leaves = runs[~runs.index.isin(runs["parent"])].copy()
    for name, column in (("pipeline_flops", "train_flops"), ("pipeline_hours", "gpu_hours")):
        leaves[name] = [sum_ancestors(runs, str(run), column) for run in leaves.index]
    return leaves.reset_index()


def sum_ancestors(runs: pd.DataFrame, run: str, column: str) -> float:
    """A cost of a run and all it starts from; NaN where an ancestor is not in the table.

    Of a decay run's parent counts the part before the branch.
    """
    costs, samples = runs[column].astype(float), runs["samples"].astype(float)
    parents = runs["parent"].astype("string").fillna("")
    leaves = samples - runs["decay_samples"].astype(float)
    total, share = 0.0, 1.0
    while run:
        if run not in runs.index:
            return math.nan
        total += share * float(costs[run])
        parent = str(parents[run])
        is_branch = runs.at[run, "kind"] == "decay" and parent in runs.index
        share = float(leaves[run] / samples[parent]) if is_branch else 1.0
        run = parent
    return total


def check_one_benchmark(evals: pd.DataFrame) -> None:
    """Raise TableError where rows of one set differ in pictures or prompts."""
    benchmarks = evals["fingerprint"].unique()
    if len(benchmarks) > 1:
        raise schema.TableError(
            f"evals: set={evals['set'].iloc[0]} was measured in {len(benchmarks)} ways "
            f"(fingerprint {', '.join(benchmarks)}): its pictures or prompts changed between runs; "
            "give the changed set another name in the sweep file"
        )


def half_widths(cells: pd.DataFrame, is_fraction: bool) -> pd.Series:
    """Half of each cell's 95 % interval; NaN where no cell of its model has two seeds.

    Two variances add up: that of seeds, pooled over the cells of one model and evaluation point
    since each has few, over the cell's seeds; and for a fraction that of the evaluation set, at
    most mean (1 - mean) / n, so that intervals are rather too wide. Student's t with the degrees of
    freedom of Welch and Satterthwaite, the second variance taken as known.
    """
    seeds = cells["seeds"].astype(float)
    keys = [cells["model"], cells["evaluated_at"]]
    squares = cells["variance"].astype(float).fillna(0.0) * (seeds - 1)
    degrees = (seeds - 1).groupby(keys).transform("sum")
    degrees = degrees.where(degrees > 0, math.nan)
    of_seeds = squares.groupby(keys).transform("sum") / degrees / seeds
    mean = cells["mean"].astype(float)
    of_examples = mean * (1 - mean) / cells["n"].astype(float) if is_fraction else 0.0
    total = of_seeds + of_examples
    # Seeds that agree exactly leave no degrees of freedom to divide by, and the normal quantile.
    effective = (total**2 * degrees / of_seeds**2).clip(upper=1e9)
    quantile = pd.Series(stdtrit(effective, 0.5 + LEVEL / 2), index=cells.index)
    return quantile * total**0.5


def at_the_end(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells' last evaluations alone."""
    return cells[cells["evaluated_at"] == cells["samples"]]


def as_percent(cells: pd.DataFrame) -> pd.Series:
    """Each cell's mean and interval in words: `41.3 ± 0.9`, the second left out where unknown."""
    return pd.Series(
        [
            f"{100 * mean:.1f}" + ("" if math.isnan(half) else f" ± {100 * half:.1f}")
            for mean, half in cells[["mean", "half_width"]].astype(float).to_numpy()
        ],
        index=cells.index,
        dtype="string",
    )
