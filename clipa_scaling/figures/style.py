"""What all figures share: colours, axes, and how one is saved with the numbers that it shows."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    LogFormatterSciNotation,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from clipa_scaling.figures.plotted import PERCENT, read_plotted
from clipa_scaling.schema import label

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
MARKERS = "osD^v"
# With the markers they tell lines apart where a printer has no colour.
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 2)), (0, (8, 2)))
COLUMN, PAGE = 3.4, 6.9  # inches of a paper
SMALL, NORMAL, LARGE = 7, 8, 9  # points
INK, PALE = "0.35", "0.8"
DPI = 150
LONGEST_LINE = 105  # letters of a title over a page
WIDE = 50  # of an axis: its ends' ratio
LARGEST_PREFIX = 1e18
STYLE: Any = {
    "font.size": NORMAL,
    "axes.titlesize": NORMAL,
    "axes.labelsize": NORMAL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.handlelength": 2.8,
    "figure.titlesize": LARGE,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # TrueType, which editors of figures can change
}
styled = matplotlib.rc_context(STYLE)  # decorates a function that draws a figure


def colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    return MARKERS[index % len(MARKERS)]


def dashes(index: int) -> Any:
    return DASHES[index % len(DASHES)]


def line_style(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of a line by its number."""
    return {"color": colour(index), "marker": marker(index), "linestyle": dashes(index)}


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches; at most PAGE wide, so that print leaves its letters their size."""
    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Axes) -> None:
    """No box; pale lines to read heights by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.tick_params(labelsize=SMALL)  # ticks are made late, when the style may no longer hold


def accuracy_axis(axes: Axes, name: str) -> None:
    """A fraction in the tables is percent on an axis, with as many decimals as its ticks need."""
    axes.set_ylabel(name)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 6):g}"))
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10], min_n_ticks=3))
    assert name.endswith(PERCENT), "its CSV has fractions, and takes the sign off the name"


def token_axis(axes: Axes, tokens: Iterable[float], name: str = "image_tokens") -> None:
    """A log axis whose ticks are the lengths of the runs, and nothing else."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sorted({float(count) for count in tokens})))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label(name))


def log_axis(axes: Axes, name: str) -> None:
    """A log axis of x, after its points are drawn: ticks as dense as its span allows.

    SI prefixes, or powers of ten where those are no longer common.
    """
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    is_wide = high > WIDE * low
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if is_wide else (1, 2, 5)))
    if high > LARGEST_PREFIX:
        axes.xaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False))
    else:
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_locator(LogLocator(subs=tuple(range(2, 10))) if is_wide else NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name)


def say_title(figure: Figure, *lines: str) -> None:
    """A title of several lines, each cut where the page ends; empty ones are left out."""
    longest = int(LONGEST_LINE * figure.get_figwidth() / PAGE)
    cut = [textwrap.shorten(line, longest, placeholder=" …") for line in lines if line]
    figure.suptitle("\n".join(cut), fontsize=LARGE, parse_math=False)  # reasons may have a $


def beside(
    axes: Axes,
    text: str,
    x: float,
    y: float,
    offset: tuple[float, float] = (5, -3),
    **options: Any,
) -> None:
    """A small name beside a point."""
    axes.annotate(
        text,
        (x, y),
        fontsize=SMALL,
        color=INK,
        xytext=offset,
        textcoords="offset points",
        **options,
    )


@styled
def save_figure(figure: Figure, stem: Path) -> Path:
    """Write stem.png, stem.pdf and stem.csv (see `plotted`); the path of the first.

    The same figure gives the same bytes.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    kinds: dict[str, dict[str, Any]] = {
        "png": {"dpi": DPI, "metadata": {"Software": None}},
        "pdf": {"metadata": {"CreationDate": None, "Producer": None, "Creator": None}},
    }
    for kind, options in kinds.items():
        path = stem.with_name(f"{stem.name}.{kind}")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        figure.savefig(temporary, format=kind, **options)
        os.replace(temporary, path)
    path = stem.with_name(f"{stem.name}.csv")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    read_plotted(figure).to_csv(temporary, index=False, float_format="%.10g")
    os.replace(temporary, path)
    return stem.with_name(f"{stem.name}.png")
