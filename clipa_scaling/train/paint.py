"""Figures painted onto a picture: the same at any number of pixels, but for their detail."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin

import cv2
import numpy as np

RASTER = 192  # least fine pixels per picture side; a multiple of 16, 24, 32, 48, 64 and 96
SHIFT = 8  # bits of a fine pixel in the corners of polygons
DARK = 0.22  # of the colour's own brightness: the other ink of a texture
EDGE = 1.5  # radii that textures cover to each side, beyond every shape's corners


def fit(*polygons: list[tuple[float, float]]) -> np.ndarray:
    """(polygons, corners, 2), as large as fits in -1 to 1; the further ones are holes."""
    corners = np.array(polygons)
    low, high = corners[0].min(0), corners[0].max(0)
    return np.asarray((corners - (low + high) / 2) / ((high - low).max() / 2))


def round_corners(count: int, *radii: float) -> list[tuple[float, float]]:
    """Corners at equal angles from the top on, at these distances in turn."""
    angles = [2 * pi * k / count for k in range(count)]
    lengths = [radii[k % len(radii)] for k in range(count)]
    return [(r * sin(a), -r * cos(a)) for a, r in zip(angles, lengths, strict=True)]


def cross_corners(arm: float) -> list[tuple[float, float]]:
    """Corners of an upright cross whose arms are twice this wide."""
    a = arm
    quarter = [(a, -1.0), (a, -a), (1.0, -a)]
    turned = [quarter]
    for _ in range(3):
        turned.append([(-y, x) for x, y in turned[-1]])
    return [corner for part in turned for corner in part]


def heart_corners(count: int) -> list[tuple[float, float]]:
    """Corners along a heart, of which one is its dent and one its tip."""
    angles = [2 * pi * k / count for k in range(count)]
    return [
        (16 * sin(a) ** 3, 5 * cos(2 * a) + 2 * cos(3 * a) + cos(4 * a) - 13 * cos(a))
        for a in angles
    ]


def lattice(step: float, *patch: tuple[float, float], every: int = 1) -> np.ndarray:
    """A patch repeated at each point of a square lattice, or of every second one as on a board."""
    reach = int(EDGE / step) + 1
    points = [
        (step * i, step * j)
        for i in range(-reach, reach + 1)
        for j in range(-reach, reach + 1)
        if (i + j) % every == 0
    ]
    return np.asarray(np.array(points)[:, None] + np.array(patch))


def rectangle(width: float, height: float) -> list[tuple[float, float]]:
    """Corners of an upright rectangle around the origin."""
    x, y = width / 2, height / 2
    return [(-x, -y), (x, -y), (x, y), (-x, y)]


# All darker than the backgrounds, so that a shape's outline has one sign in every colour: with half
# the pictures on gray, small models learned colours only. Hues apart, since lightness goes to
# textures: no brown, which is a dark orange.
COLOURS = {
    "red": (215, 30, 30),
    "orange": (230, 115, 0),
    "yellow": (220, 185, 0),
    "green": (30, 150, 50),
    "teal": (0, 150, 160),
    "blue": (40, 70, 220),
    "purple": (130, 40, 190),
    "pink": (235, 80, 160),
}
# Each as far to the sides, or up and down, as a circle of radius 1.
SHAPES = {
    "circle": fit(round_corners(48, 1.0)),
    "square": fit(rectangle(2, 2)),
    "triangle": fit(round_corners(3, 1.0)),
    "star": fit(round_corners(10, 1.0, 0.42)),
    "cross": fit(cross_corners(0.28)),
    "ring": fit(round_corners(48, 1.0), round_corners(48, 0.52)),
    "heart": fit(heart_corners(48)),
    "diamond": fit(round_corners(4, 1.0, 0.6)),
}
REACH = {name: float(np.hypot(*corners.T).max()) for name, corners in SHAPES.items()}
# The dark parts, in radii; all alike in period, so that they ask for the same number of pixels.
TEXTURES = {
    "plain": np.zeros((0, 3, 2)),
    "striped": np.array([[(x, 0.0)] for x in np.arange(-2, 3) * 0.7]) + rectangle(0.33, 2 * EDGE),
    "dotted": lattice(0.62, *round_corners(12, 0.22)),
    "checked": lattice(0.42, *rectangle(0.42, 0.42), every=2),
}


@dataclass(frozen=True)
class Figure:
    """One object: words of SHAPES, TEXTURES and COLOURS, where it is, and how it looks.

    x, y of the middle and radius in picture widths from the top left corner; radius is half its
    width or height, the larger; turn in radians, clockwise; shade multiplies the colour.
    """

    shape: str
    texture: str
    colour: str
    x: float
    y: float
    radius: float
    turn: float
    shade: float


def reach_towards(figure: Figure, right: float, down: float) -> float:
    """How far a figure reaches from its middle in a direction, times that direction's length."""
    c, s = cos(figure.turn), sin(figure.turn)
    along = SHAPES[figure.shape][0] @ (c * right + s * down, c * down - s * right)
    return figure.radius * float(along.max())


