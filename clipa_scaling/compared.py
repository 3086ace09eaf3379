"""Tables -> the runs that are compared over sizes, lengths and samples, one row each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clipa_scaling.cells import CELL, check_one_benchmark, main_measure, mark_named, take_one_way
from clipa_scaling.models import load_model
from clipa_scaling.pipelines import sum_ancestors
from clipa_scaling.schema import TRIAL_STAGES, TableError

Floats = NDArray[np.float64]

LENGTHS = ("image_tokens", "text_tokens")
SIZES = ("image_params", "text_params", "total_params", "nonembedding_params")
# What a run of another size, length or sample count differs in anyhow.
AXES = ("stage", "model", "samples")
FROM = "start_"  # before the fields of the run that a finetune started from
FOLLOWS = ("start_fingerprint",)


@dataclass(frozen=True)
class Compared:
    """The runs of one comparison, a row each, and what they have in common.

    runs: `run`, `model`, `size` (parameters), `length` (tokens), `samples`, `seed`, `value`, `n`
    (examples), `root` (the run that its ancestry begins with), `tuned`, `flops` of the whole
    pipeline and `fixed_flops`, those after the run that length and samples are of (NaN: unknown).
    full: tokens by model. unmeasured: done runs without a value at their end, which have no say.
    """

    runs: pd.DataFrame
    full: Mapping[str, int]
    length: str
    size: str
    measure: str
    eval_set: str
    stage: str
    settings: Mapping[str, str]
    unmeasured: tuple[str, ...] = ()


def find_compared(
    tables: dict[str, pd.DataFrame],
    *,
    measure: str | None = None,
    eval_set: str | None = None,
    stage: str | None = None,
    length: str = "image_tokens",
    size: str = "image_params",
    full: int | None = None,
) -> list[Compared]:
    """The comparisons that a study holds: one for each combination of its other settings.

    Only done, annealed runs count, at their end, under the `common` protocol at the training size;
    neither those of the stages that search a rate, nor what exclusions leave out. stage: by default
    the finetunes that nothing starts from, else the runs from scratch (pretrain and decay).
    Finetunes stand at the length and samples of what they started from. full: the reference's
    tokens; by default all of a masked picture, and of others the most that a patch has.
    Raises TableError for a measure that is no fraction, or measured in several ways.
    """
    measure = measure or main_measure(tables)
    runs = choose_stage(tables["runs"], stage)
    evals = choose_evals(tables["evals"], runs, measure, eval_set)
    joined = runs.merge(evals, on=["run", "samples"], validate="one_to_one")
    unmeasured = tuple(sorted(set(runs["run"]) - set(joined["run"])))
    starts = find_starts(tables["runs"], joined["run"])
    known = tables["runs"].drop_duplicates("run").set_index("run")
    source = known.loc[[start for start, _ in starts]].reset_index()
    frame = place_runs(joined, source, known, [root for _, root in starts], size, length)
    settings = other_settings(joined, source, length)
    found = []
    for chosen, told in split(frame, settings):
        rows = frame[chosen].drop_duplicates(["model", "length", "samples", "seed"])
        reference = find_full(rows, source, length, full)
        found.append(
            Compared(
                same_size(rows.reset_index(drop=True)),
                reference,
                length,
                size,
                measure,
                str(evals["set"].iloc[0]) if len(evals) else "",
                " and ".join(sorted(set(joined["stage"].astype(str)[chosen]))),
                told,
                unmeasured,
            )
        )
    return found


def place_runs(
    joined: pd.DataFrame,
    source: pd.DataFrame,
    known: pd.DataFrame,
    roots: Sequence[str],
    size: str,
    length: str,
) -> pd.DataFrame:
    """The columns of `Compared.runs`, but for what a split of them decides."""
    check_known(source, [size, length, "samples", "seed"])
    flops, start_flops = sum_flops(known, joined["run"]), sum_flops(known, source["run"])
    return pd.DataFrame(
        {
            "run": joined["run"].astype(str).to_numpy(),
            "model": joined["model"].astype(str).to_numpy(),
            "size": source[size].astype(float),
            "length": source[length].astype(int),
            "samples": source["samples"].astype(int),
            "seed": source["seed"].astype(int),
            "value": joined["value"].astype(float).to_numpy(),
            "n": joined["n"].astype(float).to_numpy(),
            "root": list(roots),
            "tuned": source["tuned"].fillna("").astype(str),
            "flops": flops,
            "fixed_flops": flops - start_flops,
        }
    )


def check_known(source: pd.DataFrame, names: Sequence[str]) -> None:
    """TableError for the first run without a number that places it."""
    for name in names:
        missing = source.loc[source[name].isna(), "run"]
        if len(missing):
            raise TableError(
                f"runs: {missing.iloc[0]} has no {name}, as {len(missing)} of {len(source)}, and "
                "has no place in a comparison; leave it out in exclusions.yaml"
            )


def choose_stage(runs: pd.DataFrame, stage: str | None) -> pd.DataFrame:
    """Done runs of one stage, or of those from scratch, less what never enters a comparison."""
    parents = set(runs.loc[runs["kind"].isin(["decay", "finetune"]), "parent"].dropna())
    usable = runs[
        (runs["state"] == "done") & runs["left_out"].isna() & ~runs["stage"].isin(TRIAL_STAGES)
    ]
    # A constant rate never came down: such a trunk is no model of its samples.
    usable = usable[~((usable["schedule"] == "constant").fillna(False))]
    tuned = usable[(usable["kind"] == "finetune") & ~usable["run"].isin(parents)]
    if stage is None and len(tuned):
        stage = str(tuned["stage"].value_counts().index[0])
    is_chosen = usable["kind"].isin(["pretrain", "decay"]) if stage is None else (
        usable["stage"] == stage
    )  # fmt: skip
    chosen: pd.DataFrame = usable[is_chosen].drop_duplicates("run")  # two stages may share a run
    return chosen


def choose_evals(
    evals: pd.DataFrame,
    runs: pd.DataFrame,
    measure: str,
    eval_set: str | None,
    is_fraction: bool = True,
    protocol: str | None = None,
) -> pd.DataFrame:
    """One value a run and sample count: one set, protocol and size, the run's own first."""
    chosen = evals[(evals["name"] == measure) & evals["positions"].isna()]
    chosen = chosen[chosen["run"].isin(runs["run"]) & chosen["value"].notna()]
    chosen = chosen[chosen["size"].fillna("training") != "full"]
    if eval_set is None and len(chosen):
        eval_set = str(chosen["set"].iloc[0])
    chosen = take_one_protocol(chosen[chosen["set"] == eval_set], protocol)
    chosen = take_one_way(mark_named(chosen, runs))
    check_one_benchmark(chosen)
    if is_fraction and not chosen["value"].between(0, 1).all():
        raise TableError(
            f"evals: measure={measure} is no fraction in [0, 1]; allowed: accuracy, or recalls "
            "such as text_to_image_r1"
        )
    chosen = chosen.sort_values("by", na_position="first", kind="stable")
    chosen = chosen.drop_duplicates(["run", "samples"])
    return chosen[["run", "samples", "set", "value", "n", "protocol", "evaluator"]]


