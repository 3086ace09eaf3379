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
from clipa_scaling.figures.style import (
    INK,
    accuracy_axis,
    beside,
    colour,
    log_axis,
    marker,
    new_figure,
    save_figure,
    tidy,
    token_axis,
)
from clipa_scaling.published import FOLDER, UNITS, load_printed, select
from clipa_scaling.schema import label

MODELS = ("S/16", "B/16", "L/16", "H/14")
DROP = "Drop of accuracy (points)"
IMAGENET = "ImageNet zero-shot accuracy (%)"
IMAGE_WAYS = ("random", "grid", "block", "resize")
TEXT_WAYS = ("truncate", "syntax", "block", "random")
FULL_TEXT = 32
COSTS = {
    "gpu_hours": "A100 GPU-hours, as printed",
    "dollars": "Dollars, as printed",
    "train_flops": "Training FLOPs, closed form",
}
BEST_OPENCLIP = 0.801  # G/14, the dotted line of v2 Figure 1


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
    drop = 100 * (best["value"] - best["value_full"]).astype(float)
    names = ["model", "way", "tokens", "value", "image_params", "start_samples"]
    return known[names].assign(drop=drop.round(2)).sort_values(["way", "model", "tokens"])


def figure_4(folder: Path = FOLDER) -> Figure:
    """v1 Figure 4: the drop against image tokens, a panel for each way to fewer."""
    return four_panels(image_drops(folder), IMAGE_WAYS, "image_tokens")


def figure_7(folder: Path = FOLDER) -> Figure:
    """v1 Figure 7: the drop against text tokens, a panel for each way to fewer."""
    return four_panels(text_drops(folder), TEXT_WAYS, "text_tokens")


def four_panels(rows: pd.DataFrame, ways: Sequence[str], length: str) -> Figure:
    figure = new_figure(10, 3)
    panels = figure.subplots(1, len(ways), sharey=True)
    for axes, way in zip(panels, ways, strict=True):
        own = rows[rows["way"] == way]
        draw_lines(axes, own, "tokens", "drop")
        token_axis(axes, own["tokens"], length)
        axes.invert_xaxis()
        axes.set_title(way)
    panels[0].set_ylabel(DROP)
    panels[0].legend(title=label("model"), frameon=False, loc="lower left")
    return figure


