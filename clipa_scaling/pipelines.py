"""Tables -> one row per pipeline: every stage's lengths, values before and after, summed cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from clipa_scaling import schema
from clipa_scaling.cells import CELL, find_differing, main_measure
from clipa_scaling.collect import make_table
from clipa_scaling.schema import PIPELINE_STAGE, pipeline_columns

LENGTHS = ("image_tokens", "text_tokens")
REDUCTIONS = ("image_reduction", "text_reduction")
# What a shorter pipeline may differ in from the one that its drop is from: lengths, and what
# follows from them.
SHORTENED = {*LENGTHS, *REDUCTIONS, "image_size", "word_classes", "stage"}
SEPARATOR = " > "  # of stages
ARROW = " → "

PIPELINE_COSTS = {
    "pipeline_flops": "train_flops",
    "pipeline_hours": "gpu_hours",
    "pipeline_hours_used": "gpu_hours_used",
    "pipeline_dollars": "dollars",
}

Run = Mapping[str, Any]
Key = tuple[object, ...]


def has_stages(tables: dict[str, pd.DataFrame]) -> bool:
    """Whether any run's training goes on from another run."""
    runs = tables["runs"]
    return bool(((runs["parent"].fillna("") != "") & (runs["kind"].fillna("") != "evaluate")).any())


def make_pipelines(
    tables: dict[str, pd.DataFrame], measure: str | None = None, eval_set: str | None = None
) -> pd.DataFrame:
    """The `pipelines` table: a row for each run that no other starts from, with all its ancestors.

    Columns are those of `schema.pipeline_columns`. Values are those of the measure (by default the
    study's main one, on its first set) under the `common` protocol where there is one, and at the
    size of training where there are two. Costs are `sum_pipelines`'.
    """
    measure = measure or main_measure(tables)
    known = read_runs(tables)
    evals, eval_set = choose_evals(tables["evals"], measure, eval_set)
    evals = take_most(evals)
    after, before = values_after(evals, known), values_before(evals, known)
    leaves = sum_pipelines(tables)
    chains = {str(run): follow_back(known, str(run)) for run in leaves["run"]}
    stages = order_stages(chains.values())
    full = find_full(chains)
    rows = []
    costs = {name: dict(zip(leaves["run"], leaves[name], strict=True)) for name in PIPELINE_COSTS}
    for leaf, chain in chains.items():
        last, reference = chain[-1], known.get(full.get(leaf, ""))
        row = {name: last[name] for name in ("model", "seed", "state", "left_out")}
        row |= {"pipeline": leaf, "set": eval_set, "full": full.get(leaf)}
        row |= {"stages": SEPARATOR.join(str(run["stage"]) for run in chain)}
        row |= {name: float(cost[leaf]) for name, cost in costs.items()}
        if reference is not None and not (reference["left_out"] or last["left_out"]):
            row["drop"] = 100 * (after.get(full[leaf], math.nan) - after.get(leaf, math.nan))
        for run in chain:
            values = {name: run.get(name) for name in PIPELINE_STAGE}
            values |= {"before": before.get(run["run"]), measure: after.get(run["run"])}
            row |= {f"{run['stage']}_{name}": value for name, value in values.items()}
        rows.append({name: None if is_nan(value) else value for name, value in row.items()})
    return make_table(rows, pipeline_columns(stages, measure))


def read_runs(tables: dict[str, pd.DataFrame]) -> dict[str, Run]:
    """Every run's row by its id, None for what is missing: pd.NA has no truth value."""
    runs = tables["runs"].dropna(subset=["run"]).drop_duplicates("run")
    plain = runs.astype(object).where(runs.notna(), None)
    columns = [plain[name].tolist() for name in plain]
    records = [dict(zip(map(str, plain), row, strict=True)) for row in zip(*columns, strict=True)]
    return {record["run"]: record for record in records}


