"""Tables of the papers as those of a study: `paper_tables("v1 Table 11", "resize")`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from clipa_scaling import schema
from clipa_scaling.collect import make_table
from clipa_scaling.published import FOLDER, load_published
from clipa_scaling.schema import TableError

# Each table's fitted length, and the field that says how it is reduced.
PAPERS = {
    "v1 Table 11": ("image_tokens", "image_reduction"),
    "v1 Table 12": ("text_tokens", "text_reduction"),
}


def read_name(told: str) -> tuple[str, str]:
    """`v1 Table 11: resize` as table and reduction."""
    paper, _, reduction = (part.strip() for part in told.partition(":"))
    return paper, reduction


def list_reductions(paper: str, folder: Path = FOLDER) -> list[str]:
    """Of a table, in its order."""
    runs, field = read_runs(paper, folder)
    return list(dict.fromkeys(runs[field].dropna().astype(str)))


def read_runs(paper: str, folder: Path) -> tuple[pd.DataFrame, str]:
    """The runs from scratch of a table, and the field of its reductions."""
    if paper not in PAPERS:
        raise TableError(f"{paper!r} is no table of the papers here; allowed: {', '.join(PAPERS)}")
    runs = load_published(folder)["runs"]
    return runs[(runs["table"] == paper) & (runs["kind"] == "pretrain")], PAPERS[paper][1]


def paper_tables(paper: str, reduction: str, folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """`runs` and `evals` of one reduction, each cell pretrained and finetuned; unreduced ones too.

    All have the reduction's name, since a study of it would: at full length it leaves all tokens.
    What the paper does not print is missing. TableError for a table or reduction that is not there.
    """
    starts, field = read_runs(paper, folder)
    allowed = list_reductions(paper, folder)
    if reduction not in allowed:
        raise TableError(
            f"{paper} has no reduction {reduction!r}; allowed: '{paper}: {allowed[0]}', and "
            f"{', '.join(allowed[1:])}"
        )
    starts = starts[starts[field].isna() | (starts[field] == reduction)]
    tables = load_published(folder)
    runs, evals = tables["runs"], tables["evals"]
    runs = runs[runs["run"].isin(starts["run"]) | runs["parent"].isin(starts["run"])]
    evals = evals[evals["run"].isin(runs["run"]) & (evals["table"] == paper)]
    evals = evals[evals["value"].notna()].copy()
    runs = runs.assign(seed=0, schedule="cosine", parent=runs["parent"].fillna(""))
    runs[field] = reduction
    for table, columns in ((runs, ("run", "parent")), (evals, ("run",))):
        for name in columns:  # a row that stands in every reduction is another run in each
            table[name] = table[name].str.replace("|full|", f"|{reduction}|", regex=False)
    return {
        "runs": runs[[*schema.RUNS]].reset_index(drop=True),
        "evals": evals[[*schema.EVALS]].assign(size="training").reset_index(drop=True),
        "curves": make_table([], schema.CURVES),
    }
