"""results/published -> the sections of its page: printed tables, figures, drops, costs, remarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

import pandas as pd

from clipa_scaling.cost_tables import cost_table
from clipa_scaling.figures.papers import save_papers
from clipa_scaling.findings import show_digests, show_versions
from clipa_scaling.page import Section, paragraph, table
from clipa_scaling.published import load_published, select
from clipa_scaling.sections import draw_figures, in_tenths

LENGTHS = ["image_tokens", "text_tokens", "start_image_tokens", "start_text_tokens"]
FIELDS = ["model", "trainer", "kind", "start_image_reduction", "start_text_reduction", *LENGTHS]


def show_sources(folder: Path) -> list[Element]:
    """How much of what is printed is here."""
    evals = load_published(folder)["evals"]
    by_table = evals.groupby("table", sort=False)
    counts = by_table.agg(
        runs=("run", "nunique"), values=("value", "count"), source=("source", "first")
    )
    return [table(counts.reset_index(), "Values by printed table")]


def show_tables(folder: Path) -> list[Element]:
    """Each printed table, a row per run: fractions as percent, drops in points."""
    names = dict.fromkeys(load_published(folder)["evals"]["table"])
    return [table(widen(select(name, folder)), name) for name in names]


def widen(printed: pd.DataFrame) -> pd.DataFrame:
    """A column per set and measure; fields that are the same or unknown throughout are left out."""
    is_drop = printed["name"].str.endswith("drop")  # in points
    shown = printed["value"].astype(float).where(is_drop, 100 * printed["value"].astype(float))
    shown = shown.map("{:.1f}".format, na_action="ignore")
    measured = printed.assign(measure=printed["set"] + " " + printed["name"], shown=shown)
    values = measured.drop_duplicates(["run", "measure"]).pivot(
        index="run", columns="measure", values="shown"
    )[list(dict.fromkeys(measured["measure"]))]
    fields = measured.drop_duplicates("run").set_index("run")[FIELDS]
    known = [name for name in FIELDS if name == "model" or fields[name].nunique() > 1]
    return fields[known].join(values).reset_index(drop=True)


def show_drops(folder: Path) -> list[Element]:
    """drops.csv: the exponent of N in the drop, with N the image tower's parameters."""
    drops = pd.read_csv(folder / "drops.csv")
    drops = drops[drops["N"] == "image_params"]
    drops = drops.dropna(subset=["delta"])
    ends = zip(drops["delta"], drops["low"], drops["high"], strict=True)
    told = drops.assign(
        told=[f"{d:.2f} [{low:.2f}, {high:.2f}]" for d, low, high in ends],
        scale="on " + drops["scale"],
    )
    keys = ["table", "reduction", "stage"]
    wide = told.pivot(index=keys, columns="scale", values="told")
    robust = told.groupby(keys)["robust"].first()
    return [
        paragraph(
            "δ, the exponent of N in the drop: above 0 a larger model loses less. A description, "
            "since at one D the data that a length costs cannot be told."
        ),
        table(wide.assign(robust=robust).reset_index(), "δ with 95 % intervals, on three scales"),
    ]


def show_costs(folder: Path) -> list[Element]:
    costs = cost_table(folder=folder).dropna(axis="columns", how="all")
    costs["accuracy"] = in_tenths(100 * costs["accuracy"])
    return [table(costs, "Accuracy beside cost, printed and counted")]


def show_remarks(folder: Path) -> list[Element]:
    """What to know of single numbers, as misprints."""
    tables = load_published(folder)
    notes = pd.concat([tables[name][["table", "run", "note"]] for name in ("runs", "evals")])
    return [table(notes.dropna().drop_duplicates(), "Remarks")]


SECTIONS: Mapping[str, Callable[[Path], list[Element]]] = {
    "Sources": show_sources,
    "Figures": lambda folder: draw_figures(lambda out: save_papers(out, folder)),
    "Drops": show_drops,
    "Costs": show_costs,
    "Tables": show_tables,
    "Remarks": show_remarks,
    "Provenance": lambda folder: [
        show_digests({path.name: path.read_bytes() for path in sorted(folder.glob("*.csv"))}),
        show_versions(),
    ],
}


def paper_sections(folder: Path) -> list[Section]:
    return [Section(title.lower(), title, show(folder)) for title, show in SECTIONS.items()]
