"""Tables -> the sections of a report on what was run: plan, runs, cells, pipelines, figures."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import pandas as pd

from clipa_scaling import figures, schema
from clipa_scaling.cells import (
    CELL,
    MAIN_MEASURES,
    as_percent,
    at_the_end,
    main_measure,
    name_lines,
    summarise_cells,
)
from clipa_scaling.exclusions import tell_left_out, warn_of_failures
from clipa_scaling.figures.papers import PAPERS
from clipa_scaling.figures.verdict import FIGURES
from clipa_scaling.outcome import pipeline_table
from clipa_scaling.page import paragraph, picture, show, table, terminal_table
from clipa_scaling.pipelines import SEPARATOR, name_rows
from clipa_scaling.provenance import find_mixed
from clipa_scaling.show import hours, si
from clipa_scaling.verdict import count

Tables = dict[str, pd.DataFrame]

MOST_VALUES = 12  # of a field, before only its ends are told
RUN_COLUMNS = ["stage", "model", "image_tokens", "text_tokens", "samples", "lr", "seed", "state"]
RUN_OUTCOMES = ["accuracy", "loss", "samples_per_second", "gpu_hours", "gpu_hours_used", "run"]
RUN_NOTES = ["reason", "left_out", "imported"]
MEASURES = (*MAIN_MEASURES, "image_to_text_r1", "loss")


# Plan


def show_plan(tables: Tables) -> list[Element]:
    """What varies and what does not, the sizes, and the price of each stage."""
    runs = tables["runs"].dropna(subset=["run"])
    fields = [name for name in CELL if name not in ("stage", "evaluations")] + ["seed"]
    varying = [name for name in fields if runs[name].nunique() > 1]
    fixed = [name for name in fields if runs[name].nunique() == 1]
    return [
        table(list_values(runs, varying), "What varies between runs"),
        table(list_sizes(runs), "Sizes, and the FLOPs of one sample's forward through both towers"),
        table(list_costs(runs), "Costs, one row per stage"),
        table(list_values(runs, fixed), "What all runs share"),
    ]


def list_values(runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    rows = []
    for name in names:
        told = [show(value) for value in sorted(runs[name].dropna().unique())]
        if len(told) > MOST_VALUES:
            told = [f"{len(told)} values, {told[0]} to {told[-1]}"]
        if told != [""]:
            meaning = schema.SPEC[name].meaning
            rows.append({"setting": name, "values": " · ".join(told), "meaning": meaning})
    return pd.DataFrame(rows, columns=["setting", "values", "meaning"])


def list_sizes(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each model and its lengths; parameters at its longest."""
    lengths = ["image_tokens", "text_tokens"]
    counts = ["image_params", "text_params", "total_params", "nonembedding_params"]
    rows = runs.sort_values([*lengths, "total_params"], ascending=False).groupby("model")
    sizes = rows[counts].first().sort_values("total_params")
    least, most = (rows["flops_per_sample"].agg(how)[sizes.index] for how in ("min", "max"))
    told = [
        si(low) if low == high else f"{si(low)} to {si(high)}"
        for low, high in zip(least.astype(float), most.astype(float), strict=True)
    ]
    return sizes.assign(flops_per_sample=told).reset_index()


def list_costs(runs: pd.DataFrame) -> pd.DataFrame:
    """Each stage's runs and sums; unknown parts make a sum unknown, not smaller."""
    rows = []
    for stage, own in runs.groupby("stage", sort=False):
        sums = {
            name: own[name].astype(float).sum(skipna=False)
            for name in ("samples", "train_flops", "gpu_hours", "gpu_hours_used", "dollars")
        }
        rows.append(
            {
                "stage": stage,
                "runs": len(own),
                "samples": si(sums["samples"]),
                "train_flops": si(sums["train_flops"]),
                "gpu_hours": hours(sums["gpu_hours"]),
                "gpu_hours_used": hours(sums["gpu_hours_used"]),
                "dollars": hours(sums["dollars"]),
                "priced_by": ", ".join(sorted(own["priced_by"].dropna().unique())),
            }
        )
    return pd.DataFrame(rows)


# Runs


def show_runs(tables: Tables) -> list[Element]:
    """How many runs are in which state, every run, and those that fits and figures leave out."""
    runs = tables["runs"]
    counts = runs["state"].value_counts(sort=False)
    told = ", ".join(f"{number:,} {state}" for state, number in counts.items())
    notes = [name for name in RUN_NOTES if runs[name].fillna("").ne("").any()]
    columns = [*RUN_COLUMNS, *RUN_OUTCOMES, *notes]
    known = [name for name in columns if runs[name].notna().any() or name in RUN_COLUMNS]
    shown = runs[known]
    if "accuracy" in known:
        shown = shown.assign(accuracy=in_tenths(100 * runs["accuracy"]))
    parts = [paragraph(f"{len(runs):,} planned runs: {told}."), table(shown, "Every planned run")]
    left_out = runs[runs["left_out"].notna()]
    if len(left_out):
        parts += [
            paragraph(tell_left_out(runs)),
            table(left_out[["run", "left_out"]], "Left out of cells, figures and fits"),
        ]
    return parts


