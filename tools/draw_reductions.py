"""Draw docs/reductions.png, a scene and its caption under every reduction, by what trains."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import TextPath
from PIL import Image

from clipa_scaling.taggers import name_tagger
from clipa_scaling.train.pictures import resize_one
from clipa_scaling.train.reduce import reduce_ids
from clipa_scaling.train.scenes import make_scenes
from clipa_scaling.train.tagging import ADJECTIVE, NOUN, OTHER, VERB, make_tagger
from clipa_scaling.train.tokenize import END, PACKED_LENGTH, START, encode_texts
from clipa_scaling.train.tokens import divide_grid, keep_patches
from clipa_scaling.train.words import WordClasses, decode_words

OUT = Path(__file__).resolve().parents[1] / "docs" / "reductions.png"
SCENE, SEED, PATCH, SIDE = 372, 2, 16, 14
IMAGE_TOKENS, TEXT_TOKENS = (100, 49, 36, 16), (16, 8, 4)
IMAGE_RULES = {
    "resize": "the whole picture,\nfewer pixels",
    "random": "any patches",
    "grid": "one patch of each window,\nanywhere in it",
    "block": "one block, anywhere",
}
TEXT_RULES = {
    "truncate": "the first words",
    "random": "any words",
    "block": "one span of words",
    "syntax": "nouns, then adjectives, verbs, others",
}
# Okabe and Ito's, which colour-blind readers tell apart; the last is gray.
CLASSES = {NOUN: "noun", ADJECTIVE: "adjective", VERB: "verb", OTHER: "other"}
COLOURS = {NOUN: "#0072b2", ADJECTIVE: "#009e73", VERB: "#d55e00", OTHER: "#6b7280"}
INK, PALE, LINE = "#1f2937", "#b6bcc6", "#374151"
MASK = np.array([58, 68, 84])  # over dropped patches, which shine through
WIDTH, HEIGHT = 950.0, 1336.0  # of the page in points of its own; 100 make an inch
LEFT, CELL, GAP = 26.0, 166.0, 12.0
FIRST = WIDTH - LEFT - 4 * CELL - 3 * GAP  # where the columns of pictures begin


def draw_page() -> Figure:
    """Pictures above, captions below, each with its rule."""
    pictures, captions, _ = make_scenes(0, SCENE, 1, PATCH * SIDE)
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=150)
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0), autoscale_on=False)
    page.set_axis_off()
    heading(page, 40, "Image tokens", f"a scene of {SIDE} × {SIDE} patches, and how many are kept")
    bottom = draw_pictures(page, pictures[0], 66)
    heading(page, bottom + 50, "Text tokens", "start and end count, and are always kept")
    draw_captions(page, captions[0], bottom + 78)
    return figure


def heading(page: Axes, y: float, title: str, rest: str) -> None:
    page.text(LEFT, y, title, size=14, weight="bold", color=INK, va="center")
    x = LEFT + text_width(title, 14, "bold") + 14
    page.text(x, y + 1, rest, size=10.5, color=LINE, va="center")


def rule(page: Axes, y: float, name: str, words: str) -> None:
    page.text(LEFT, y, name, size=12, weight="bold", color=INK, va="bottom")
    page.text(LEFT, y + 5, words, size=9.5, color=LINE, va="top", linespacing=1.35)


def draw_pictures(page: Axes, picture: np.ndarray, top: float) -> float:
    """A row for each method, a column for each count; where the last row ends."""
    for column, count in enumerate(IMAGE_TOKENS):
        x = FIRST + column * (CELL + GAP) + CELL / 2
        label = f"{count} of {SIDE**2}"
        page.text(x, top + 6, label, size=11, weight="bold", color=INK, ha="center", va="center")
    top += 22
    for method, words in IMAGE_RULES.items():
        rule(page, top + CELL / 2, method, words)
        for column, count in enumerate(IMAGE_TOKENS):
            x = FIRST + column * (CELL + GAP)
            if method == "resize":
                draw_resized(page, picture, x, top, count)
            else:
                draw_masked(page, picture, x, top, method, count)
        top += CELL + GAP
    return top - GAP


def draw_resized(page: Axes, picture: np.ndarray, x: float, y: float, count: int) -> None:
    """The smaller picture at the scale of the others, in the middle of its cell."""
    side = round(count**0.5)
    edge = CELL * side / SIDE
    x, y = x + (CELL - edge) / 2, y + (CELL - edge) / 2
    show(page, resize_one(picture, side * PATCH), x, y, edge)
    rule_patches(page, x, y, edge, side, 0.6)


def rule_patches(page: Axes, x: float, y: float, edge: float, side: int, alpha: float) -> None:
    """White lines between patches."""
    ticks = np.arange(1, side) * edge / side
    page.vlines(x + ticks, y, y + edge, colors="white", lw=0.7, alpha=alpha)
    page.hlines(y + ticks, x, x + edge, colors="white", lw=0.7, alpha=alpha)


def draw_masked(
    page: Axes, picture: np.ndarray, x: float, y: float, method: str, count: int
) -> None:
    """The kept patches as they are, the dropped ones under a mask; for grid, its windows."""
    [kept] = keep_patches(method, SEED, torch.tensor([SCENE]), SIDE, count).tolist()
    shown = 0.8 * MASK + 0.2 * picture
    for row, column in (divmod(position, SIDE) for position in kept):
        place = np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        shown[place] = picture[place]
    show(page, shown.astype(np.uint8), x, y, CELL)
    rule_patches(page, x, y, CELL, SIDE, 0.25)
    unit = CELL / SIDE
    for top, left, height, width in divide_grid(SIDE, count) if method == "grid" else ():
        corner = x + left * unit, y + top * unit
        frame = Rectangle(corner, width * unit, height * unit, fill=False, ec="white", lw=1.1)
        page.add_patch(frame)


def show(page: Axes, picture: np.ndarray, x: float, y: float, edge: float) -> None:
    # Edges down, as the page's axis runs.
    page.imshow(
        picture, extent=(x, x + edge, y + edge, y), aspect="auto", interpolation="antialiased"
    )


def draw_captions(page: Axes, caption: str, top: float) -> None:
    """The caption by classes of words, then each method's rows, dropped words pale."""
    ids = encode_texts([caption])
    words = decode_words(ids[0])
    classes = WordClasses(make_tagger(name_tagger("scenes", ""))).of(ids)
    kinds = classes[0, 1 : len(words) + 1].tolist()
    # Places in place of words: reductions look at no id, and `a` comes more than once.
    places = np.zeros((1, PACKED_LENGTH), np.uint16)
    places[0, : len(words) + 2] = [START, *range(len(words)), END]
    x = LEFT + 108
    for kind, name in CLASSES.items():
        page.text(x, top, name, size=10, weight="bold", color=COLOURS[kind], va="center")
        x += text_width(name, 10, "bold") + 16
    top += 34
    for method, rule_words in TEXT_RULES.items():
        page.text(LEFT, top, method, size=12, weight="bold", color=INK, va="center")
        page.text(LEFT + 108, top, rule_words, size=9.5, color=LINE, va="center")
        for tokens in TEXT_TOKENS:
            top += 24
            kept = reduce_ids(places, tokens, method, SEED, np.array([SCENE]), classes)[0, 1:]
            page.text(LEFT + 94, top, f"{tokens}", size=10, color=LINE, ha="right", va="center")
            draw_words(page, words, kinds, {*kept[: tokens - 2].tolist()}, top)
        top += 32


