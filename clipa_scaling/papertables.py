"""Tables of the papers as those of a study: `paper_tables("v1 Table 11", "resize")`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from clipa_scaling import schema
from clipa_scaling.collect import make_table
from clipa_scaling.counts import count_model
from clipa_scaling.models import load_model
from clipa_scaling.published import FOLDER, VOCABULARY
from clipa_scaling.schema import TableError

SET = "imagenet1k"
SAMPLES, FINETUNE_SAMPLES = 2_560_000_000, 131_072_000  # arXiv:2305.07017, section 4.1
# file, the column that names the reduction, what an unreduced row has there, the fitted length
PAPERS = {
    "v1 Table 11": (
        "clipa_v1_table11_image_tokens.csv", "image_method", "baseline", "image_tokens"
    ),
    "v1 Table 12": ("clipa_v1_table12_text_tokens.csv", "text_method", "", "text_tokens"),
}  # fmt: skip
WORDS = {"truncation": "truncate"}


def read_name(told: str) -> tuple[str, str]:
    """`v1 Table 11: resize` as table and reduction."""
    paper, _, reduction = (part.strip() for part in told.partition(":"))
    return paper, reduction


def list_reductions(paper: str, folder: Path = FOLDER) -> list[str]:
    """Of a table, in its order."""
    rows, name, full = read(paper, folder)
    return [WORDS.get(item, item) for item in dict.fromkeys(rows[name]) if item != full]


def read(paper: str, folder: Path) -> tuple[pd.DataFrame, str, str]:
    if paper not in PAPERS:
        raise TableError(f"{paper!r} is no table of the papers here; allowed: {', '.join(PAPERS)}")
    file, name, full, _ = PAPERS[paper]
    path = folder / file
    if not path.exists():
        raise TableError(f"{path}: no such table; it comes with a clone of the repository")
    return pd.read_csv(path, na_values="N/A"), name, full


def paper_tables(paper: str, reduction: str, folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """`runs` and `evals` of one reduction, each cell pretrained and finetuned; unreduced ones too.

    Parameters are counted in closed form. What the paper does not print is missing. TableError for
    a table or reduction that is not there.
    """
    rows, name, full = read(paper, folder)
    allowed = list_reductions(paper, folder)
    if reduction not in allowed:
        raise TableError(
            f"{paper} has no reduction {reduction!r}; allowed: '{paper}: {allowed[0]}', and "
            f"{', '.join(allowed[1:])}"
        )
    kept = rows[(rows[name].replace(WORDS) == reduction) | (rows[name] == full)]
    kept = kept[kept["finetune_in1k_top1"].notna()]
    runs: list[dict[str, Any]] = []
    evals: list[dict[str, Any]] = []
    for record in kept.to_dict("records"):
        row = {str(key): value for key, value in record.items()}
        runs += make_runs(row, paper, reduction)
        evals += make_evals(row, runs[-2]["run"], runs[-1]["run"])
    return {
        "runs": make_table(runs, schema.RUNS),
        "evals": make_table(evals, schema.EVALS),
        "curves": make_table([], schema.CURVES),
    }


def make_runs(row: dict[str, Any], paper: str, reduction: str) -> list[dict[str, Any]]:
    model = load_model(row["model"])
    full = (224 // model.patch) ** 2
    image, text = int(row["image_tokens_incl_cls"]) - 1, int(row["text_len"])
    size = count_model(model, full, full, text, VOCABULARY)
    by = PAPERS[paper][3]
    same = {
        "model": row["model"], "state": "done", "seed": 0, "schedule": "cosine",
        "image_reduction": reduction if by == "image_tokens" else "resize",
        "text_reduction": reduction if by == "text_tokens" else "truncate",
        "image_params": size.image_params, "text_params": size.text_params,
        "total_params": size.total_params, "nonembedding_params": size.nonembedding_params,
        "imported": row["source"],
    }  # fmt: skip
    first = f"{paper}: {row['model']}, {reduction}, {image} and {text} tokens"
    return [
        {
            **same, "run": first, "kind": "pretrain", "stage": "pretrain", "samples": SAMPLES,
            "image_tokens": image, "text_tokens": text, "parent": "",
        },
        {
            **same, "run": f"{first}, finetuned", "kind": "finetune", "stage": "finetune",
            "samples": FINETUNE_SAMPLES, "image_tokens": full, "text_tokens": 32, "parent": first,
        },
    ]  # fmt: skip


def make_evals(row: dict[str, Any], first: str, last: str) -> Iterator[dict[str, Any]]:
    """The printed percentages as fractions; a value above 100 is a misprint, and unknown."""
    for run, samples, stage in ((first, SAMPLES, "pretrain"), (last, FINETUNE_SAMPLES, "finetune")):
        value = row[f"{stage}_in1k_top1"]
        if pd.notna(value) and float(value) <= 100:
            yield {
                "run": run, "samples": samples, "set": SET, "protocol": "paper",
                "size": "training", "name": "accuracy", "value": float(value) / 100, "n": 50_000,
            }  # fmt: skip
