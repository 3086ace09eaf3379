"""The outcome of a sweep as a table in the terminal: accuracy per model and token count."""

from __future__ import annotations

import math

import pandas as pd
from rich.console import Console
from rich.table import Table

from clipa_scaling.cells import at_the_end, summarise_cells


def print_outcome(console: Console, tables: dict[str, pd.DataFrame]) -> None:
    """Zero-shot accuracy in percent, one row per model, one column per image token count."""
    cells = at_the_end(summarise_cells(tables))
    if cells.empty:
        console.print("No finished run has a zero-shot accuracy yet.")
        return
    tokens = sorted(cells["image_tokens"].unique())
    chosen = tables["evals"][tables["evals"]["name"] == "accuracy"]
    table = Table(
        title=f"Zero-shot accuracy on {chosen['set'].iloc[0]} (%), mean over seeds ± 95 % interval",
        title_justify="left",
    )
    table.add_column("model")
    table.add_column("samples", justify="right")
    for count in tokens:
        table.add_column(f"{count} tokens", justify="right", no_wrap=True)
    order = cells.groupby("model")["image_params"].max().sort_values().index
    for model in order:
        for samples, rows in cells[cells["model"] == model].groupby("samples"):
            by_tokens = rows.groupby("image_tokens")
            shown = [cell_text(by_tokens, count) for count in tokens]
            table.add_row(str(model), f"{samples:,}", *shown)
    console.print(table)


def cell_text(by_tokens: pd.api.typing.DataFrameGroupBy, count: int) -> str:  # type: ignore[type-arg]
    """One cell: `41.3 ± 0.9`; several settings at one count are listed one below the other."""
    if count not in by_tokens.groups:
        return ""
    lines = []
    for _, row in by_tokens.get_group(count).iterrows():
        error = float(row["half_width"])
        bar = f" ± {100 * error:.1f}" if math.isfinite(error) else ""
        lines.append(f"{100 * float(row['mean']):.1f}{bar}")
    return "\n".join(lines)