def draw_lines(axes: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    """A line for each model, in the colour that it has in all figures."""
    for index, model in enumerate(MODELS):
        line = rows[rows["model"] == model].sort_values(x)
        if len(line):
            values = line[x].astype(float), line[y].astype(float)
            axes.plot(*values, color=colour(index), marker=marker(index), markersize=5, label=model)
    tidy(axes)


def figure_8(folder: Path = FOLDER) -> Figure:
    """v1 Figure 8: accuracy against compute, as digitised, and where this package counts it."""
    printed = select("v1 Figure 8", folder)
    ours = {
        (row.name.split()[0], int(row.name.split()[2])): row.ours * UNITS[row.unit] / 2
        for row in load_printed(folder)
        if row.where.endswith("Figure 8")
    }
    figure = new_figure(5.4, 3.8)
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
        for tokens, x, y in zip(line["start_image_tokens"], counted, line["value"], strict=True):
            beside(axes, str(tokens), x, float(y), (7, -4))
    log_axis(axes, "Multiply-adds of a forward × samples")
    accuracy_axis(axes, IMAGENET)
    note = "filled: digitised; open: closed form; small: image tokens"
    axes.legend(title=note, title_fontsize=7, frameon=False, fontsize=7, ncols=2, loc="lower right")
    return figure


def figure_9(folder: Path = FOLDER) -> Figure:
    """v1 Figure 9: the drop against the model's size, a line for each length (resize)."""
    rows = image_drops(folder)
    rows = rows[rows["way"] == "resize"]
    size = rows.groupby("model")["image_params"].max()
    figure = new_figure(4.2, 3.3)
    axes = figure.subplots()
    lengths = sorted(set(rows["tokens"]), reverse=True)[1:]
    for index, tokens in enumerate(lengths):
        line = rows[rows["tokens"] == tokens]
        line = line.assign(size=line["model"].map(size).astype(float)).sort_values("size")
        axes.plot(
            line["size"], line["drop"], color=colour(index), marker=marker(index), label=f"{tokens}"
        )
    log_axis(axes, label("image_params"))
    axes.set_ylabel(DROP)
    axes.legend(title=label("image_tokens"), frameon=False)
    tidy(axes)
    return figure


def figure_10(folder: Path = FOLDER) -> Figure:
    """v1 Figure 10: accuracy against all image tokens seen in pretraining (resize)."""
    rows = image_drops(folder)
    rows = rows[rows["way"] == "resize"]
    seen = rows["tokens"].astype(float) * rows["start_samples"].astype(float)
    figure = new_figure(4.2, 3.3)
    axes = figure.subplots()
    draw_lines(axes, rows.assign(seen=seen), "seen", "value")
    log_axis(axes, "Image tokens seen in pretraining")
    accuracy_axis(axes, IMAGENET)
    axes.legend(title=label("model"), frameon=False)
    return figure


def figure_1_v2(folder: Path = FOLDER) -> Figure:
    """v2 Figure 1: accuracies as bars, OpenCLIP's beside CLIPA-v2's."""
    rows = select("v2 Figure 1", folder)
    names = rows["run"].str.extract(r"\| ?\S+ (.*)$")[0].str.replace("bigG", "G")
    places = {"L/14": 0, "H/14": 1, "G/14": 2, "H/14*": 2}
    figure = new_figure(4.2, 3.2)
    axes = figure.subplots()
    for index, who in enumerate(("OpenCLIP", "CLIPA-v2")):
        own = (rows["trainer"] == who).to_numpy()
        x = [places[name] + (index - 0.5) * 0.4 for name in names[own]]
        heights = rows["value"][own].astype(float)
        bars = axes.bar(
            x, heights, 0.38, label=who, color=colour(index), hatch="//" * index, edgecolor="white"
        )
        told = [f"{name}\n{100 * y:.1f}" for name, y in zip(names[own], heights, strict=True)]
        axes.bar_label(bars, told, fontsize=7)
    axes.axhline(BEST_OPENCLIP, color=INK, linestyle=":", linewidth=1)
    axes.set_ylim(0.74, 0.83)
    axes.set_xticks([])
    accuracy_axis(axes, IMAGENET)
    axes.set_xlabel("from 74 %, as in print; H/14*: finetuned at 336 px too", fontsize=7)
    axes.legend(frameon=False, loc="upper left")
    tidy(axes)
    return figure


def figure_2_v2(folder: Path = FOLDER) -> Figure:
    """v2 Figure 2: the drop of finetuning under random masks against the share kept."""
    rows = select("v2 Figure 2", folder)
    share = rows["note_run"].str.extract(r"(\d+) %")[0].astype(float)
    figure = new_figure(4.2, 3.3)
    axes = figure.subplots()
    draw_lines(axes, rows.assign(share=share, drop=-rows["value"].astype(float)), "share", "drop")
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(MultipleLocator(20))
    axes.set_xlabel("Patches kept in finetuning, of 100")
    axes.set_ylabel(DROP)
    axes.legend(title=label("model"), frameon=False)
    return figure


def cost_vs_accuracy(folder: Path = FOLDER) -> Figure:
    """ImageNet accuracy against GPU-hours, dollars and training FLOPs: see `cost_tables`."""
    costs = published_costs(folder)
    costs = costs[costs["accuracy"].notna() & (costs["trainer"] != "FLIP")]
    costs = costs[~((costs["table"] == "README") & costs["model"].isin(["L/14", "H/14"]))]
    who = costs["trainer"].str.replace("CLIPA-v2", "CLIPA").astype(str)
    is_large = costs["schedule"].str.contains("336 px")
    figure = new_figure(10, 3.8)
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
                for model, x_, y_ in zip(own["model"], x, y, strict=True):
                    beside(axes, str(model), x_, y_)
        log_axis(axes, name)
        tidy(axes)
    accuracy_axis(panels[0], IMAGENET)
    panels[0].legend(frameon=False, loc="lower right", fontsize=8)
    return figure


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