def take_one_protocol(evals: pd.DataFrame, protocol: str | None) -> pd.DataFrame:
    """The rows under a protocol, by default `common`, or else the one there is.

    TableError where runs lack it: numbers under other prompts are other measures.
    """
    told = evals["protocol"].fillna("")
    if protocol is None:
        protocol = "common" if (told == "common").any() else next(iter(told), "")
    lacking = sorted(set(evals["run"]) - set(evals.loc[told == protocol, "run"]))
    if lacking:
        others = ", ".join(sorted(set(told[evals["run"].isin(lacking)])))
        raise TableError(
            f"evals: protocols are not mixed: {len(lacking)} of {evals['run'].nunique()} runs, "
            f"such as {lacking[0]}, have protocol={others or 'none'} and not {protocol or 'none'}; "
            "measure them again with --evaluate, or leave them out in exclusions.yaml"
        )
    return evals[told == protocol]


def find_starts(runs: pd.DataFrame, wanted: pd.Series) -> list[tuple[str, str]]:
    """Of each run the one from scratch that it goes back to, and the one that all begins with."""
    parents = dict(zip(runs["run"], runs["parent"].fillna(""), strict=True))
    kinds = dict(zip(runs["run"], runs["kind"].fillna(""), strict=True))
    found = []
    for run in wanted:
        start = str(run)
        while kinds[start] == "finetune" and parents[start]:
            if parents[start] not in parents:
                raise TableError(
                    f"runs: {start} starts from {parents[start]}, which is not in the table; its "
                    "lengths and samples are unknown: leave it out in exclusions.yaml"
                )
            start = parents[start]
        root = start
        while parents.get(root, ""):
            root = parents[root]
        found.append((start, root))
    return found