def paint(picture: np.ndarray, figure: Figure) -> None:
    """Draw a figure into a picture (px, px, 3) uint8, each pixel by the share it covers of it."""
    (rows, columns), shares = cover_pixels(figure, len(picture))
    bright = [int(figure.shade * part) for part in COLOURS[figure.colour]]
    inks = np.array((bright, [int(DARK * part) for part in bright]), np.uint16)
    # Pixels by channels in one axis: numpy is slow where the innermost has three.
    bright_W, deep_W = inks[:, None].repeat(shares.shape[2], axis=1).reshape(2, -1)
    cover_HW, dark_HW = shares.repeat(3, axis=2)
    flat = picture.reshape(len(picture), -1, copy=False)
    region_HW = flat[rows, 3 * columns.start : 3 * columns.stop]
    # The weights of the three colours add up to 255, so that sums stay below 2^16.
    mixed_HW = region_HW * (255 - cover_HW) + bright_W * (cover_HW - dark_HW) + deep_W * dark_HW
    region_HW[:] = (mixed_HW + 127) // 255


def cover_pixels(figure: Figure, px: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """The rows and columns of px a figure touches; how much it and its dark parts cover there.

    (2, height, width) uint16, of 255. Polygons are filled on finer pixels, then averaged: the
    antialiasing of cv2 widens a shape by half a pixel, so makes other pictures at other sizes.
    """
    fine = max(2, -(-RASTER // px))
    reach = figure.radius * REACH[figure.shape]
    columns, rows = (
        slice(max(0, int((middle - reach) * px)), min(px, int((middle + reach) * px) + 1))
        for middle in (figure.x, figure.y)
    )
    height, width = rows.stop - rows.start, columns.stop - columns.start
    unit = fine * px
    c, s = (unit * figure.radius * part for part in (cos(figure.turn), sin(figure.turn)))
    # cv2 counts from the middle of the first pixel.
    middle = figure.x * unit - columns.start * fine - 0.5, figure.y * unit - rows.start * fine - 0.5
    outline, patches, corners = list_corners(figure.texture, figure.shape)
    whole = put(corners, np.array([(c, s), (-s, c), middle]))
    masks = np.zeros((2, height * fine, width * fine), np.uint8)
    fill(masks[0], whole[: outline.size // 2].reshape(outline.shape))
    fill(masks[1], whole[outline.size // 2 :].reshape(patches.shape))
    masks[1] &= masks[0]
    coarse = cv2.resize(
        masks.reshape(-1, width * fine), (width, 2 * height), interpolation=cv2.INTER_AREA
    )
    return (rows, columns), coarse.astype(np.uint16).reshape(2, height, width)


@cache
def list_corners(texture: str, shape: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The polygons of a shape, the patches of a texture that come near it, and all their corners.

    Patches farther away would only take time.
    """
    outline, patches = SHAPES[shape], TEXTURES[texture]
    if texture != "striped":  # cv2 widens a stripe that is half outside, as a dropped one may be
        middle = EDGE * 100  # of masks with 100 pixels to a radius; near is within 15
        place = np.array([(100, 0), (0, 100), (middle, middle)])
        masks = np.zeros((1 + len(patches), round(2 * middle), round(2 * middle)), np.uint8)
        for mask, polygons in zip(masks, (outline, *patches[:, None]), strict=True):
            fill(mask, put(polygons, place))
        near = cv2.dilate(masks[0], np.ones((31, 31), np.uint8)) > 0
        patches = patches[(masks[1:, near] > 0).any(1)]
    return outline, patches, np.concatenate([outline.reshape(-1, 2), patches.reshape(-1, 2)])


def put(corners: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Corners in radii to corners in pixels of a mask, int32 with SHIFT binary places.

    place: (3, 2), where a step to the right, a step down and the middle come to lie.
    """
    points = (corners @ place[:2] + place[2]) * 2**SHIFT
    return np.asarray(np.rint(points), np.int32)


def fill(mask: np.ndarray, polygons: np.ndarray) -> None:
    """255 into a mask inside the polygons, of which the overlaps count as outside."""
    cv2.fillPoly(mask, list(polygons), 255, shift=SHIFT)


def paint_backdrop(picture: np.ndarray, colours: np.ndarray) -> None:
    """Fill a picture with a coarse grid of colours, (n, n, 3) uint8, smoothly joined."""
    size = picture.shape[1::-1]
    cv2.resize(colours, size, dst=picture, interpolation=cv2.INTER_LINEAR_EXACT)