def draw_words(page: Axes, words: list[str], kinds: list[int], kept: set[int], y: float) -> None:
    """One caption in a row: kept words on colour, dropped ones pale, start and end in frames."""
    x = LEFT + 108
    for place, word in enumerate(["start", *words, "end"], -1):
        width = text_width(word, 9) + 11
        frame = place in (-1, len(words))
        colour = "white" if frame or place not in kept else COLOURS[kinds[place]]
        ink = LINE if frame else "white" if place in kept else PALE
        box = FancyBboxPatch((x, y - 9), width, 18, boxstyle="round,pad=0,rounding_size=4")
        box.set(facecolor=colour, edgecolor=LINE if frame else colour, linewidth=0.8)
        page.add_patch(box)
        page.text(x + width / 2, y, word, size=9, color=ink, ha="center", va="center_baseline")
        x += width + 3


def text_width(words: str, size: float, weight: str = "normal") -> float:
    """In points of the page, of which 72 of print are 100."""
    path = TextPath((0, 0), words, prop=FontProperties(size=size, weight=weight))
    return float(path.get_extents().width) * 100 / 72


def main() -> None:
    """Write the page in 256 colours: a third of the bytes, and no eye sees it."""
    content = io.BytesIO()
    draw_page().savefig(content, format="png")
    image = Image.open(content).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(OUT, optimize=True)
    print(f"{OUT.name}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
