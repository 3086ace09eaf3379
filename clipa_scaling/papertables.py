"""The papers' tables of shortened lengths, from results/published, as comparisons over sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from clipa_scaling.compared import Compared
from clipa_scaling.models import load_model
from clipa_scaling.published import FOLDER
from clipa_scaling.schema import TableError

STAGES = ("finetune", "pretrain")
SIZES = {"image_params": "vision_params_M", "total_params": "total_params_M"}
PRETRAIN, FINETUNE = 2_560_000_000, 128_000_000  # samples
PICTURES = 50_000
SIDE = 224
FULL_TEXT = 32
# No paper prints what Fig 2's drops are from. Assumed: the same models' accuracies at no mask on
# the same data (arXiv:2305.07017, Tables 11 and 8), from other pretraining. On the scale of
# accuracy it does not matter.
ASSUMED = {"S/16": 0.567, "B/16": 0.642, "L/16": 0.692, "H/14": 0.728}
IMAGE, TEXT, MASKING = "v1 Table 11", "v1 Table 12", "v2 Fig 2"
TABLES = (IMAGE, TEXT, MASKING)
COLUMNS = ["table", "reduction", "stage", "model", "length", "full", "samples", "value", "source"]


def read_cells(folder: Path = FOLDER) -> pd.DataFrame:
    """Every cell with an accuracy: COLUMNS; `length` and `full` in tokens, CLS not counted.

    Left out: N/A, and v1 Table 12's S/16, random, 6 tokens before finetuning, printed as 299.
    """
    if not (folder / "clipa_v1_table11_image_tokens.csv").exists():
        raise TableError(f"{folder}: no published tables; they come with a clone of the repository")
    cells = pd.concat([read_image(folder), read_text(folder), read_masking(folder)])
    return cells[cells["value"].between(0, 1)][COLUMNS].reset_index(drop=True)


def read_image(folder: Path) -> pd.DataFrame:
    """v1 Table 11: the row without reduction stands in each of the four, finetuned alone."""
    printed = pd.read_csv(folder / "clipa_v1_table11_image_tokens.csv")
    rows = printed.rename(columns={"image_method": "reduction"})
    whole = rows[rows["reduction"] == "baseline"]
    methods = [name for name in rows["reduction"].unique() if name != "baseline"]
    rows = pd.concat(
        [rows[rows["reduction"] != "baseline"], *(whole.assign(reduction=m) for m in methods)]
    )
    full = rows["model"].map(full_tokens)
    return by_stage(rows.assign(table=IMAGE, length=rows["image_tokens_incl_cls"] - 1, full=full))


def read_text(folder: Path) -> pd.DataFrame:
    """v1 Table 12, whose full length is 32 tokens of the same reduction."""
    printed = pd.read_csv(folder / "clipa_v1_table12_text_tokens.csv")
    rows = printed.rename(columns={"text_method": "reduction", "text_len": "length"})
    return by_stage(rows.assign(table=TEXT, full=FULL_TEXT))


def by_stage(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of both stages, accuracies as fractions."""
    found = []
    for stage in STAGES:
        value = pd.to_numeric(rows[f"{stage}_in1k_top1"], errors="coerce") / 100
        found.append(rows.assign(stage=stage, value=value, samples=PRETRAIN))
    return pd.concat(found)


def read_masking(folder: Path) -> pd.DataFrame:
    """v2 Fig 2: random masks in finetuning, drops below ASSUMED."""
    rows = pd.read_csv(folder / "clipa_v2_fig2_finetune_masking.csv")
    full = rows["model"].map(full_tokens)
    kept = (full * rows["unmasking_ratio_pct"]) // 100
    value = rows["model"].map(ASSUMED) + rows["performance_drop_pct_points"] / 100
    rows = rows.assign(table=MASKING, reduction="random", stage="finetune", samples=FINETUNE)
    return rows.assign(length=kept, full=full, value=value)


def full_tokens(model: str) -> int:
    return (SIDE // load_model(model).patch) ** 2


def compare_cells(
    cells: pd.DataFrame, size: str = "image_params", folder: Path = FOLDER
) -> list[Compared]:
    """A comparison for each table, reduction and stage: one seed, one sample count, no FLOPs.

    size: `image_params` or `total_params`, as v1 Table 4 prints them.
    """
    if size not in SIZES:
        raise TableError(f"size={size} is not printed in v1 Table 4; allowed: {', '.join(SIZES)}")
    models = pd.read_csv(folder / "clipa_v1_table4_models.csv").set_index("model")
    params = 1e6 * models[SIZES[size]].astype(float)
    found = []
    for (table, reduction, stage), own in cells.groupby(
        ["table", "reduction", "stage"], sort=False
    ):
        tower = "text" if table == TEXT else "image"
        runs = own[["model", "length", "samples", "value"]].reset_index(drop=True)
        runs["length"] = runs["length"].astype(int)
        runs = runs.assign(
            size=runs["model"].map(params), seed=0, n=float(PICTURES), tuned="",
            root=[f"run {at}" for at in range(len(runs))], flops=np.nan, fixed_flops=np.nan,
        )  # fmt: skip
        full = {str(model): int(rows.iloc[0]) for model, rows in own.groupby("model")["full"]}
        settings = {"source": str(table), f"{tower}_reduction": str(reduction)}
        found.append(
            Compared(
                runs, full, f"{tower}_tokens", size, "accuracy", "imagenet1k", str(stage), settings
            )
        )
    return found
