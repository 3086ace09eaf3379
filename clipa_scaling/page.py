"""One self-contained HTML page: headings, tables and figures; no script, nothing from outside.

Pages are trees of elements, so that every text is escaped by the serialiser and none by hand.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, tostring

import numpy as np
import pandas as pd
from rich.table import Table

from clipa_scaling import schema

Part = Element | str

UNKNOWN = ("–", "-", "")  # as written here, by other tables, and by fields that are empty
LONG = 40  # letters that a column bears in one line
MOST_ROWS = 16  # of a table that does not scroll
SCREEN, INCH = 96, 1 / 0.0254  # pixels an inch, inches a metre
NUMBER = re.compile(r"[-−+<>≤≥]?\s?\$?[\d.]")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1b1e23; --dim: #5c6470; --line: #d9dde3; --page: #fff;
  --head: #f4f6f8; --link: #0b5cad; --warn: #8a4b00; --warnpage: #fff6e6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --dim: #9aa3af; --line: #3a4048;
  --page: #16181c; --head: #22262c; --link: #7db7f0; --warn: #f0c27a; --warnpage: #2c2414; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1.25rem 4rem; color: var(--ink);
  background: var(--page); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; margin: 3rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p, ul, nav { max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.summary { font-size: 1.1rem; }
.quote { border-left: 3px solid var(--link); padding: .1rem 0 .1rem 1rem; }
.note, figcaption, caption, .file { color: var(--dim); font-size: .9rem; }
.warning { color: var(--warn); background: var(--warnpage); padding: .5rem .75rem;
  border-radius: 4px; }
nav ol { columns: 2; padding-left: 1.5rem; margin: .5rem 0; }
.scroll { overflow: auto; margin: .75rem 0 1.75rem; }
.long { max-height: 30rem; border: 1px solid var(--line); border-radius: 4px; }
.long caption { padding: .4rem .7rem; }
.scroll:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.35;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .4rem; }
caption span { position: sticky; left: 0; display: inline-block;
  max-width: min(46rem, calc(100vw - 2.5rem)); white-space: pre-line; }
th, td { padding: .3rem .7rem; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
td.text { white-space: normal; min-width: 14rem; max-width: 36rem; overflow-wrap: anywhere; }
th { font-weight: 600; }
thead th { position: sticky; top: 0; background: var(--head); vertical-align: bottom;
  white-space: pre-line; }
.number { text-align: right; }
figure { margin: 1.5rem 0 2rem; }
figure .scroll { margin: 0 0 .5rem; }
img { display: block; width: 100%; min-width: min(42rem, var(--full)); max-width: var(--full);
  height: auto; background: #fff; border-radius: 4px; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .875em;
  overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: 1rem .9rem 3rem; } nav ol { columns: 1; }
  h1 { font-size: 1.5rem; } th, td { padding: .3rem .5rem; } }
@media print { :root { color-scheme: light; --ink: #000; --dim: #444; --line: #bbb; --page: #fff;
    --head: #fff; --link: #000; --warn: #000; --warnpage: #fff; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  .scroll { overflow: visible; max-height: none; border: 0; } img { min-width: 0; }
  @page { size: A4 landscape; margin: 12mm; }
  table { font-size: 7pt; } th, td { padding: 1pt 4pt; }
  thead th { position: static; } tr, figure { break-inside: avoid; } h2, h3 { break-after: avoid; }
  a { text-decoration: none; } }
"""


@dataclass
class Section:
    """A heading of the page and what stands below it; `key` is its place in links."""

    key: str
    title: str
    parts: list[Element] = field(default_factory=list)


def tag(name: str, *parts: Part, **attributes: str) -> Element:
    """An element around its parts; empty attributes are left out.

    A final underscore of an attribute's name is Python's alone.
    """
    given = {key.rstrip("_"): value for key, value in attributes.items() if value}
    element = Element(name, given)
    for part in parts:
        if isinstance(part, Element):
            element.append(part)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + part
        else:
            element.text = (element.text or "") + part
    return element


def paragraph(*parts: Part, class_: str = "") -> Element:
    return tag("p", *parts, class_=class_)


def bullets(lines: Iterable[Part]) -> Element:
    return tag("ul", *(tag("li", line) for line in lines))


