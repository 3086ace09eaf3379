"""The outcome of a sweep as a table in the terminal: accuracy per model and token count."""

from __future__ import annotations

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipa_scaling.cells import (
    MAIN_MEASURES,
    as_percent,
    at_the_end,
    main_measure,
    name_lines,
    summarise_cells,
)
from clipa_scaling.exclusions import tell_left_out


def print_outcome(console: Console, tables: dict[str, pd.DataFrame]) -> None:
    """The main measure in percent: a row per model and other setting, a column per length."""
    cells = at_the_end(summarise_cells(tables))
    left_out = tell_left_out(tables["runs"])
    if left_out:
        console.print(left_out, markup=False, highlight=False, soft_wrap=True)
    if cells.empty:
        console.print("No finished run has an evaluation at its end.")
        return
    cells = cells.assign(shown=as_percent(cells), line=name_lines(cells))
    tokens = sorted(cells["image_tokens"].unique())
    measure = main_measure(tables)
    eval_set = tables["evals"].loc[tables["evals"]["name"] == measure, "set"].iloc[0]
    known = not cells["half_width"].isna().all()
    spread = "mean over seeds ± 95 %" if known else "one seed, so no interval"
    console.print(f"{MAIN_MEASURES[measure]} on {eval_set}, {spread}:", markup=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", overflow="fold")
    for count in tokens:
        table.add_column(f"{count} tokens", justify="right", no_wrap=True)
    order = cells.groupby("line", sort=False)["image_params"].max().sort_values(kind="stable").index
    for line in order:
        row = cells[cells["line"] == line].set_index("image_tokens")["shown"].to_dict()
        table.add_row(str(line), *(str(row.get(count, "")) for count in tokens))
    console.print(table)
