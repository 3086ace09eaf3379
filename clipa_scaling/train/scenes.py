"""The embedded data set: pictures with long captions, drawn from a seed at any pixel size.

A scene is a function of (seed, index); the pixel size only says how finely it is painted.
Places and sizes are continuous: objects in cells would favour the patch grid that fits the cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np

from clipa_scaling.source import SCENES_VERSION
from clipa_scaling.train.paint import (
    COLOURS,
    REACH,
    SHAPES,
    TEXTURES,
    Figure,
    paint,
    paint_backdrop,
    reach_towards,
)

VERSION = SCENES_VERSION  # part of the data's fingerprint; a changed pixel or word is a new version

CLASS_NAMES = tuple(f"{t} {c} {s}" for t in TEXTURES for c in COLOURS for s in SHAPES)
# Radii, in picture widths; apart, so that the words are true to the eye.
SIZES = {"large": (0.24, 0.28), "medium": (0.12, 0.15), "small": (0.08, 0.105)}
TURN = 0.15  # radians to either side; upright, for small models to tell shapes from few samples

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
# Between these words, in picture widths: midway between the lines of 3 x 3 and of 5 x 5 patches,
# so that no small patch grid has the answer in its lines.
CUTS = (11 / 30, 19 / 30)

APART = 1.05  # centres of two objects, at least, in sums of their radii
TRIES = 16  # at a free place
BACKDROP = 4  # colours per side of the background
BACKDROP_NUMBERS = 9 + BACKDROP**2  # random numbers of a scene's background
NUMBERS = BACKDROP_NUMBERS + 136  # of the whole scene: a few more than it can use

# Others than the main object seldom have their colour told: colours and places alone would tell
# the pictures of a batch apart, and small models would learn nothing else. Longest: 23 CLIP tokens.
TEMPLATES = {
    2: (
        "{0.full} {0.place} and {1.textured} {1.place}",
        "{0.full} {0.place} {side} {1.textured}",
        "{0.full} {side} {1.textured} {1.place}",
        "there is {0.full} {0.place} with {1.sized} {1.place}",
        "a picture of {0.full} {side} {1.full}",
    ),
    3: (
        "{0.full} {0.place}, {1.sized} {1.place} and {2.sized}",
        "{0.full} {side} {1.textured} with {2.sized} {2.place}",
        "{0.full}, {1.full} and {2.full}",
        "{0.full} {0.place} with {1.textured} and {2.textured}",
        "there is {0.full} with {1.coloured} and {2.coloured}",
    ),
    4: (
        "{0.full} with {1.textured}, {2.sized} and {3.sized}",
        "{0.full} {0.place} with {1.bare}, {2.bare} and {3.bare}",
        "{0.full} {side} {1.textured} with {2.sized} and {3.sized}",
        "{0.full} with {1.coloured}, {2.coloured} and {3.coloured}",
        "{0.full} {0.place} with {1.sized}, {2.bare} and {3.bare}",
    ),
}

Draw = Callable[[], float]  # the next random number in [0, 1)


@dataclass(frozen=True)
class Thing(Figure):
    """An object of a scene; its phrases are what captions are made of."""

    size: str

    @property
    def full(self) -> str:
        return f"a {self.size} {self.texture} {self.colour} {self.shape}"

    @property
    def textured(self) -> str:
        return f"a {self.size} {self.texture} {self.shape}"

    @property
    def sized(self) -> str:
        return f"a {self.size} {self.shape}"

    @property
    def coloured(self) -> str:
        return f"{'an' if self.colour == 'orange' else 'a'} {self.colour} {self.shape}"

    @property
    def bare(self) -> str:
        return f"a {self.shape}"

    @property
    def place(self) -> str:
        row, column = (sum(value > cut for cut in CUTS) for value in (self.y, self.x))
        return "in the center" if row == column == 1 else f"in the {ROWS[row]} {COLUMNS[column]}"


@dataclass(frozen=True)
class Layout:
    """What a scene holds, before any pixel.

    things: the main one first. backdrop: (4, 4, 3) uint8 colours of the background.
    """

    things: tuple[Thing, ...]
    backdrop: np.ndarray
    caption: str
    label: int


@dataclass(frozen=True)
class Scene:
    """picture (px, px, 3) uint8 RGB; label the index of its main object in CLASS_NAMES."""

    picture: np.ndarray
    caption: str
    label: int


def make_scene(seed: int, index: int, px: int) -> Scene:
    """One scene; ValueError as make_scenes."""
    pictures, captions, labels = make_scenes(seed, index, 1, px)
    return Scene(pictures[0], captions[0], int(labels[0]))


def make_scenes(
    seed: int, start: int, count: int, px: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Scenes start to start + count: pictures (count, px, px, 3) uint8, captions, labels int64.

    The same scenes in whatever chunks. ValueError when start or count is negative or px below 8.
    """
    for name, value, least in (("start", start, 0), ("count", count, 0), ("px", px, 8)):
        if value < least:
            raise ValueError(f"make_scenes: {name}={value} is too small; allowed: {least} or more")
    layouts = make_layouts(seed, start, count)
    pictures = np.empty((count, px, px, 3), np.uint8)
    for picture, layout in zip(pictures, layouts, strict=True):
        paint_backdrop(picture, layout.backdrop)
        for thing in layout.things:
            paint(picture, thing)
    labels = np.array([layout.label for layout in layouts], np.int64)
    return pictures, [layout.caption for layout in layouts], labels


