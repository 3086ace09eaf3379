"""The outcome of a sweep as a table in the terminal: accuracy per model and token count."""

from __future__ import annotations

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipa_scaling.cells import as_percent, at_the_end, summarise_cells


def print_outcome(console: Console, tables: dict[str, pd.DataFrame]) -> None:
    """Zero-shot accuracy in percent, a row per model and samples, a column per image token count.

    Settings that differ in something else are listed one below the other.
    """
    cells = at_the_end(summarise_cells(tables))
    if cells.empty:
        console.print("No finished run has a zero-shot accuracy yet.")
        return
    cells = cells.assign(shown=as_percent(cells))
    tokens = sorted(cells["image_tokens"].unique())
    chosen = tables["evals"][tables["evals"]["name"] == "accuracy"]
    console.print(f"Zero-shot accuracy on {chosen['set'].iloc[0]} (%), mean over seeds ± 95 %:")
    table = Table("model", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("samples", *(f"{count} tokens" for count in tokens)):
        table.add_column(heading, justify="right", no_wrap=True)
    order = cells.groupby("model")["image_params"].max().sort_values().index
    for model in order:
        for samples, rows in cells[cells["model"] == model].groupby("samples"):
            by_tokens = rows.groupby("image_tokens")["shown"].agg("\n".join)
            shown = [str(by_tokens.get(count, "")) for count in tokens]
            table.add_row(str(model), f"{samples:,}", *shown)
    console.print(table)
