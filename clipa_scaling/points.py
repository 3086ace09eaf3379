"""Tables -> the points of a fit: done, annealed runs, measured in one way under one protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clipa_scaling.cells import main_measure
from clipa_scaling.compared import (
    FROM,
    choose_evals,
    choose_stage,
    find_starts,
    other_settings,
    split,
)
from clipa_scaling.lawform import ROLES, Floats
from clipa_scaling.pipelines import sum_ancestors
from clipa_scaling.resample import estimate_noise, logits
from clipa_scaling.schema import RUNS, TableError
from clipa_scaling.solve import Points

COLUMNS: Mapping[str, str] = {
    "N": "image_params",
    "D": "samples",
    "T": "image_tokens",
    "S": "text_tokens",
    "C": "train_flops",
}
LOSS = "loss"  # the one measure that is no fraction


@dataclass(frozen=True)
class Chosen:
    """Points, the model of each row (n,), and what they have in common, in words by its name."""

    points: Points
    models: np.ndarray
    facts: Mapping[str, str]


def make_points(tables: dict[str, pd.DataFrame], **choice: object) -> Points:
    """The points of a study; see `choose_points` for what there is to choose."""
    return choose_points(tables, **choice).points  # type: ignore[arg-type]


def choose_points(
    tables: dict[str, pd.DataFrame],
    *,
    columns: Mapping[str, str] | None = None,
    measure: str | None = None,
    eval_set: str | None = None,
    stage: str | None = None,
    protocol: str | None = None,
    where: Mapping[str, str] | None = None,
    left_out: bool = False,
) -> Chosen:
    """The done, annealed runs of a study at their end, as points (see `compared.find_compared`).

    columns: role -> a column of `runs`, in place of COLUMNS. y is 1 - measure, or the loss itself.
    N is a model's parameters at its longest length; a finetune stands at the lengths and samples of
    what it started from, and C is its whole pipeline's. where: column -> value, of the runs, or
    with `start_` before the column of what they started from.
    left_out: with the runs that exclusions.yaml leaves out. A row's cluster is its root run; its
    noise that of seeds and pictures where cells are repeated (`resample.estimate_noise`).
    Raises TableError for mixed protocols or benchmarks, and for settings that no role stands for.
    """
    names = check_columns(columns)
    measure = measure or main_measure(tables)
    table = tables["runs"]
    if left_out:
        table = table.assign(left_out=pd.Series(pd.NA, index=table.index, dtype="string"))
    wanted = where or {}
    own = {name: value for name, value in wanted.items() if not name.startswith(FROM)}
    before = {name.removeprefix(FROM): value for name, value in wanted.items() if name not in own}
    runs = take_where(choose_stage(table, stage), own)
    evals = choose_evals(tables["evals"], runs, measure, eval_set, measure != LOSS, protocol)
    joined = runs.merge(evals, on=["run", "samples"], validate="one_to_one")
    if joined.empty:
        raise TableError(
            f"no finished, annealed run has {measure} at its end; name another measure, set or "
            "stage"
        )
    known = table.dropna(subset=["run"]).drop_duplicates("run").set_index("run")
    starts = find_starts(table, joined["run"])
    source = known.loc[[start for start, _ in starts]].reset_index()
    kept_rows = take_where(source, before).index
    joined, source = (rows.loc[kept_rows].reset_index(drop=True) for rows in (joined, source))
    check_settings(joined, source)
    x = read_roles(names, joined, source, known)
    value = joined["value"].to_numpy(np.float64, na_value=np.nan)
    roots = np.array([starts[at][1] for at in kept_rows])
    points = Points(
        x=x,
        y=value if measure == LOSS else 1 - value,
        columns={**{role: names[role] for role in x}, "y": measure},
        cluster=roots,
        run=joined["run"].to_numpy(str),
        noise=find_noise(joined, source, roots, measure),
    )
    return Chosen(points, joined["model"].to_numpy(str), describe(joined, source, measure))


def describe(joined: pd.DataFrame, source: pd.DataFrame, measure: str) -> dict[str, str]:
    """What the rows have in common, for a reader."""
    return {
        "measure": measure,
        "set": tell(joined["set"]),
        "protocol": tell(joined["protocol"]),
        "evaluator": tell(joined["evaluator"]),
        "stage": tell(joined["stage"]),
        "reductions": f"image {tell(source['image_reduction'])}, "
        f"text {tell(source['text_reduction'])}",
        "schedule": tell(joined["schedule"]),
        "lr": f"{tell(source['lr'])}; tuned fields: {tell(source['tuned'])}",
        "batch_size": tell(source["batch_size"]),
        "seeds": tell(joined["seed"]),
        "revision": tell(joined["revision"]),
        "device": tell(joined["device"]),
        "source": tell(joined["imported"]).replace("not recorded", ""),
    }


def check_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    names = {**COLUMNS, **(columns or {})}
    for role, name in names.items():
        if role not in ROLES:
            raise TableError(f"role {role!r}; allowed: {', '.join(ROLES)}")
        if name not in RUNS or RUNS[name].dtype not in ("Int64", "Float64"):
            raise TableError(f"{role}={name} is no number of the runs table")
    return names


def take_where(runs: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    for name, value in where.items():
        if name not in runs:
            raise TableError(f"where {name}={value}: runs have no column {name}")
        held = runs[name].astype("string").fillna("")
        if not (held == value).any():
            allowed = ", ".join(sorted(held.unique()))
            raise TableError(f"where {name}={value}: no such run; there are: {allowed}")
        runs = runs[held == value]
    return runs


def check_settings(joined: pd.DataFrame, source: pd.DataFrame) -> None:
    """TableError where runs at one place of the law differ in what no role stands for."""
    settings = other_settings(joined, source, "image_tokens")
    text = "start_text_tokens" if "start_text_tokens" in settings else "text_tokens"
    settings = settings.drop(columns=text)
    places = pd.DataFrame(
        {
            "model": joined["model"].astype(str).to_numpy(),
            "length": cell_lengths(source),
            "samples": source["samples"].to_numpy(),
            "seed": source["seed"].to_numpy(),
        }
    )
    told = [settings for _, settings in split(places, settings)]
    if len(told) > 1:
        name = next(name for name in told[0] if len({each[name] for each in told}) > 1)
        values = ", ".join(dict.fromkeys(each[name] or "none" for each in told))
        raise TableError(
            f"runs of one size, length and sample count differ in {name} ({values}), which no "
            f"variable of a law stands for; choose one, as --where {name}={told[0][name]}"
        )


def cell_lengths(source: pd.DataFrame) -> list[str]:
    pairs = zip(source["image_tokens"], source["text_tokens"], strict=True)
    return [f"{image}, {text}" for image, text in pairs]


def cells_of(joined: pd.DataFrame, source: pd.DataFrame) -> pd.Series:
    """Which rows repeat each other, by a number."""
    keys = [joined["model"].to_numpy(str), cell_lengths(source), source["samples"].to_numpy(int)]
    return pd.DataFrame(dict(enumerate(keys))).groupby([0, 1, 2]).ngroup()


def read_roles(
    names: Mapping[str, str], joined: pd.DataFrame, source: pd.DataFrame, known: pd.DataFrame
) -> dict[str, Floats]:
    """Each role's values, (n,); a role that no run has a value for is left away.

    Raises TableError where only some have one: without the role, their y would be its effect.
    """
    x: dict[str, Floats] = {}
    for role, name in names.items():
        values: Floats = source[name].to_numpy(np.float64, na_value=np.nan)
        if name == "train_flops":
            values = np.array(sum_ancestors(known, joined["run"], name))
        if role == "N":  # under resize, position tables shrink with the length
            order = pd.DataFrame(
                {"model": joined["model"], "T": source["image_tokens"], "N": values}
            )
            longest = order.sort_values("T").groupby("model")["N"].last()
            values = joined["model"].map(longest).to_numpy(float)
        known_here = np.isfinite(values) & (values > 0)
        if known_here.all():
            x[role] = values
        elif known_here.any():
            run = (joined if name == "train_flops" else source)["run"][~known_here].iloc[0]
            raise TableError(
                f"runs: {(~known_here).sum()} of {len(values)} runs, such as {run}, have no {name} "
                f"({role}), the others have; fill it in, leave these out in exclusions.yaml, or "
                "choose others with --where"
            )
    return x


def find_noise(
    joined: pd.DataFrame, source: pd.DataFrame, roots: np.ndarray, measure: str
) -> Floats | None:
    """The standard deviation of each y, (n,); None where no cell is repeated."""
    cell = cells_of(joined, source)
    if cell.nunique() == len(cell):
        return None
    value = joined["value"].astype(float)
    if measure == LOSS:
        spread = value - value.groupby(cell).transform("mean")
        pooled = float((spread**2).sum() / (len(value) - cell.nunique())) ** 0.5
        return np.full(len(value), pooled) if pooled > 0 else None
    n = joined["n"].to_numpy(np.float64, na_value=np.nan)
    if np.isnan(n).any():
        return None
    y = logits(joined["value"].to_numpy(np.float64, na_value=np.nan), n)
    rows = pd.DataFrame({"y": y, "value": value, "n": n, "root": roots})
    rows["samples"] = source["samples"].to_numpy()
    seeds = estimate_noise(rows, cell, None).seed_variance
    # Of the cell's mean: a run's own value would count more the further luck pushed it to an end.
    odds = 1 / (1 + np.exp(-rows.groupby(cell)["y"].transform("mean").to_numpy(float)))
    slope = odds * (1 - odds)
    return np.asarray(np.sqrt(seeds + 1 / (n * slope)) * slope)


def tell(values: pd.Series) -> str:
    """The distinct values in a few words; `not recorded` where there is none."""
    found = [str(value) for value in dict.fromkeys(values.dropna()) if str(value)]
    if len(found) > 4:
        return f"{len(found)} values, {found[0]} to {found[-1]}"
    return ", ".join(found) or "not recorded"
