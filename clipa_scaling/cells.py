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
    tables: dict[str, pd.DataFrame],
    measure: str | None = None,
    eval_set: str | None = None,
    size: str | None = None,
    left_out: bool = False,
) -> pd.DataFrame:
    """One row per cell of done runs and evaluation point; the `common` protocol where there is one.

    Columns: the cell's, `before` (see `name_parents`), `evaluated_at` (samples), `mean` of `seeds`
    runs, `half_width` of its 95 % interval (see `half_widths`), costs, and `is_trunk`: of a
    steady rate, with branches. `measure`: by default the study's main one.
    `eval_set`: by default the first with the measure. `size`: `training`, the default where there
    is one, or `full`; see `choose_size`. `left_out`: also the runs that exclusions.yaml leaves out.
    Raises TableError where the set was not measured in one way throughout by one tokenizer.
    """
    runs, evals = tables["runs"], tables["evals"]
    runs = runs if left_out else runs[runs["left_out"].isna()]
    measure = measure or main_measure(tables)
    chosen = evals[(evals["name"] == measure) & evals["positions"].isna()]
    common = chosen["protocol"] == "common"
    chosen = chosen[common] if common.any() else chosen
    if eval_set is None and len(chosen):
        eval_set = str(chosen["set"].iloc[0])
    chosen = chosen[chosen["set"] == eval_set]
    chosen = take_one_way(mark_named(chosen, runs))
    chosen = chosen.rename(columns={"samples": "evaluated_at"})
    runs = runs[~runs["stage"].isin(schema.TRIAL_STAGES)]
    done = runs.assign(before=name_parents(runs))[runs["state"] == "done"]
    branched = done["run"].isin(runs.loc[(runs["kind"] == "decay").fillna(False), "parent"])
    done["is_trunk"] = branched & (done["schedule"] == "constant").fillna(False)
    # A decay run's own cost is its decay's; its model has seen all its samples.
    whole = 3.0 * done["samples"] * done["flops_per_sample"]
    is_decay = (done["kind"] == "decay").fillna(False)
    done = done.assign(train_flops=done["train_flops"].mask(is_decay, whole))
    chosen = choose_size(chosen, done, size)
    tokenizers = chosen["run"].map(done.set_index("run")["tokenizer"])
    # A field of cells, which no line hides where it is known; imported rows may stand in any.
    for name in tokenizers.dropna().unique() if tokenizers.notna().any() else [""]:
        check_one_benchmark(chosen[(tokenizers == name).fillna(False) | tokenizers.isna()])
    joined = done.merge(
        chosen[["run", "evaluated_at", "value", "n"]], on="run", validate="one_to_many"
    )
    cells = (
        joined.groupby([*CELL, "before", "evaluated_at"], dropna=False, sort=False)
        .agg(
            mean=("value", "mean"),
            seeds=("value", "count"),
            variance=("value", "var"),
            n=("n", "first"),
            is_trunk=("is_trunk", "any"),
            tuned=("tuned", "first"),
            **{name: (name, "first") for name in COSTS},
        )
        .reset_index()
    )
    cells["half_width"] = half_widths(cells, is_fraction=measure != "loss")
    return cells.drop(columns="variance")


def choose_size(evals: pd.DataFrame, runs: pd.DataFrame, size: str | None) -> pd.DataFrame:
    """The evaluations of these runs at one size; older tables' are all at the training size.

    A run whose training size is the full one has no second row: at full size its only one counts.
    TableError where full size was more than one.
    """
    evals = evals[evals["run"].isin(runs["run"])]
    is_full = (evals["size"] == "full").fillna(False)
    if evals.empty or size == "training" or not (size or is_full.all()):
        return evals[~is_full]
    patch = evals["run"].map(runs.set_index("run")["model"]).str.rpartition("/")[2]
    px = pd.to_numeric(patch, errors="coerce") * evals["eval_image_tokens"].astype(float) ** 0.5
    full = px[is_full].round().unique()
    if len(full) > 1:
        listed = ", ".join(f"{side:g}" for side in sorted(full))
        raise schema.TableError(
            f"evals: set={evals['set'].iloc[0]} has full sizes of {listed} px, which no curve can "
            "mix; choose one for evaluate.full_px and evaluate the others again"
        )
    has_both = evals["run"].isin(evals.loc[is_full, "run"])
    return evals[is_full | (px.round().isin(full) & ~has_both)]


def name_parents(runs: pd.DataFrame) -> pd.Series:
    """What a run's ancestors were, so that the seeds of a cell come from parents of one cell.

    Each ancestor's stage and the fields in which it differs from others of its stage, the nearest
    first; empty without a parent.
    """
    known = hide_tuned(runs.dropna(subset=["run"]).drop_duplicates("run"))
    said: dict[str, str] = {}
    for stage, rows in known.groupby("stage", dropna=False, sort=False):
        names = [name for name in find_differing(rows) if name != "model"]  # its children's too
        values = [rows[name].astype("string").fillna("") for name in names]
        for run, *told in zip(rows["run"], *values, strict=True):
            fields = (f"{name}={value}" for name, value in zip(names, told, strict=True))
            said[str(run)] = " ".join([str(stage), *fields])
    parents = known.set_index("run")["parent"].fillna("").astype(str).to_dict()

    def name(run: str) -> str:
        parent = parents.get(run, "")
        if not parent:
            return ""
        further = name(parent)
        return said.get(parent, parent) + (f" after {further}" if further else "")

    told = ["" if pd.isna(run) else name(str(run)) for run in runs["run"]]
    return pd.Series(told, index=runs.index, dtype="string")


