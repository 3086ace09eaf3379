"""The outcome of a sweep as tables in the terminal: per model and token count, per pipeline."""

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
from clipa_scaling.pipelines import SEPARATOR, name_rows
from clipa_scaling.show import hours, si


def print_outcome(console: Console, tables: dict[str, pd.DataFrame]) -> None:
    """The main measure in percent: a row per model and other setting, a column per length."""
    # Imported cells may have no known length, hence no column.
    cells = at_the_end(summarise_cells(tables)).dropna(subset=["image_tokens"])
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
    if "pipelines" in tables:
        print_pipelines(console, tables, measure)


def print_hours(console: Console, runs: pd.DataFrame) -> None:
    """Planned and used device hours of the finished runs, where both are known."""
    done = runs[runs["state"] == "done"].dropna(subset=["gpu_hours", "gpu_hours_used"])
    done = done[done["gpu_hours"] > 0]
    if done.empty:
        return
    planned, used = done["gpu_hours"], done["gpu_hours_used"]
    ratio = float((used / planned).median())
    console.print(
        f"GPU-hours of {len(done)} finished runs: {hours(planned.sum())} planned, "
        f"{hours(used.sum())} used; used / planned: median {ratio:.2g}. Used counts all attempts "
        "with start, evaluation and saves; on CPUs it is wall time x threads.",
        highlight=False,
        soft_wrap=True,
    )


def print_pipelines(console: Console, tables: dict[str, pd.DataFrame], measure: str) -> None:
    """Values after each stage, side by side as in arXiv:2305.07017, Table 11: a row per length.

    Per model: `pretrain / finetune` in percent, the drop from the full-length pipeline in points,
    and FLOPs of all stages; means over seeds.
    """
    pipelines = tables["pipelines"]
    pipelines = pipelines[pipelines["left_out"].isna() & (pipelines["state"] == "done")]
    for stages, rows in pipelines.groupby("stages", sort=False):
        names = str(stages).split(SEPARATOR)
        if rows[[f"{stage}_{measure}" for stage in names]].isna().all(axis=None):
            continue  # imported ones of another set
        console.print(
            f"{MAIN_MEASURES[measure]} after {' / '.join(names)}, drop from full length in points, "
            "FLOPs of the whole pipeline:",
            markup=False,
        )
        console.print(pipeline_table(rows, name_rows(rows, tables), names, measure))


def pipeline_table(
    rows: pd.DataFrame, named: pd.DataFrame, stages: list[str], measure: str
) -> Table:
    """The longest lengths first, the models in the order of their cost."""
    values = [f"{stage}_{measure}" for stage in stages]
    means = (
        rows[[*values, "drop", "pipeline_flops"]]
        .astype(float)
        .groupby([rows["model"], *(named[name] for name in named)], sort=False)
        .mean()
    )
    models = means["pipeline_flops"].groupby(level=0).max().sort_values(kind="stable").index
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in named:
        table.add_column(str(name).replace("_", " "), overflow="fold")
    for model in models:
        table.add_column(str(model), justify="right", no_wrap=True)
        table.add_column("drop", justify="right", no_wrap=True)
        table.add_column("FLOPs", justify="right", no_wrap=True)
    longest = means["pipeline_flops"].groupby(level=list(range(1, means.index.nlevels))).max()
    for key in longest.sort_values(ascending=False, kind="stable").index:
        told = key if isinstance(key, tuple) else (key,)
        cells: list[str] = []
        for model in models:
            if (model, *told) not in means.index:
                cells += ["", "", ""]
                continue
            mean = means.loc[(model, *told)]
            shown = " / ".join(number(100 * mean[name]) for name in values)
            cells += [shown, number(mean["drop"]), si(mean["pipeline_flops"])]
        table.add_row(*map(str, told), *cells)
    return table


def number(value: float) -> str:
    """One decimal, a dash for what is not known."""
    return "-" if pd.isna(value) else f"{value:.1f}"
