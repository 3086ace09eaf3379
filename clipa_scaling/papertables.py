"""The papers' tables of shortened lengths, from results/published, as comparisons over sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from clipa_scaling.compared import Compared
from clipa_scaling.models import load_model
from clipa_scaling.published import FOLDER, select
from clipa_scaling.schema import TableError

STAGES = ("finetune", "pretrain")
SIZES = {"image_params": "vision_params_M", "total_params": "total_params_M"}
PICTURES = 50_000
SIDE = 224
FULL_TEXT = 32
# No paper prints what Fig 2's drops are from. Assumed: the same models' accuracies at no mask on
# the same data (arXiv:2305.07017, Tables 11 and 8), from other pretraining. On the scale of
# accuracy it does not matter.
ASSUMED = {"S/16": 0.567, "B/16": 0.642, "L/16": 0.692, "H/14": 0.728}
IMAGE, TEXT, MASKING = "v1 Table 11", "v1 Table 12", "v2 Figure 2"
TABLES = (IMAGE, TEXT, MASKING)
COLUMNS = ["table", "reduction", "stage", "model", "length", "full", "samples", "value", "source"]


def read_cells(folder: Path = FOLDER) -> pd.DataFrame:
    """Every cell with an accuracy: COLUMNS; `length` and `full` in tokens, CLS not counted.

    Left out: v1 Table 12's S/16, random, 6 tokens before finetuning, printed as 299.
    """
    cells = pd.concat([read_image(folder), read_text(folder), read_masking(folder)])
    return cells[cells["value"].notna()][COLUMNS].reset_index(drop=True)


def read_image(folder: Path) -> pd.DataFrame:
    """v1 Table 11: the row without reduction stands in each of the four, finetuned alone."""
    rows = select(IMAGE, folder).rename(
        columns={"start_image_tokens": "length", "start_image_reduction": "reduction"}
    )
    whole = rows[rows["reduction"].isna()]
    methods = rows["reduction"].dropna().unique()
    rows = pd.concat(
        [rows.dropna(subset="reduction"), *(whole.assign(reduction=m) for m in methods)]
    )
    return rows.assign(full=rows["model"].map(full_tokens), samples=rows["start_samples"])


def read_text(folder: Path) -> pd.DataFrame:
    """v1 Table 12, whose full length is 32 tokens of the same reduction."""
    rows = select(TEXT, folder).rename(
        columns={"start_text_tokens": "length", "start_text_reduction": "reduction"}
    )
    return rows.assign(full=FULL_TEXT, samples=rows["start_samples"])


def read_masking(folder: Path) -> pd.DataFrame:
    """v2 Figure 2: random masks in finetuning, drops below ASSUMED."""
    rows = select(MASKING, folder).rename(columns={"image_tokens": "length"})
    value = rows["model"].map(ASSUMED) - rows["value"].astype(float) / 100
    return rows.assign(full=rows["model"].map(full_tokens), reduction="random", value=value)


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