def sum_flops(known: pd.DataFrame, wanted: pd.Series) -> Floats:
    """Training FLOPs of runs and all that they start from."""
    return np.array(sum_ancestors(known, wanted, "train_flops"), float)


def other_settings(joined: pd.DataFrame, source: pd.DataFrame, length: str) -> pd.DataFrame:
    """All fields of the runs but the axes of the comparison, and of what finetunes started from."""
    names = [name for name in CELL if name not in (*AXES, *FOLLOWS)]
    own = joined[names].reset_index(drop=True).astype("string").fillna("")
    if (joined["run"].to_numpy() == source["run"].to_numpy()).all():
        return own.drop(columns=length)
    own["samples"] = joined["samples"].astype("string").to_numpy()
    before = source[[name for name in names if name != length]].astype("string").fillna("")
    return pd.concat([own, before.add_prefix(FROM)], axis=1)


def split(
    frame: pd.DataFrame, settings: pd.DataFrame
) -> Iterator[tuple[pd.Series, Mapping[str, str]]]:
    """The rows of each comparison and what tells it apart.

    Those are the fields that differ between runs of one size, length, sample count and seed: such
    runs are no repetitions. What differs only along the axes, as a rate that was tuned, stays.
    """
    if frame.empty:
        return
    cells = [frame[name] for name in ("model", "length", "samples", "seed")]
    counts = settings.groupby(cells, dropna=False).nunique()
    names = [name for name in settings if (counts[name] > 1).any()]
    if not names:
        yield pd.Series(True, index=frame.index), {}
        return
    for values, rows in settings.groupby(names, sort=False):
        told = dict(zip(map(str, names), map(str, values), strict=True))
        yield pd.Series(frame.index.isin(rows.index), index=frame.index), told


def find_full(
    rows: pd.DataFrame, source: pd.DataFrame, length: str, full: int | None
) -> dict[str, int]:
    """The reference's length for each model."""
    models = list(dict.fromkeys(rows["model"]))
    if full is not None:
        return dict.fromkeys(models, full)
    if length == "text_tokens":
        return dict.fromkeys(models, int(rows["length"].max()))
    found = {}
    for model in models:
        patch = find_patch(model)
        peers = [other for other in models if find_patch(other) == patch]
        of_peers = source.loc[rows.index[rows["model"].isin(peers)]]
        masked = of_peers[(of_peers["image_reduction"] != "resize").fillna(False)]
        pixels = masked["image_size"].dropna().astype(int)
        most = int(pixels.max() // patch) ** 2 if patch and len(pixels) else 0
        found[model] = int(max(most, rows.loc[rows["model"].isin(peers), "length"].max()))
    return found


def find_patch(model: str) -> int:
    """Pixels; 0 for a model of another program, whose longest length is the reference."""
    try:
        return load_model(model).patch
    except ValueError:
        return 0


def same_size(rows: pd.DataFrame) -> pd.DataFrame:
    """Each model's parameters at its longest length: under resize, position tables shrink."""
    longest = rows.sort_values("length").groupby("model")["size"].last()
    return rows.assign(size=rows["model"].map(longest).astype(np.float64))
