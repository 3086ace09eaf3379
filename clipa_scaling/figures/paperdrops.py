"""v1 Tables 11 and 12 as drops from the full length (arXiv:2305.07017)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clipa_scaling.published import FOLDER, select

IMAGE_WAYS = ("random", "grid", "block", "resize")
FULL_TEXT = 32


def image_drops(folder: Path = FOLDER) -> pd.DataFrame:
    """v1 Table 11, finetuned: `model`, `way`, `tokens`, `value`, `drop` from all 196 tokens.

    The full length stands in each way.
    """
    rows = select("v1 Table 11", folder)
    rows = rows[(rows["stage"] == "finetune") | rows["start_image_reduction"].isna()]
    plain = rows.rename(columns={"start_image_tokens": "tokens", "start_image_reduction": "way"})
    full = plain[plain["way"].isna()]
    return with_drops(pd.concat([plain, *(full.assign(way=way) for way in IMAGE_WAYS)]), full)


def text_drops(folder: Path = FOLDER) -> pd.DataFrame:
    """v1 Table 12, finetuned: as `image_drops`, from 32 tokens of the same way."""
    rows = select("v1 Table 12", folder)
    rows = rows[rows["stage"] == "finetune"]
    plain = rows.rename(columns={"start_text_tokens": "tokens", "start_text_reduction": "way"})
    return with_drops(plain, plain[plain["tokens"] == FULL_TEXT])


def with_drops(rows: pd.DataFrame, full: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a way, with their drop in points; full: by model, or by model and way."""
    known = rows[rows["way"].notna()].reset_index(drop=True)
    keys = ["model"] if full["way"].isna().all() else ["model", "way"]
    best = known.merge(full[[*keys, "value"]], on=keys, how="left", suffixes=("", "_full"))
    drop = 100 * (best["value_full"] - best["value"]).astype(float)
    names = ["model", "way", "tokens", "value", "image_params", "start_samples"]
    return known[names].assign(drop=drop.round(2)).sort_values(["way", "model", "tokens"])