def hide_tuned(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `tuned` in place of values that tuning chose, in which no two shall differ."""
    if "tuned" not in rows:
        return rows
    hidden = {}
    chosen = rows["tuned"].astype("string").fillna("").str.split(" | ", regex=False)
    for name in sorted({name for names in chosen for name in names} & set(CELL)):
        is_chosen = pd.Series([name in names for names in chosen], index=rows.index)
        hidden[name] = rows[name].astype("string").mask(is_chosen, "tuned")
    return rows.assign(**hidden)


def find_differing(rows: pd.DataFrame) -> list[str]:
    """The fields of a cell in which rows are known to differ, and none that follows from others.

    Imported rows leave much unknown, which is no difference.
    """
    names = [name for name in CELL if rows[name].nunique() > 1]
    if (rows["image_reduction"] == "resize").all():
        names = [name for name in names if name != "image_size"]
    if "samples" in names and not (rows.groupby("samples")["decay_samples"].nunique() > 1).any():
        names = [name for name in names if name != "decay_samples"]
    return names


def name_lines(cells: pd.DataFrame) -> pd.Series:
    """Each cell's line: its model, its stage where there are several, and what else tells it apart.

    That is every field in which cells of one stage differ, other than image tokens; where those are
    many, only what is unusual of a cell. Then what its runs started from, where that differs.
    """
    cells = hide_tuned(cells)
    stages = cells.groupby("stage", sort=False, dropna=False)
    differing = {name for _, rows in stages for name in find_differing(rows)}
    names = [name for name in CELL if name in differing - {"model", "image_tokens", "stage"}]
    lines = cells["model"].astype("string").fillna("unknown model")
    if stages.ngroups > 1:
        lines = lines + ", " + cells["stage"].astype("string")
    for name in names:
        values = cells[name].astype("string").fillna("")
        told = (", " + name + "=" + values).where(values != "", "")
        if len(names) > MOST_NAMES:
            by_stage = values.groupby(cells["stage"], sort=False, dropna=False)
            usual = by_stage.transform(lambda column: column.mode().iloc[0])
            told = told.where(values != usual, "")
        lines = lines + told
    points = [lines, cells["image_tokens"], cells["evaluated_at"]]
    if (cells.groupby(points, dropna=False)["before"].nunique() > 1).any():
        lines = lines + (" after " + cells["before"]).where(cells["before"] != "", "")
    return lines


def mark_named(evals: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """With `is_named`: whether the texts of a row are known, or were vouched for.

    Of imported rows nobody knows the texts; that their benchmark is ours, somebody said.
    """
    imported = evals["run"].isin(runs.loc[runs["imported"].notna(), "run"])
    return evals.assign(is_named=evals["evaluation"].notna() | imported)


def take_one_way(evals: pd.DataFrame) -> pd.DataFrame:
    """Of a set measured in several ways, the last in which every run was; all where none is."""
    way = ["fingerprint", "is_named"]
    ways = evals.groupby(way, sort=False)["run"].nunique()
    whole = ways[ways == evals["run"].nunique()]
    if whole.empty:
        return evals
    fingerprint, is_named = whole.index[-1]
    chosen: pd.DataFrame = evals[
        (evals["fingerprint"] == fingerprint) & (evals["is_named"] == is_named)
    ]
    return chosen


def check_one_benchmark(evals: pd.DataFrame) -> None:
    """Raise TableError where rows of one set differ in pictures, texts, protocol or evaluator.

    Rows of older versions have no `evaluation`: among themselves they compare by fingerprint, but
    beside others nobody knows whether their classes had the same names.
    """
    changed = {"fingerprint": "pictures or prompts", "evaluation": "texts, tokenizer or evaluator"}
    for name, what in changed.items():
        # Whose pictures are unknown are others; of texts see below.
        told = evals[name].fillna("unknown") if name == "fingerprint" else evals[name].dropna()
        found = told.unique()
        if len(found) > 1:
            raise schema.TableError(
                f"evals: set={evals['set'].iloc[0]} was measured in {len(found)} ways "
                f"({name} {', '.join(found)}): its {what} changed between runs; "
                "give the changed set another name in the sweep file"
            )
    is_named = evals["is_named"] if "is_named" in evals else evals["evaluation"].notna()
    if is_named.nunique() > 1:
        older = evals.loc[~is_named, "run"].unique()
        raise schema.TableError(
            f"evals: set={evals['set'].iloc[0]} was measured by a version that kept no evaluation "
            f"in {len(older)} of {evals['run'].nunique()} runs, such as {older[0]}: its classes "
            "may have had other names; measure those runs again with --evaluate"
        )


def half_widths(cells: pd.DataFrame, is_fraction: bool) -> pd.Series:
    """Half of each cell's 95 % interval; NaN where no cell of its model has two seeds.

    Two variances add up: that of seeds, pooled over the cells of one model, stage and evaluation
    point since each has few, over the cell's seeds; and for a fraction that of the evaluation set,
    at most mean (1 - mean) / n, so that intervals are rather too wide. Student's t with the degrees
    of freedom of Welch and Satterthwaite, the second variance taken as known.
    """
    seeds = cells["seeds"].astype(float)
    keys = [cells[name].fillna("") for name in ("stage", "model")] + [cells["evaluated_at"]]
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
    """The cells' last evaluations alone; where nobody knows when, the only one there is.

    Without trunks, whose rate never came down: their branches stand for them.
    """
    unknown = cells["evaluated_at"].isna() & cells["samples"].isna()
    ended = (cells["evaluated_at"] == cells["samples"]).fillna(False) | unknown
    return cells[ended & ~cells["is_trunk"]]


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
