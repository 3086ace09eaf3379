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
    TEXTURES,
    Figure,
    fill,
    list_corners,
    paint,
    put,
)
from clipa_scaling.train.scenes import make_scenes

SEED, READ, PX = 3, 200, 128  # of the scenes read back

# What people mean by the words: degrees of hue, and inequalities in radii, y downwards.
HUES = {"red": 0, "orange": 30, "yellow": 52, "green": 130}
HUES |= {"teal": 182, "blue": 230, "purple": 278, "pink": 330}
TEXTURE_WORDS = ("plain", "striped", "dotted", "checked")
SHAPE_WORDS = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "diamond")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
SIDES = ("to the left of", "to the right of", "above", "below")
BOUNDS = {"small": (0.07, 0.1125), "medium": (0.11, 0.165), "large": (0.22, 0.30)}
TOLERANCE = 0.02  # of a place, in picture widths
FINE, TURNS = np.linspace(-1.3, 1.3, 131), np.linspace(-0.15, 0.15, 7)


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
        "ring": (far >= 0.52) & (far <= 1),
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
    """The smallest upright box around a mask: its middle, and half its longer side."""

    x: float
    y: float
    reach: float


class Model(NamedTuple):
    """A shape as it may look: its box in radii, and its mask stretched to 32 x 32."""

    shape: str
    box: Box
    mask: np.ndarray