def table(frame: pd.DataFrame, caption: str) -> Element:
    """A frame's columns under their labels of the schema; its index is not shown.

    Texts stand as they are, other values in four digits, and a dash for what is unknown.
    """
    known = schema.RUNS | schema.PIPELINES | schema.EVALS
    columns = []
    for name in map(str, frame):
        label = known[name].label if name in known else name.replace("_", " ")
        columns.append((label, [show(value) for value in frame[name]]))
    return lay_out(columns, caption)


def terminal_table(made: Table) -> Element:
    """A table made for the terminal, under its own title, note and headings."""
    columns = [(str(column.header), [*map(str, column.cells)]) for column in made.columns]
    return lay_out(columns, "\n".join(str(text) for text in (made.title, made.caption) if text))


def lay_out(columns: Sequence[tuple[str, Sequence[str]]], caption: str) -> Element:
    """Headings with their cells, as a table that scrolls where it is too large for the page."""
    kinds = [kind_of(cells) for _, cells in columns]
    heads = [
        tag("th", heading, scope="col", class_=kind)
        for (heading, _), kind in zip(columns, kinds, strict=True)
    ]
    rows = [
        tag("tr", *(tag("td", text, class_=kind) for text, kind in zip(row, kinds, strict=True)))
        for row in zip(*(cells for _, cells in columns), strict=True)
    ]
    inner = (tag("thead", tag("tr", *heads)), tag("tbody", *rows))
    whole = tag("table", tag("caption", tag("span", caption)), *inner)
    return scroll(whole, caption, "scroll long" if len(rows) > MOST_ROWS else "scroll")


def scroll(inside: Element, told: str, kind: str = "scroll") -> Element:
    """A box of its own to scroll in; what scrolls must be reachable by keys, hence have a name."""
    return tag("div", inside, class_=kind, tabindex="0", role="region", **{"aria-label": told})


def kind_of(cells: Sequence[str]) -> str:
    """How a column is set: numbers to the right, long texts in several lines."""
    known = [text for text in cells if text not in UNKNOWN]
    is_long = any(len(text) > LONG and " " in text for text in known)
    if all(NUMBER.match(text) for text in known):
        return "" if is_long else "number"
    return "text" if is_long else ""


def show(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return UNKNOWN[0]
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, int | float | np.number):
        return str(value)
    number = float(value)
    return f"{number:,.0f}" if number.is_integer() or abs(number) >= 1000 else f"{number:.4g}"


def picture(png: bytes, alt: str, caption: str, files: Sequence[str] = ()) -> Element:
    """A PNG inside the page, with its caption and the names of the files that hold the same."""
    width, height = (round(side * SCREEN * INCH / density(png)) for side in size(png))
    image = tag(
        "img",
        src="data:image/png;base64," + base64.b64encode(png).decode(),
        alt=alt,
        width=str(width),
        height=str(height),
        style=f"--full: {width}px",
    )
    told: list[Part] = [caption]
    if files:
        told.append(" Also as ")
        for place, name in enumerate(files):
            told += [", " if place else "", tag("code", name)]
        told.append(".")
    return tag("figure", scroll(image, alt), tag("figcaption", *told))


def size(png: bytes) -> tuple[int, int]:
    """Pixels, from the chunk that every PNG begins with."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def density(png: bytes) -> float:
    """Pixels a metre, a screen's where the file does not say."""
    place = png.find(b"pHYs", 0, png.find(b"IDAT"))
    return float(struct.unpack(">I", png[place + 4 : place + 8])[0]) if place > 0 else SCREEN * INCH


def render(title: str, summary: Sequence[str], sections: Sequence[Section]) -> bytes:
    """The page; equal arguments, equal bytes."""
    links = [tag("li", tag("a", item.title, href=f"#{item.key}")) for item in sections]
    parts = [
        tag("section", tag("h2", item.title, id=f"{item.key}-title"), *item.parts, id=item.key,
            **{"aria-labelledby": f"{item.key}-title"})
        for item in sections
    ]  # fmt: skip
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", content=POLICY, **{"http-equiv": "Content-Security-Policy"}),
            tag("title", title),
            tag("style", STYLE),
        ),
        tag(
            "body",
            tag("header", tag("h1", title), *(paragraph(s, class_="summary") for s in summary)),
            tag("nav", tag("h2", "Contents"), tag("ol", *links), **{"aria-label": "Contents"}),
            tag("main", *parts),
        ),
        lang="en",
    )
    text = "<!DOCTYPE html>\n" + tostring(page, encoding="unicode", method="html") + "\n"
    return text.encode("utf-8", "replace")
