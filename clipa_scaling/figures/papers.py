"""The papers' figures again, from results/published: arXiv:2305.07017 (v1), arXiv:2306.15658 (v2).

Lengths leave the CLS out: 196 here is the papers' 197.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from clipa_scaling.cost_tables import published_costs
from clipa_scaling.figures.paperdrops import IMAGE_WAYS, image_drops, text_drops
from clipa_scaling.figures.style import (
    COLUMN,
    INK,
    PAGE,
    SMALL,
    accuracy_axis,
    beside,
    colour,
    line_style,
    log_axis,
    marker,
    new_figure,
    save_figure,
    say_title,
    styled,
    tidy,
    token_axis,
)
from clipa_scaling.published import FOLDER, UNITS, load_printed, select
from clipa_scaling.schema import label

MODELS = ("S/16", "B/16", "L/16", "H/14")
V1, V2 = "arXiv:2305.07017", "arXiv:2306.15658"
IMAGENET = "ImageNet zero-shot accuracy (%)"
TEXT_WAYS = ("truncate", "syntax", "block", "random")
COSTS = {
    "gpu_hours": "A100 GPU-hours, as printed",
    "dollars": "Dollars, as printed",
    "train_flops": "Training FLOPs, closed form",
}
LOWEST = 0.44  # of Figure 10's axis: room for the legend
CLOSE = (3.0, 0.02)  # in cost, a ratio, and in accuracy: points that one name is enough for
BEST_OPENCLIP = 0.801  # G/14, the dotted line of v2 Figure 1


@styled
def figure_4(folder: Path = FOLDER) -> Figure:
    """v1 Figure 4: the drop against image tokens, a panel for each way to fewer."""
    figure = four_panels(image_drops(folder), IMAGE_WAYS, "image_tokens")
    title = (
        f"{V1}, Figure 4 (Table 11): fewer image tokens in pretraining, then finetuned at 224 px"
    )
    say_title(figure, title, "drop from 196; tokens without the CLS, which the paper counts")
    return figure


@styled
def figure_7(folder: Path = FOLDER) -> Figure:
    """v1 Figure 7: the drop against text tokens, a panel for each way to fewer."""
    figure = four_panels(text_drops(folder), TEXT_WAYS, "text_tokens")
    title = f"{V1}, Figure 7 (Table 12): fewer text tokens in pretraining, then finetuned at 224 px"
    say_title(
        figure, title, "49 image tokens in pretraining; drop from 32 text tokens of the same way"
    )
    return figure


def four_panels(rows: pd.DataFrame, ways: Sequence[str], length: str) -> Figure:
    """From the longest to the shortest, as the papers' panels stand."""
    figure = new_figure(PAGE, 2.8)
    panels = figure.subplots(1, len(ways), sharey=True)
    for axes, way in zip(panels, ways, strict=True):
        own = rows[rows["way"] == way]
        draw_lines(axes, own, "tokens", "drop")
        token_axis(axes, own["tokens"], length)
        axes.set_xlim(1.2 * float(rows["tokens"].max()), float(rows["tokens"].min()) / 1.2)
        axes.set_title(way)
    drop_axis(panels[0])
    panels[0].legend(title=label("model"), frameon=False, loc="lower left")
    return figure


def drop_axis(axes: Axes) -> None:
    """Points, downwards as the papers draw them."""
    axes.yaxis.set_inverted(True)
    axes.set_ylabel(label("drop"))