def is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def choose_evals(
    evals: pd.DataFrame, measure: str, eval_set: str | None
) -> tuple[pd.DataFrame, str | None]:
    """The rows of a measure on one set: one protocol, one size, each run's own first; the set."""
    chosen = evals[evals["name"] == measure]
    common = chosen["protocol"] == "common"
    if common.any():
        chosen = chosen[common]
    if eval_set is None and len(chosen):
        eval_set = str(chosen["set"].iloc[0])
    chosen = chosen[(chosen["set"] == eval_set) & (chosen["size"].fillna("training") != "full")]
    named = chosen[chosen["evaluation"].notna()]  # older versions' are not, until made anew
    if named["run"].nunique() == chosen["run"].nunique():
        chosen = named
    later = chosen["by"].notna()  # of several later ones the first made, as they stand in the table
    return pd.concat([chosen[~later], chosen[later]]), eval_set


def take_most(evals: pd.DataFrame) -> pd.DataFrame:
    """Of a set measured in several ways the one that the most runs have, so that drops mix none."""
    way = evals["fingerprint"].fillna("")
    ways = evals["run"].groupby(way).nunique()
    return evals if len(ways) < 2 else evals[way == str(ways.idxmax())]


def values_after(evals: pd.DataFrame, known: Mapping[str, Run]) -> dict[str, float]:
    """Each run's value after its last step, by run."""
    ends = evals[evals["positions"].isna()].dropna(subset=["value"])
    at = ends["samples"].astype(object).where(ends["samples"].notna(), None)
    columns = (ends["run"].tolist(), at.tolist(), ends["value"].tolist())
    found: dict[str, float] = {}
    for run, samples, value in zip(*columns, strict=True):
        if run in known and known[run]["samples"] == samples:
            found.setdefault(run, float(value))
    return found


def values_before(evals: pd.DataFrame, known: Mapping[str, Run]) -> dict[str, float]:
    """Each child's value before its first step, under the treatment of positions it starts from."""
    first = evals[evals["positions"].notna()].dropna(subset=["value"])
    found = {}
    for run, positions, value in zip(first["run"], first["positions"], first["value"], strict=True):
        image, text = (
            known.get(run, {}).get(f"{tower}_position_change") for tower in ("image", "text")
        )
        if positions == f"image {image}, text {text}":
            found[str(run)] = float(value)
    return found


def follow_back(known: Mapping[str, Run], run: str) -> list[Run]:
    """A run and those that it starts from, the first stage first."""
    chain: list[Run] = []
    while run in known:
        chain.insert(0, known[run])
        run = str(known[run]["parent"] or "")
    return chain


def order_stages(chains: Iterable[Sequence[Run]]) -> list[str]:
    """All stages, each after those it starts from."""
    depths: dict[str, int] = {}
    for chain in chains:
        for depth, run in enumerate(chain):
            stage = str(run["stage"])
            depths[stage] = max(depth, depths.get(stage, 0))
    return sorted(depths, key=lambda stage: depths[stage])