def make_layouts(seed: int, start: int, count: int) -> list[Layout]:
    """What scenes start to start + count hold."""
    numbers_BN = make_numbers(seed, start, count)
    backdrops = make_backdrops(numbers_BN[:, :BACKDROP_NUMBERS])
    rows = numbers_BN[:, BACKDROP_NUMBERS:].tolist()
    return [
        make_layout(iter(row).__next__, backdrop)
        for row, backdrop in zip(rows, backdrops, strict=True)
    ]


def make_numbers(seed: int, start: int, count: int) -> np.ndarray:
    """(B, N) float64 in [0, 1), each a function of (seed, index, column) alone: splitmix64.

    Written out, since a generator made for each scene would take longer than its numbers.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    index_B = np.arange(start, start + count, dtype=np.uint64)
    column_N = np.arange(1, NUMBERS + 1, dtype=np.uint64)
    key = mix(np.array([seed % 2**64], np.uint64) + golden)
    bits_BN = mix(mix(key + index_B * golden)[:, None] + column_N * golden)
    return (bits_BN >> np.uint64(11)) * 2.0**-53


def mix(bits: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser, modulo 2^64 (Steele, Lea, Flood, doi:10.1145/2660193.2660195)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


def make_backdrops(numbers_BN: np.ndarray) -> np.ndarray:
    """(B, 4, 4, 3) uint8, light: a tint, a slope of each colour, and clouds."""
    tint, across, down = (numbers_BN[:, k : k + 3].reshape(-1, 1, 1, 3) - 0.5 for k in (0, 3, 6))
    clouds = numbers_BN[:, 9:].reshape(-1, BACKDROP, BACKDROP, 1) - 0.5
    ramp = np.linspace(-1, 1, BACKDROP)
    slopes = across * ramp[:, None] + down * ramp[:, None, None]
    light = np.rint(226 + 22 * tint + 18 * slopes + 10 * clouds)
    return np.minimum(light, 255).astype(np.uint8)


def make_layout(draw: Draw, backdrop: np.ndarray) -> Layout:
    """A scene from random numbers: the main object first, since it needs the most room."""
    label = int(draw() * len(CLASS_NAMES))
    texture, colour, shape = CLASS_NAMES[label].split()
    radius = between(*SIZES["large"], draw)
    x, y = between(radius, 1 - radius, draw), between(radius, 1 - radius, draw)
    main = Thing(shape, texture, colour, x, y, radius, *make_look(texture, draw), "large")
    things, colours = [main], [other for other in COLOURS if other != colour]
    for _ in range(1 + int(3 * draw() ** 2)):  # few rather than many
        thing = make_other(things, colours, draw)
        if thing is not None:
            things.append(thing)
    side = name_side(main, things[1])
    caption = pick(TEMPLATES[len(things)], draw).format(*things, side=side)
    return Layout(tuple(things), backdrop, caption, label)


def make_other(things: list[Thing], colours: list[str], draw: Draw) -> Thing | None:
    """Another object, of one of these colours, which it uses up; None where there is no room.

    No two objects share a colour, so that a caption can mean only one of them.
    """
    size = pick(("medium", "small"), draw)
    radius = between(*SIZES[size], draw)
    shape, texture = pick(tuple(SHAPES), draw), pick(tuple(TEXTURES), draw)
    number, look = int(draw() * len(colours)), make_look(texture, draw)
    for x, y, r, word in find_places(radius, size, things, draw):
        if all(hypot(x - t.x, y - t.y) >= APART * (r + t.radius) for t in things):
            thing = Thing(shape, texture, colours[number], x, y, r, *look, word)
            if all(are_apart(thing, other) for other in things):
                colours.pop(number)
                return thing
    return None


def find_places(
    radius: float, size: str, things: list[Thing], draw: Draw
) -> Iterator[tuple[float, float, float, str]]:
    """Places to try, each with a radius and its size.

    At last the corner away from the main object: beside it alone, there is always room for the
    smallest.
    """
    for _ in range(TRIES):
        yield between(radius, 1 - radius, draw), between(radius, 1 - radius, draw), radius, size
    smallest = [(SIZES["small"][0], "small")] if len(things) == 1 else []
    for last, word in [(radius, size), *smallest]:
        x, y = (last if middle > 0.5 else 1 - last for middle in (things[0].x, things[0].y))
        yield x, y, last, word


def are_apart(first: Thing, second: Thing) -> bool:
    """Whether a line across that of their centres keeps two objects apart, with room to spare."""
    right, down = second.x - first.x, second.y - first.y
    distance = hypot(right, down) / APART
    if distance > first.radius * REACH[first.shape] + second.radius * REACH[second.shape]:
        return True
    reach = reach_towards(first, right, down) + reach_towards(second, -right, -down)
    return distance**2 * APART > reach


def make_look(texture: str, draw: Draw) -> tuple[float, float]:
    """Turn and shade. Plain ones are darker, lest the mean brightness tell the texture."""
    return between(-TURN, TURN, draw), between(0.68 if texture == "plain" else 0.88, 1, draw)


def between(low: float, high: float, draw: Draw) -> float:
    """The next random number, spread over low to high."""
    return low + (high - low) * draw()


def pick(options: Sequence[str], draw: Draw) -> str:
    """One of these, all equally likely."""
    return options[int(draw() * len(options))]


def name_side(first: Thing, second: Thing) -> str:
    """Where the first is, seen from the second, along the axis on which they are farther apart."""
    right, down = first.x - second.x, first.y - second.y
    if abs(right) > abs(down):
        return "to the right of" if right > 0 else "to the left of"
    return "below" if down > 0 else "above"
