"""A picture shows what its caption says, read back from its pixels by rules of this file's own."""

from __future__ import annotations

import re
from functools import cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import label

from clipa_scaling.train.paint import (
    RASTER,
    SHAPES,
    SHIFT,
    TEXTURES,
    Figure,
    cover_pixels,
    fill,
    find_patches,
    paint,
)
from clipa_scaling.train.scenes import make_layouts, make_scene, make_scenes

PX, READ = 160, 250  # of the pictures read back; how many

# What people mean by the words: degrees of hue, and inequalities in radii, y downwards.
HUES = {"red": 0, "orange": 30, "yellow": 52, "green": 130}
HUES |= {"teal": 182, "blue": 230, "purple": 278, "pink": 330}
TEXTURE_WORDS = ("plain", "striped", "dotted", "checked")
SHAPE_WORDS = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")
SIDES = ("to the left of", "to the right of", "above", "below")
BOUNDS = {"small": (0.075, 0.11), "medium": (0.115, 0.16), "large": (0.22, 0.30)}
TOLERANCE = 0.02  # of a place, in picture widths
FINE = np.linspace(-1.3, 1.3, 131)
TURNS = np.linspace(-0.15, 0.15, 7)


def is_inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in an upright shape, somewhere near the middle."""
    far, widest, narrowest = np.hypot(x, y), np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    tip = abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)  # angle to the nearest
    dent_x, dent_y = 0.42 * np.cos(np.pi / 5), 0.42 * np.sin(np.pi / 5)
    rules = {
        "circle": far <= 1,
        "square": widest <= 1,
        "triangle": (y <= 0.87) & (np.sqrt(3) * abs(x) - y <= 0.87),
        "star": far * np.sin(tip) * (1 - dent_x) <= (1 - far * np.cos(tip)) * dent_y,
        "cross": (narrowest <= 0.28) & (widest <= 1),
        "ring": (0.52 <= far) & (far <= 1),
        "heart": (x**2 + y**2 - 1) ** 3 <= -(x**2) * y**3 * 1.8,
        "diamond": abs(x) / 0.6 + abs(y) <= 1,
    }
    return np.asarray(rules[shape])


def is_dark(texture: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points of an upright shape lie in the dark parts of its texture."""
    row, column = np.floor(y / 0.42 + 0.5), np.floor(x / 0.42 + 0.5)
    dot_x, dot_y = (z - 0.62 * np.round(z / 0.62) for z in (x, y))
    rules = {
        "striped": abs(x - 0.7 * np.round(x / 0.7)) <= 0.165,
        "dotted": np.hypot(dot_x, dot_y) <= 0.22,
        "checked": (row + column) % 2 == 0,
    }
    return np.asarray(rules[texture])


class Box(NamedTuple):
    """The smallest upright box around a mask: first and last column and row, in some unit."""

    left: float
    right: float
    top: float
    bottom: float

    @property
    def reach(self) -> float:
        return max(self.right - self.left, self.bottom - self.top) / 2


class Model(NamedTuple):
    """A shape as it may look: its word, its turn, its box in radii, its mask stretched to 32 x 32."""

    shape: str
    turn: float
    box: Box
    mask: np.ndarray


def box_of(mask: np.ndarray) -> tuple[Box, np.ndarray]:
    """The box of a mask in pixels, and the part inside, stretched to 32 x 32."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = Box(columns[0], columns[-1] + 1, rows[0], rows[-1] + 1)
    steps = (np.arange(32) + 0.5) / 32
    down = (box.top + steps * (box.bottom - box.top)).astype(int)
    right = (box.left + steps * (box.right - box.left)).astype(int)
    return box, mask[np.ix_(down, right)]


@cache
def make_models() -> list[Model]:
    """Every shape at some turns, as large as paint makes it: its longer side, upright, is 2."""
    models = []
    x, y = np.meshgrid(FINE, FINE)
    for shape in SHAPE_WORDS:
        upright = to_radii(box_of(is_inside(shape, x, y))[0])
        middle_x, middle_y = (upright.left + upright.right) / 2, (upright.top + upright.bottom) / 2
        for turn in TURNS:
            right, down = (upright.reach * part for part in turn_back(x, y, turn))
            box, mask = box_of(is_inside(shape, right + middle_x, down + middle_y))
            models.append(Model(shape, float(turn), to_radii(box), mask))
    return models


def to_radii(box: Box) -> Box:
    step = FINE[1] - FINE[0]
    return Box(*(float(FINE[0] + (edge - 0.5) * step) for edge in box))


def turn_back(x: np.ndarray, y: np.ndarray, turn: float) -> tuple[np.ndarray, np.ndarray]:
    c, s = np.cos(turn), np.sin(turn)
    return c * x + s * y, c * y - s * x


class Seen(NamedTuple):
    """An object read back from pixels; radius, x and y in picture widths."""

    shape: str
    texture: str
    colour: str
    radius: float
    x: float
    y: float


def read_objects(picture: np.ndarray) -> list[Seen]:
    """The objects of a picture, one for each colour that more than a few pixels have."""
    least, most = picture.min(2).astype(int), picture.max(2).astype(int)
    figures = least < 110  # backgrounds are light in every channel
    r, g, b = np.moveaxis(picture.astype(float), 2, 0)
    hue = np.degrees(np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b))
    distances = [abs((hue - angle + 180) % 360 - 180) for angle in HUES.values()]
    nearest = np.argmin(distances, axis=0)
    found = []
    for number, colour in enumerate(HUES):
        parts, count = label(figures & (nearest == number))
        if not count:
            continue
        sizes = np.bincount(parts.ravel())
        largest = 1 + int(np.argmax(sizes[1:]))  # strays are edges of other objects
        if sizes[largest] > 0.003 * parts.size:
            found.append(read_object(parts == largest, most, colour))
    return found


def read_object(mask: np.ndarray, brightness: np.ndarray, colour: str) -> Seen:
    box, small = box_of(mask)
    overlaps = [(small & model.mask).sum() / (small | model.mask).sum() for model in make_models()]
    model = make_models()[int(np.argmax(overlaps))]
    radius = box.reach / model.box.reach
    x = (box.left + box.right) / 2 - radius * (model.box.left + model.box.right) / 2
    y = (box.top + box.bottom) / 2 - radius * (model.box.top + model.box.bottom) / 2
    rows, columns = np.nonzero(mask)
    texture = read_texture(
        (columns + 0.5 - x) / radius, (rows + 0.5 - y) / radius, brightness[rows, columns]
    )
    return Seen(model.shape, texture, colour, *(z / len(mask) for z in (radius, x, y)))


def read_texture(x: np.ndarray, y: np.ndarray, brightness: np.ndarray) -> str:
    """The texture that tells dark from bright best, at the turn that suits it best."""
    dark = brightness < 0.55 * np.quantile(brightness, 0.95)
    if dark.mean() < 0.1:
        return "plain"
    agreement = {
        (texture, turn): (is_dark(texture, *turn_back(x, y, turn)) == dark).mean()
        for texture in TEXTURE_WORDS[1:]
        for turn in TURNS
    }
    return max(agreement, key=lambda key: agreement[key])[0]
