"""Scenes: a function of seed and index alone, placed freely, with whole and known captions."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy.stats import chi2

from clipa_scaling.source import SCENES_VERSION
from clipa_scaling.train.paint import COLOURS, SHAPES, TEXTURES, cover_pixels, paint, paint_backdrop
from clipa_scaling.train.scenes import (
    APART,
    CLASS_NAMES,
    SIZES,
    Layout,
    make_layouts,
    make_numbers,
    make_scene,
    make_scenes,
)
from clipa_scaling.train.tokenize import encode_counted, text_lengths

MANY = 8000  # layouts, enough to see uneven odds


@cache
def layouts() -> list[Layout]:
    return make_layouts(11, 0, MANY)


def is_likely(counts: np.ndarray, expected: np.ndarray | float) -> bool:
    """Whether counts pass for draws with these expectations, at p = 0.0001."""
    surprise = ((counts - expected) ** 2 / expected).sum()
    return bool(surprise < chi2.ppf(1 - 1e-4, counts.size - 1))


# The same everywhere


def test_scenes_are_the_same_in_whatever_chunks() -> None:
    pictures, captions, labels = make_scenes(5, 40, 30, 24)
    first, second = make_scenes(5, 40, 7, 24), make_scenes(5, 47, 23, 24)
    assert np.array_equal(pictures, np.concatenate([first[0], second[0]]))
    assert captions == first[1] + second[1]
    assert np.array_equal(labels, np.concatenate([first[2], second[2]]))
    for number in (0, 6, 7, 29):
        alone = make_scene(5, 40 + number, 24)
        assert np.array_equal(alone.picture, pictures[number])
        assert (alone.caption, alone.label) == (captions[number], labels[number])


def test_no_scenes_are_none() -> None:
    pictures, captions, labels = make_scenes(0, 9, 0, 16)
    assert pictures.shape == (0, 16, 16, 3) and captions == [] and labels.shape == (0,)


def test_seeds_and_indices_share_no_scene() -> None:
    seeds = (0, 1, 2, -1, 2**32, 2**63, 0x9E3779B97F4A7C15)
    places = {
        (layout.things[0].x, layout.things[0].y)
        for seed in seeds
        for layout in make_layouts(seed, 0, 1000)
    }
    assert len(places) == 1000 * len(seeds)
    pictures = np.concatenate([make_scenes(seed, 0, 50, 16)[0] for seed in seeds])
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_numbers_are_splitmix64_uniform_and_unrelated_to_their_neighbours() -> None:
    # The published generator's first value from state 0 keys seed 0; mixed twice more by the
    # increments of index 0 and column 1.
    key = 0xE220A8397B1DCDAF
    expected = mix_slowly(mix_slowly(key) + 0x9E3779B97F4A7C15)
    numbers = make_numbers(0, 0, 2000)
    assert numbers[0, 0] == (expected >> 11) / 2**53
    assert numbers.min() >= 0 and numbers.max() < 1
    assert is_likely(np.histogram(numbers, 100, (0, 1))[0], numbers.size / 100)
    neighbours = (numbers[:-1, 1:], numbers[1:, :-1], make_numbers(1, 0, 2000)[1:, 1:])
    for other in neighbours:
        assert abs(np.corrcoef(numbers[1:, 1:].ravel(), other.ravel())[0, 1]) < 0.008  # 4.5 sigma


def mix_slowly(bits: int) -> int:
    """splitmix64's finaliser, in Python's unbounded integers."""
    bits %= 2**64
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return bits ^ (bits >> 31)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, -1, 4, 32), "make_scenes: start=-1 is too small; allowed: 0 or more"),
        ((0, 0, -4, 32), "make_scenes: count=-4 is too small; allowed: 0 or more"),
        ((0, 0, 4, 7), "make_scenes: px=7 is too small; allowed: 8 or more"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_scenes(*arguments)


def test_a_single_scene_refuses_bad_arguments_too() -> None:
    message = "make_scenes: px=0 is too small; allowed: 8 or more"
    with pytest.raises(ValueError, match=f"^{message}$"):
        make_scene(0, 0, 0)


# At any size


# 224 and 81 share no raster with the other, so shapes differ by half of a fine pixel.
@pytest.mark.parametrize(
    ("large", "small", "bound"),
    [(96, 48, 1), (96, 32, 1), (64, 32, 1), (48, 24, 1), (224, 112, 3), (224, 32, 3), (81, 27, 3)],
)
def test_a_scene_is_the_same_picture_at_two_sizes(large: int, small: int, bound: float) -> None:
    fine, captions, labels = make_scenes(3, 0, 40, large)
    coarse, same_captions, same_labels = make_scenes(3, 0, 40, small)
    assert captions == same_captions and np.array_equal(labels, same_labels)
    times = large // small
    shrunk = fine.reshape(40, small, times, small, times, 3).mean((2, 4))
    distances = np.array([abs(shrunk - picture).mean((1, 2, 3)) for picture in coarse])  # of 255
    assert distances.diagonal().max() < bound
    assert (distances + np.diag([255.0] * 40)).min() > 10  # other scenes are far away


@pytest.mark.parametrize("px", [8, 9, 31, 97, 224])
def test_a_picture_of_any_size_shows_every_object(px: int) -> None:
    for number, layout in enumerate(make_layouts(3, 0, 20)):
        picture = make_scene(3, number, px).picture
        assert picture.shape == (px, px, 3) and picture.dtype == np.uint8
        for missing in layout.things:
            poorer = np.empty_like(picture)
            paint_backdrop(poorer, layout.backdrop)
            for thing in layout.things:
                if thing is not missing:
                    paint(poorer, thing)
            assert abs(picture - poorer.astype(int)).max() > 25, (number, missing)


def test_backgrounds_are_light() -> None:
    # Objects are known by a channel below 110 in every colour.
    dark = [number for number, layout in enumerate(layouts()) if layout.backdrop.min() < 185]
    assert not dark, f"{len(dark)} of {MANY} scenes: {dark[:10]}"


# Objects


def test_a_scene_has_one_large_object_and_one_to_three_smaller_ones() -> None:
    counts = Counter(len(layout.things) for layout in layouts())
    assert set(counts) == {2, 3, 4} and min(counts.values()) > MANY / 10
    for layout in layouts():
        sizes = [thing.size for thing in layout.things]
        assert sizes[0] == "large" and "large" not in sizes[1:]
        assert len({thing.colour for thing in layout.things}) == len(sizes)
        for thing in layout.things:
            low, high = SIZES[thing.size]
            assert low <= thing.radius <= high
            assert thing.radius <= min(thing.x, thing.y, 1 - thing.x, 1 - thing.y) + 1e-12


def test_classes_are_known_and_equally_frequent() -> None:
    assert len(set(CLASS_NAMES)) == len(TEXTURES) * len(COLOURS) * len(SHAPES)
    labels = np.array([layout.label for layout in layouts()])
    counts = np.bincount(labels, minlength=len(CLASS_NAMES))
    assert counts.min() > 0 and is_likely(counts, MANY / len(CLASS_NAMES))
    _, captions, drawn = make_scenes(11, 0, 500, 8)
    assert drawn.dtype == np.int64 and np.array_equal(drawn, labels[:500])
    for caption, label in zip(captions, drawn, strict=True):
        first = re.search(r"\ba large (\w+ \w+ \w+)", caption)
        assert first is not None and first[1] == CLASS_NAMES[label], caption


@pytest.mark.parametrize("word", ["texture", "shape", "size", "colour"])
def test_every_word_is_equally_frequent_among_the_smaller_objects(word: str) -> None:
    others = [thing for layout in layouts() for thing in layout.things[1:2]]
    counts = np.array(list(Counter(getattr(thing, word) for thing in others).values()))
    expected = {"texture": len(TEXTURES), "shape": len(SHAPES), "size": 2, "colour": len(COLOURS)}
    assert len(counts) == expected[word]
    if word == "size":  # a small one finds room more often
        assert abs(counts - len(others) / 2).max() < 0.05 * len(others)
    else:
        assert is_likely(counts, len(others) / len(counts))


def test_objects_never_overlap() -> None:
    hidden = []
    for number, layout in enumerate(layouts()[:1000]):
        cover = np.zeros((96, 96), int)
        for thing in layout.things:
            where, (covered, _) = cover_pixels(thing, 96)
            cover[where] += covered
        if cover.max() > 255:
            hidden.append(number)
    assert not hidden, f"{len(hidden)} of 1000 scenes: {hidden[:10]}"


# Places


def main_places() -> tuple[np.ndarray, np.ndarray]:
    """(M, 2) centres of main objects, and their radii."""
    main = [layout.things[0] for layout in layouts()]
    return np.array([(thing.x, thing.y) for thing in main]), np.array([t.radius for t in main])


def test_main_objects_are_everywhere_equally_often() -> None:
    places, radii = main_places()
    shares = (places - radii[:, None]) / (1 - 2 * radii[:, None])  # of where they can be
    assert len(np.unique(places)) == places.size  # continuous
    for axis in (0, 1):
        assert is_likely(np.histogram(shares[:, axis], 60, (0, 1))[0], MANY / 60)
    column, row = (12 * shares.T).astype(int)
    assert is_likely(np.bincount(12 * row + column, minlength=144), MANY / 144)


@cache
def found_and_random() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Centres of main objects and of the next, and those of ten random scenes for each.

    Left out where sixteen tries found no free place, so that the next went into a corner.
    """
    rng = np.random.default_rng(0)
    places, radii = main_places()
    next_ones = [layout.things[1] for layout in layouts()]
    next_places = np.array([(thing.x, thing.y) for thing in next_ones])
    next_radii = np.array([thing.radius for thing in next_ones])
    gaps = np.minimum(next_places, 1 - next_places) - next_radii[:, None]
    cornered = gaps.max(1) < 1e-9
    assert cornered.mean() < 0.05
    randoms, next_randoms = [], []
    for _ in range(10):
        randoms.append(radii[:, None] + (1 - 2 * radii[:, None]) * rng.random((MANY, 2)))
        tries = rng.random((MANY, 16, 2)) * (1 - 2 * next_radii[:, None, None])
        tries += next_radii[:, None, None]
        free = np.hypot(*np.moveaxis(tries - places[:, None], 2, 0)) >= (
            APART * (radii + next_radii)[:, None]
        )
        next_randoms.append(tries[np.arange(MANY), free.argmax(1)][free.any(1)])
    return {
        "main": (places, np.concatenate(randoms)),
        "next": (next_places[~cornered], np.concatenate(next_randoms)),
    }


