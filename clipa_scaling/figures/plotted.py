"""A figure -> the numbers that it shows, read back from what was drawn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, PathCollection, QuadMesh
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

PERCENT = " (%)"  # ends the name of an axis whose values are fractions, shown in percent
COLUMNS = ["panel", "series", "x_is", "y_is", "x", "y", "low", "high", "value"]
Row = dict[str, object]


def read_plotted(figure: Figure) -> pd.DataFrame:
    """A row for each point of each series that has a name, of all panels.

    `x_is`, `y_is` name the axes; fractions stay fractions. `low`, `high`: the ends of error bars,
    or the edges of a band; `value`: the colour's number in a map. Lines without a name only guide
    the eye, and are left out.
    """
    rows: list[Row] = []
    for number, axes in enumerate(figure.axes, 1):
        if axes.get_label() == "<colorbar>":
            continue
        own = {
            "panel": axes.get_title() or axes.get_title("left") or str(number),
            "x_is": axes.get_xlabel().removesuffix(PERCENT),
            "y_is": axes.get_ylabel().removesuffix(PERCENT),
        }
        rows += [own | row for row in read_axes(axes)]
    return pd.DataFrame(rows, columns=COLUMNS)


def read_axes(axes: Axes) -> Iterator[Row]:
    inside: set[Artist] = set()
    for container in axes.containers:
        inside.update(part for part in container.get_children())
        if not is_named(container.get_label()):
            continue
        if isinstance(container, ErrorbarContainer):
            yield from read_errorbars(container)
        elif isinstance(container, BarContainer):
            for bar, (_, y) in zip(container.patches, bar_ends(container), strict=True):
                place = bar.get_x() + bar.get_width() / 2
                yield {"series": container.get_label(), "x": place, "y": y}
    for line in axes.lines:
        if line not in inside and is_named(line.get_label()):
            yield from read_line(line, str(line.get_label()))
    for collection in axes.collections:
        if collection not in inside and is_named(collection.get_label()):
            yield from read_collection(collection)


def is_named(name: object) -> bool:
    return bool(name) and not str(name).startswith("_")


def read_line(line: Line2D, name: str) -> Iterator[Row]:
    x_data, y_data = (np.asarray(data, float) for data in line.get_data())
    for x, y in zip(x_data, y_data, strict=True):
        yield {"series": name, "x": x, "y": y}


def bar_ends(container: BarContainer) -> list[tuple[float, float]]:
    return [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in container.patches]


def read_errorbars(container: ErrorbarContainer) -> Iterator[Row]:
    """Points with the ends of their bars, whichever way those run."""
    line, _, bars = container
    rows = list(read_line(line, str(container.get_label())))
    for collection in bars:
        for row, segment in zip(rows, collection.get_segments(), strict=False):
            if len(segment) == 2:
                axis = 1 if segment[0][0] == segment[1][0] else 0
                row["low"], row["high"] = float(segment[0][axis]), float(segment[1][axis])
    yield from rows


def read_collection(collection: Collection) -> Iterator[Row]:
    """Scattered points, the edges of bands, and maps."""
    name = collection.get_label()
    if isinstance(collection, QuadMesh):
        corners = np.asarray(collection.get_coordinates(), float)
        centres = (corners[:-1, :-1] + corners[1:, 1:]) / 2
        values: np.ndarray = np.ma.masked_invalid(np.ma.asarray(collection.get_array())).filled(
            np.nan
        )
        columns, rows = read_ticks(collection.axes)
        for (x, y), value in zip(centres.reshape(-1, 2), values.reshape(-1), strict=True):
            place = {"x": columns.get(float(x), x), "y": rows.get(float(y), y)}
            yield {"series": name, **place, "value": value}
    elif isinstance(collection, PathCollection):
        for x, y in np.asarray(collection.get_offsets(), float):
            yield {"series": name, "x": x, "y": y}
    else:
        for path in collection.get_paths():
            yield from read_band(str(name), np.asarray(path.vertices, float))


def read_ticks(axes: object) -> tuple[dict[float, str], dict[float, str]]:
    """What stands at the places of both axes of a map, which has names instead of numbers."""
    if not isinstance(axes, Axes):
        return {}, {}
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        places = [float(place) for place in axis.get_majorticklocs()]
        names = axis.get_major_formatter().format_ticks(places)
        found.append(dict(zip(places, names, strict=True)))
    return found[0], found[1]


def read_band(name: str, outline: np.ndarray) -> Iterator[Row]:
    """Both edges at each x of a band's outline."""
    for x in np.unique(outline[:, 0]):
        y = outline[outline[:, 0] == x, 1]
        yield {"series": name, "x": x, "low": y.min(), "high": y.max()}