def show_warnings(tables: Tables) -> list[Element]:
    """What to know before trusting a curve: mixed conditions, failures that cluster."""
    lines = [*find_mixed(tables), *warn_of_failures(tables["runs"])]
    if not lines:
        return [paragraph("No curve mixes conditions, and failures do not cluster.")]
    return [paragraph(line, class_="warning") for line in lines]


# Cells, pipelines, tuned values


def show_cells(tables: Tables) -> list[Element]:
    """A table per measure: a row per line of the figures, a column per image token count."""
    found = set(tables["evals"]["name"])
    parts: list[Element] = []
    for measure in (name for name in MEASURES if name in found):
        cells = at_the_end(summarise_cells(tables, measure)).dropna(subset=["image_tokens"])
        if len(cells):
            parts.append(table(pivot(cells, measure), caption_of(cells, tables, measure)))
    return parts or [paragraph("No finished run has an evaluation at its end.")]


def pivot(cells: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The cells' means and intervals in words, the smallest models first."""
    shown = as_nats(cells) if measure == "loss" else as_percent(cells)
    cells = cells.assign(shown=shown, line=name_lines(cells))
    order = cells.groupby("line", sort=False)["image_params"].max().sort_values(kind="stable").index
    wide = cells.pivot(index="line", columns="image_tokens", values="shown").loc[order]
    wide.columns = [f"{tokens} image tokens" for tokens in wide.columns]
    return wide.reset_index(names="model")


def as_nats(cells: pd.DataFrame) -> pd.Series:
    pairs = cells[["mean", "half_width"]].astype(float).to_numpy()
    return pd.Series(
        [f"{mean:.3f}" + ("" if half != half else f" ± {half:.3f}") for mean, half in pairs],
        index=cells.index,
        dtype="string",
    )


def caption_of(cells: pd.DataFrame, tables: Tables, measure: str) -> str:
    rows = tables["evals"][tables["evals"]["name"] == measure]
    names = {**MAIN_MEASURES, "image_to_text_r1": "Image-to-text retrieval R@1 (%)"}
    name = names.get(measure, "Held-out contrastive loss (nats)")
    spread = "one seed: no intervals"
    if cells["half_width"].notna().any():
        spread = "mean over seeds ± half a 95 % interval over seeds and evaluation pictures"
    return f"{name} on {rows['set'].iloc[0]}; {spread}"


def show_pipelines(tables: Tables) -> list[Element]:
    """A table per chain of stages, as the papers print them."""
    measure = main_measure(tables)
    rows = tables["pipelines"]
    rows = rows[rows["left_out"].isna() & (rows["state"] == "done")]
    parts = [
        paragraph(
            f"{MAIN_MEASURES[measure]} after each stage, the drop from the full-length pipeline in "
            "points, and the training FLOPs of the whole pipeline; means over seeds."
        )
    ]
    for stages, own in rows.groupby("stages", sort=False):
        names = str(stages).split(SEPARATOR)
        made = pipeline_table(own, name_rows(own, tables), names, measure)
        made.title = " / ".join(names)
        parts.append(terminal_table(made))
    return parts


def in_tenths(values: pd.Series) -> pd.Series:
    return values.astype(float).map("{:.1f}".format, na_action="ignore")


def show_tuned(tables: Tables) -> list[Element]:
    return [
        paragraph("What short runs chose for the cells, with the 95 % interval of the optimum."),
        table(tables["tuned"].dropna(axis="columns", how="all"), "Tuned values"),
    ]


# Figures


def show_figures(tables: Tables, name: str) -> list[Element]:
    """Every figure that the tables allow, drawn again."""
    parts = draw_figures(lambda folder: figures.save_figures(tables, name, folder))
    return parts or [paragraph("No finished run has what a figure needs.")]


def draw_figures(save: Callable[[Path], list[Path]]) -> list[Element]:
    """What `save` writes into a folder, and the names of the files beside each PNG."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for path in save(Path(folder)) if path.suffix == ".png"]
        names = sorted(path.name for path in Path(folder).iterdir())
        return [
            picture(
                path.read_bytes(),
                f"Figure: {describe(path.stem)}",
                describe(path.stem),
                [f"figures/{name}" for name in names if Path(name).stem == path.stem],
            )
            for path in paths
        ]


def describe(stem: str) -> str:
    """What a figure shows: the first paragraph of its function's docstring."""
    bare = re.sub(r"_\d+$", "", stem)  # of several verdicts each has a number
    draw = PAPERS.get(stem) or FIGURES.get(bare) or getattr(figures, stem, None)
    told = getattr(draw, "__doc__", None) or stem.replace("_", " ")
    return " ".join(told.partition("\n\n")[0].replace("`", "").split())


# Summary


def summarise(tables: Tables) -> str:
    """One sentence on what was run."""
    runs = tables["runs"].dropna(subset=["run"])
    done = runs[runs["state"] == "done"]
    sizes = done.groupby("model")["total_params"].max().sort_values(kind="stable").index
    tokens = ", ".join(f"{number}" for number in sorted(done["image_tokens"].dropna().unique()))
    return (
        f"{len(done):,} of {len(runs):,} planned runs are done: {', '.join(map(str, sizes))} at "
        f"{tokens} image tokens, {count(done['samples'].nunique(), 'sample count')}, "
        f"{count(done['seed'].nunique(), 'seed')}."
    )