def draw_lines(axes: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    """A line for each model, in the style that it has in all figures."""
    for index, model in enumerate(MODELS):
        line = rows[rows["model"] == model].sort_values(x)
        if len(line):
            values = line[x].astype(float), line[y].astype(float)
            axes.plot(*values, label=model, **line_style(index))
    tidy(axes)


@styled
def figure_8(folder: Path = FOLDER) -> Figure:
    """v1 Figure 8: accuracy against compute, as digitised, and where this package counts it."""
    printed = select("v1 Figure 8", folder)
    ours = {
        (row.name.split()[0], int(row.name.split()[2])): row.ours * UNITS[row.unit] / 2
        for row in load_printed(folder)
        if row.where.endswith("Figure 8")
    }
    figure = new_figure(PAGE, 4)
    axes = figure.subplots()
    rows = printed.assign(pixels=printed["start_image_size"].astype(int))
    draw_lines(axes, rows, "compute", "value")
    for index, model in enumerate(MODELS):
        line = rows[rows["model"] == model]
        counted = [ours[model, pixels] for pixels in line["pixels"]]
        axes.plot(
            counted, line["value"].astype(float), marker(index), markersize=6, color=colour(index),
            markerfacecolor="none", linestyle="none", label=f"{model}, counted here",
        )  # fmt: skip
        offset = (0, 5) if model == MODELS[-1] else (0, -11)  # no line is above the last
        for tokens, x, y in zip(line["start_image_tokens"], counted, line["value"], strict=True):
            beside(axes, str(tokens), x, float(y), offset, ha="center")
    axes.margins(y=0.09)
    log_axis(axes, "Multiply-adds of a forward × samples")
    accuracy_axis(axes, IMAGENET)
    axes.legend(frameon=False, ncols=2, loc="lower right")
    note = "filled: digitised from the figure; open: closed form; numbers: image tokens"
    say_title(figure, f"{V1}, Figure 8: fewer image tokens by resizing", note)
    return figure


@styled
def figure_9(folder: Path = FOLDER) -> Figure:
    """v1 Figure 9: the drop against the model's size, a line for each length (resize)."""
    rows = image_drops(folder)
    rows = rows[rows["way"] == "resize"]
    size = rows.groupby("model")["image_params"].max()
    figure = new_figure(COLUMN, 3)
    axes = figure.subplots()
    lengths = sorted(set(rows["tokens"]), reverse=True)[1:]
    for index, tokens in enumerate(lengths):
        line = rows[rows["tokens"] == tokens]
        line = line.assign(size=line["model"].map(size).astype(float)).sort_values("size")
        axes.plot(line["size"], line["drop"], label=f"{tokens}", **line_style(index))
    log_axis(axes, label("image_params"))
    drop_axis(axes)
    axes.legend(title=label("image_tokens"), frameon=False)
    tidy(axes)
    say_title(figure, f"{V1}, Figure 9 (Table 11)", "resized in pretraining; drop from 196")
    return figure


@styled
def figure_10(folder: Path = FOLDER) -> Figure:
    """v1 Figure 10: accuracy against all image tokens seen in pretraining (resize)."""
    rows = image_drops(folder)
    rows = rows[rows["way"] == "resize"]
    seen = rows["tokens"].astype(float) * rows["start_samples"].astype(float)
    figure = new_figure(COLUMN, 3)
    axes = figure.subplots()
    draw_lines(axes, rows.assign(seen=seen), "seen", "value")
    log_axis(axes, "Image tokens seen in pretraining")
    accuracy_axis(axes, IMAGENET)
    axes.set_ylim(bottom=LOWEST)
    axes.legend(title=label("model"), frameon=False, loc="lower right", ncols=3)
    say_title(figure, f"{V1}, Figure 10 (Table 11)", "resized in pretraining")
    return figure


@styled
def figure_1_v2(folder: Path = FOLDER) -> Figure:
    """v2 Figure 1: accuracies as bars, OpenCLIP's beside CLIPA-v2's."""
    rows = select("v2 Figure 1", folder)
    names = rows["run"].str.extract(r"\| ?\S+ (.*)$")[0].str.replace("bigG", "G")
    places = {"L/14": 0, "H/14": 1, "G/14": 2, "H/14*": 2}
    figure = new_figure(COLUMN, 3)
    axes = figure.subplots()
    for index, who in enumerate(("OpenCLIP", "CLIPA-v2")):
        own = (rows["trainer"] == who).to_numpy()
        x = [places[name] + (index - 0.5) * 0.4 for name in names[own]]
        heights = rows["value"][own].astype(float)
        bars = axes.bar(
            x, heights, 0.38, label=who, color=colour(index), hatch="//" * index, edgecolor="white"
        )
        told = [f"{name}\n{100 * y:.1f}" for name, y in zip(names[own], heights, strict=True)]
        axes.bar_label(bars, told, fontsize=SMALL)
    axes.axhline(BEST_OPENCLIP, color=INK, linestyle=":", linewidth=1)
    axes.set_ylim(0.74, 0.83)
    axes.set_xticks([])
    accuracy_axis(axes, IMAGENET)
    axes.set_xlabel("bars from 74 %, as in print")
    axes.legend(frameon=False, loc="upper left")
    tidy(axes)
    say_title(figure, f"{V2}, Figure 1", "H/14*: finetuned at 336 px too")
    return figure


@styled
def figure_2_v2(folder: Path = FOLDER) -> Figure:
    """v2 Figure 2: the drop of finetuning under random masks against the share kept."""
    rows = select("v2 Figure 2", folder)
    share = rows["note_run"].str.extract(r"(\d+) %")[0].astype(float)
    figure = new_figure(COLUMN, 3)
    axes = figure.subplots()
    draw_lines(axes, rows.assign(share=share, drop=rows["value"].astype(float)), "share", "drop")
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(MultipleLocator(20))
    axes.set_xlabel("Patches kept in finetuning, of 100")
    drop_axis(axes)
    axes.legend(title=label("model"), frameon=False)
    say_title(figure, f"{V2}, Figure 2", "random masks in finetuning")
    return figure


@styled
def cost_vs_accuracy(folder: Path = FOLDER) -> Figure:
    """ImageNet accuracy against GPU-hours, dollars and training FLOPs: see `cost_tables`."""
    costs = published_costs(folder)
    costs = costs[costs["accuracy"].notna() & (costs["trainer"] != "FLIP")]
    costs = costs[~((costs["table"] == "README") & costs["model"].isin(["L/14", "H/14"]))]
    who = costs["trainer"].str.replace("CLIPA-v2", "CLIPA").astype(str)
    is_large = costs["schedule"].str.contains("336 px")
    figure = new_figure(PAGE, 4.2)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, column, name in zip(panels, COSTS, COSTS.values(), strict=True):
        for index, trainer in enumerate(("CLIPA", "OpenCLIP", "OpenAI")):
            for large in (False, True):
                own = costs[(who == trainer) & (is_large == large) & costs[column].notna()]
                own = own.drop_duplicates(["model", column, "accuracy"])
                if own.empty:
                    continue
                style = {"markerfacecolor": "none"} if large else {}
                told = f"{trainer}, 336 px" if large else trainer
                x, y = own[column].astype(float), own["accuracy"].astype(float)
                axes.plot(x, y, marker(index), color=colour(index), label=told, **style)
        name_models(axes, costs.dropna(subset=[column]), column)
        log_axis(axes, name)
        low, high = axes.get_xlim()
        axes.set_xlim(low / 4, high * 4)  # room for the names
        tidy(axes)
    accuracy_axis(panels[0], IMAGENET)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside lower center", ncols=4)
    prices = "$1.14 OpenCLIP's H/14, L/14; $1.65 CLIPA's G/14 at 336 px; $1.575 others"
    say_title(figure, f"Cost and accuracy: {V1}, {V2}", f"dollars an hour as printed: {prices}")
    return figure


def name_models(axes: Axes, points: pd.DataFrame, column: str) -> None:
    """Each model's name once where its points lie close together: CLIPA's on the left."""
    named: list[tuple[str, float, float]] = []
    for _, row in points.sort_values([column, "accuracy"]).iterrows():
        model, x, y = str(row["model"]), float(row[column]), float(row["accuracy"])
        near = (
            name == model and x < CLOSE[0] * its_x and abs(y - its_y) < CLOSE[1]
            for name, its_x, its_y in named
        )
        if any(near):
            continue
        is_left = str(row["trainer"]).startswith("CLIPA")
        offset, side = ((-5, 0), "right") if is_left else ((5, 0), "left")
        beside(axes, model, x, y, offset, ha=side, va="center")
        named.append((model, x, y))


PAPERS: Mapping[str, Callable[[Path], Figure]] = {
    "v1_figure_4": figure_4,
    "v1_figure_7": figure_7,
    "v1_figure_8": figure_8,
    "v1_figure_9": figure_9,
    "v1_figure_10": figure_10,
    "v2_figure_1": figure_1_v2,
    "v2_figure_2": figure_2_v2,
    "cost_vs_accuracy": cost_vs_accuracy,
}


def save_papers(folder: Path, published: Path = FOLDER) -> list[Path]:
    """All of them; the paths of their PNGs."""
    return [save_figure(draw(published), folder / name) for name, draw in PAPERS.items()]