@pytest.mark.parametrize("which", ["main", "next"])
@pytest.mark.parametrize("grid", [2, 3, 4, 5, 6, 7, 8, 14])
def test_no_patch_grid_fits_the_places_of_objects(which: str, grid: int) -> None:
    found, random = (places * grid % 1 for places in found_and_random()[which])  # within a cell
    for axis in (0, 1):
        counts, expected = (np.histogram(part[:, axis], 12, (0, 1))[0] for part in (found, random))
        assert is_likely(counts, expected * len(found) / len(random))


# Captions


def test_captions_have_8_to_30_words_and_at_most_24_tokens() -> None:
    captions = [layout.caption for layout in layouts()]
    words = [len(caption.split()) for caption in captions]
    assert min(words) >= 8 and max(words) <= 30
    ids, cut = encode_counted(captions)
    assert cut == 0 and text_lengths(ids).max() <= 24


def test_captions_are_of_plain_words_with_the_right_articles() -> None:
    for layout in layouts():
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", layout.caption), layout.caption
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", layout.caption), layout.caption


def test_captions_name_every_object_once() -> None:
    for layout in layouts():
        named = re.findall(rf"\b(?:{'|'.join(SHAPES)})\b", layout.caption)
        assert named == [thing.shape for thing in layout.things], layout.caption


def test_captions_rarely_repeat() -> None:
    assert len({layout.caption for layout in layouts()}) > 0.97 * MANY


# Their version


GOLDEN = (2, "563631ab2d92a4bb")


def test_scenes_are_those_of_their_version() -> None:
    first = make_scene(0, 0, 64)
    pictures, captions, labels = make_scenes(0, 0, 200, 32)
    seen = first.picture.tobytes() + pictures.tobytes() + labels.astype("<i8").tobytes()
    digest = hashlib.sha256(seen + "\n".join(captions).encode()).hexdigest()[:16]
    version = max(SCENES_VERSION, GOLDEN[0] + 1)
    assert (SCENES_VERSION, digest) == GOLDEN, (
        "generated pictures or captions changed. If they were meant to, set SCENES_VERSION = "
        f"{version} in clipa_scaling/source.py, so that packs of the old ones are not taken for "
        f'them, then GOLDEN = ({version}, "{digest}") here'
    )