def find_full(chains: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """The full-length pipeline of each: equal in all but lengths, and in every stage the longest.

    Longest of all pipelines of the model and stages, whatever their settings: none where there is
    no such. Of several, by other reductions, the one of the same. What tuning chose may differ.
    """
    lengths: dict[str, list[int]] = {}
    longest: dict[Key, list[int]] = {}
    groups: dict[tuple[Key, Key], list[str]] = {}
    models: Key
    for leaf, chain in chains.items():
        lengths[leaf] = [run[name] or 0 for run in chain for name in LENGTHS]
        models = tuple((run["model"], run["stage"]) for run in chain)
        pairs = zip(lengths[leaf], longest.get(models, lengths[leaf]), strict=True)
        longest[models] = [max(pair) for pair in pairs]
        groups.setdefault((models, tuple(map(settings, chain))), []).append(leaf)
    full = {}
    for (models, _), leaves in groups.items():
        found = [leaf for leaf in leaves if lengths[leaf] == longest[models]]
        for leaf in leaves:
            own = reductions(chains[leaf])
            same = [other for other in found if reductions(chains[other]) == own]
            if len(same or found) == 1:
                [full[leaf]] = same or found
    return full


def settings(run: Run) -> Key:
    """All that a pipeline of another length has in common."""
    tuned = set(str(run.get("tuned") or "").split(" | "))
    names = [name for name in CELL if name not in SHORTENED | tuned]
    return (run["seed"], *(run[name] for name in names))


def reductions(chain: Sequence[Run]) -> list[object]:
    return [run[name] for run in chain for name in REDUCTIONS]


def name_rows(pipelines: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """What tells pipelines of one model apart, for a reader: a column of text for each such field.

    `4 → 16` are the lengths of the stages in their order; fields other than lengths and reductions
    stand together under `other`.
    """
    named = pd.DataFrame(index=pipelines.index)
    for field in (REDUCTIONS[0], "image_tokens", REDUCTIONS[1], "text_tokens"):
        told = [
            chain_text([row.get(f"{stage}_{field}") for stage in split_stages(row["stages"])])
            for _, row in pipelines.iterrows()
        ]
        if field == "image_tokens" or len(set(told)) > 1:
            named[field] = told
    runs = tables["runs"].dropna(subset=["run"]).drop_duplicates("run").set_index("run")
    others = pd.Series("", index=pipelines.index)
    for stage in dict.fromkeys(
        stage for told in pipelines["stages"] for stage in split_stages(told)
    ):
        rows = runs.loc[pipelines[f"{stage}_run"].dropna()]
        for field in [name for name in find_differing(rows.reset_index()) if name != "model"]:
            if field in (*LENGTHS, *REDUCTIONS, "image_size"):
                continue
            values = pipelines[f"{stage}_run"].map(rows[field].to_dict()).astype("string")
            others = others + (f"{stage} {field}=" + values + " ").fillna("")
    if (others != "").any():
        named["other"] = others.str.strip()
    return named


def split_stages(told: str) -> list[str]:
    return told.split(SEPARATOR)


def chain_text(values: Sequence[object]) -> str:
    """`4 → 16`; one value where all stages have it."""
    told = ["?" if value is None or pd.isna(value) else str(value) for value in values]  # type: ignore[call-overload]
    return told[0] if len(set(told)) == 1 else ARROW.join(told)


def sum_pipelines(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The runs that no other run's training starts from, with the columns of PIPELINE_COSTS.

    Those are sums over a run and all its ancestors.
    """
    runs = tables["runs"].dropna(subset=["run"]).drop_duplicates("run").set_index("run")
    trained = runs[runs["kind"].fillna("") != "evaluate"]
    leaves = trained[~trained.index.isin(trained["parent"])].copy()
    leaves = leaves[~leaves["stage"].isin(schema.TRIAL_STAGES)]
    for name, column in PIPELINE_COSTS.items():
        leaves[name] = sum_ancestors(runs, leaves.index, column)
    return leaves.reset_index()


def sum_ancestors(runs: pd.DataFrame, wanted: Iterable[object], column: str) -> list[float]:
    """A cost of each run and all it starts from; NaN where an ancestor is not in the table.

    runs: indexed by run. Of a decay run's parent counts the part before the branch.
    """
    costs = runs[column].astype(float).to_dict()
    samples = runs["samples"].astype(float).to_dict()
    leaves = (runs["samples"].astype(float) - runs["decay_samples"].astype(float)).to_dict()
    parents = runs["parent"].astype("string").fillna("").to_dict()
    decays = set(runs.index[(runs["kind"] == "decay").fillna(False)])
    found = []
    for leaf in wanted:
        run, total, share = str(leaf), 0.0, 1.0
        while run and run in costs:
            total += share * costs[run]
            parent = str(parents[run])
            is_branch = run in decays and parent in costs
            share = leaves[run] / samples[parent] if is_branch else 1.0
            run = parent
        found.append(math.nan if run else total)
    return found