def box_of(mask: np.ndarray) -> tuple[Box, np.ndarray]:
    """The box of a mask in pixels, and the part inside, stretched to 32 x 32."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (top, bottom), (left, right) = ((part[0], part[-1] + 1) for part in (rows, columns))
    box = Box((left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2)
    steps = (np.arange(32) + 0.5) / 32
    down, across = top + steps * (bottom - top), left + steps * (right - left)
    return box, mask[np.ix_(down.astype(int), across.astype(int))]


@cache
def make_models() -> list[Model]:
    """Every shape at some turns, as large as paint makes it: its longer side, upright, is 2."""
    models, (x, y) = [], np.meshgrid(FINE, FINE)
    for shape in SHAPE_WORDS:
        upright = to_radii(box_of(is_inside(shape, x, y))[0])
        for turn in TURNS:
            right, down = (upright.reach * part for part in turn_back(x, y, turn))
            box, mask = box_of(is_inside(shape, right + upright.x, down + upright.y))
            models.append(Model(shape, to_radii(box), mask))
    return models


def to_radii(box: Box) -> Box:
    step = FINE[1] - FINE[0]
    return Box(FINE[0] + (box.x - 0.5) * step, FINE[0] + (box.y - 0.5) * step, box.reach * step)


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
    least, most = picture.min(2), picture.max(2)
    r, g, b = np.moveaxis(picture.astype(float), 2, 0)
    hue = np.degrees(np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b))
    distances = [abs((hue - angle + 180) % 360 - 180) for angle in HUES.values()]
    nearest = np.argmin(distances, axis=0)
    found = []
    for number, colour in enumerate(HUES):
        parts, _ = label((least < 110) & (nearest == number))  # backgrounds are light
        sizes = np.bincount(parts.ravel(), minlength=2)[1:]
        if sizes.max() > 0.003 * parts.size:  # strays are edges of other objects
            found.append(read_object(parts == 1 + sizes.argmax(), most, colour))
    return found


def read_object(mask: np.ndarray, brightness: np.ndarray, colour: str) -> Seen:
    box, small = box_of(mask)
    overlaps = [(small & model.mask).sum() / (small | model.mask).sum() for model in make_models()]
    model = make_models()[int(np.argmax(overlaps))]
    assert max(overlaps) > 0.72, f"this {colour} shape is none of {SHAPE_WORDS}"
    radius = box.reach / model.box.reach
    x, y = box.x - radius * model.box.x, box.y - radius * model.box.y
    rows, columns = np.nonzero(mask) + np.array(0.5)
    texture = read_texture((columns - x) / radius, (rows - y) / radius, brightness[mask])
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


# What a caption claims


class Claim(NamedTuple):
    """An object as a caption has it; None where the caption does not say."""

    size: str | None
    texture: str | None
    colour: str | None
    shape: str
    place: str | None


OBJECT = re.compile(
    r"an? (?:(small|medium|large) )?(?:(plain|striped|dotted|checked) )?"
    rf"(?:({'|'.join(HUES)}) )?({'|'.join(SHAPE_WORDS)})"
    r"(?: in the (center|(?:top|middle|bottom) (?:left|center|right)))?"
)
BETWEEN = re.compile(rf"(?:there is |a picture of )?X(?:(?:,| and| with| {'| '.join(SIDES)}) X)+")


def read_caption(caption: str) -> tuple[list[Claim], str | None]:
    """The objects a caption names, in its order, and where the first is seen from the second."""
    rest = OBJECT.sub("X", caption)
    assert BETWEEN.fullmatch(rest), f"{caption!r} says more than this test can check: {rest!r}"
    side = next((words for words in SIDES if f"X {words} X" in rest), None)
    return [Claim(*match.groups()) for match in OBJECT.finditer(caption)], side


def is_true(claim: Claim, seen: Seen) -> bool:
    low, high = BOUNDS[claim.size] if claim.size else (0, 1)
    return (
        low <= seen.radius <= high
        and claim.texture in (None, seen.texture)
        and claim.colour in (None, seen.colour)
        and claim.shape == seen.shape
        and (claim.place is None or is_at(claim.place, seen.x, seen.y))
    )


def is_at(place: str, x: float, y: float) -> bool:
    """Whether a place is in the named ninth of the picture, the middle one of which is smaller."""
    row, column = place.split() if " " in place else ("middle", "center")
    edges = (0, 11 / 30, 19 / 30, 1)
    return all(
        edges[number] - TOLERANCE <= value <= edges[number + 1] + TOLERANCE
        for number, value in ((ROWS.index(row), y), (COLUMNS.index(column), x))
    )


def is_beside(side: str, first: Seen, second: Seen) -> bool:
    """Whether the words hold, and no others would hold much better."""
    right, down = first.x - second.x, first.y - second.y
    along = {"to the left of": -right, "to the right of": right, "above": -down, "below": down}
    return along[side] >= max(along.values()) - 2 * TOLERANCE


def holds(claims: list[Claim], side: str | None, seen: list[Seen]) -> bool:
    """Whether some way to tell which object is which makes every claim true."""
    return len(claims) == len(seen) and any(
        all(map(is_true, claims, order)) and (side is None or is_beside(side, *order[:2]))
        for order in permutations(seen)
    )


@cache
def read_scenes() -> list[tuple[str, list[Seen]]]:
    pictures, captions, _ = make_scenes(SEED, 0, READ, PX)
    return list(zip(captions, map(read_objects, pictures), strict=True))


def test_every_word_of_a_caption_is_true_of_its_picture() -> None:
    false = [
        f"{text}: {seen}" for text, seen in read_scenes() if not holds(*read_caption(text), seen)
    ]
    assert not false, "\n".join(false)


def test_no_other_word_for_the_main_object_is_true_of_a_picture() -> None:
    words = {"size": BOUNDS, "texture": TEXTURE_WORDS, "colour": HUES, "shape": SHAPE_WORDS}
    for caption, seen in read_scenes():
        (first, *others), side = read_caption(caption)
        for field, options in words.items():
            assert getattr(first, field) in options, f"{caption!r} does not tell its {field}"
            for word in {*options} - {getattr(first, field)}:
                wrong = first._replace(**{field: word})
                assert not holds([wrong, *others], side, seen), f"{caption}: {field} {word}"


def test_no_opposite_of_a_place_or_side_is_true_of_a_picture() -> None:
    pairs = [("top", "bottom"), ("left", "right"), SIDES[:2], SIDES[2:]]
    opposite = dict(pairs) | {second: first for first, second in pairs}
    checked = 0
    for caption, seen in read_scenes():
        claims, side = read_caption(caption)
        if side:
            assert not holds(claims, opposite[side], seen), caption
            checked += 1
        place = " ".join(opposite.get(word, word) for word in (claims[0].place or "").split())
        if place not in ("", claims[0].place):
            assert not holds([claims[0]._replace(place=place), *claims[1:]], side, seen), caption
            checked += 1
    assert checked > READ / 2


# Figures


@pytest.mark.parametrize("px", [8, 13, 32, 57, 96, 112, 224])
def test_a_shape_covers_its_area_at_any_size(px: int) -> None:
    areas = {"circle": np.pi, "square": 4, "triangle": np.sqrt(3), "cross": 4 * 0.28 * (2 - 0.28)}
    areas |= {"ring": np.pi * (1 - 0.52**2), "diamond": 1.2}
    for shape, area in areas.items():
        picture = np.full((px, px, 3), 255, np.uint8)
        paint(picture, Figure(shape, "plain", "red", 0.503, 0.497, 0.26, 0.1, 1.0))
        covered = (255 - picture[..., 2].astype(float)).sum() / (255 - 30) / px**2
        assert covered == pytest.approx(area * 0.26**2, rel=0.05), shape


@pytest.mark.parametrize("texture", TEXTURES)
def test_patches_left_out_of_a_texture_would_not_have_shown(texture: str) -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        outline, patches, _ = list_corners(texture, shape)
        for _ in range(40):
            turn, radius = rng.uniform(-0.15, 0.15), rng.uniform(0.08, 0.28) * RASTER
            c, s = radius * np.cos(turn), radius * np.sin(turn)
            place = np.array([(c, s), (-s, c), rng.uniform(1, 1.4, 2) * radius])
            # As wide as an upright shape would need, which cuts some on the right.
            masks = np.zeros((3, 3 * RASTER // 4, int(place[2, 0] + radius)), np.uint8)
            for mask, polygons in zip(masks, (outline, TEXTURES[texture], patches), strict=True):
                fill(mask, put(polygons, place))
            assert np.array_equal(masks[1] & masks[0], masks[2] & masks[0])


def test_a_picture_that_would_be_painted_as_a_copy_is_refused() -> None:
    figure = Figure("star", "plain", "red", 0.5, 0.5, 0.3, 0.0, 1.0)
    with pytest.raises(ValueError, match="Unable to avoid creating a copy"):
        paint(np.zeros((3, 32, 32), np.uint8).transpose(1, 2, 0), figure)
