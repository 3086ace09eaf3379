"""Text tokens: exact counts, order kept, uniform where it is claimed, words kept by their class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from clipa_scaling.train.reduce import METHODS, reduce_ids
from clipa_scaling.train.tokenize import END, PACKED_LENGTH, START, cut_ids, encode_texts

RARE = 1e-3  # chance that a fair draw fails a test of its uniformity; seeds are fixed
LENGTHS = np.arange(76)  # words that a packed caption may have


def pack_words(words: Sequence[Sequence[int]]) -> np.ndarray:
    """(M, 77) uint16 packed ids of captions with these word ids."""
    ids = np.zeros((len(words), PACKED_LENGTH), np.uint16)
    for row, caption in enumerate(words):
        ids[row, : len(caption) + 2] = [START, *caption, END]
    return ids


def number_words(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Captions of so many words each, word n having the id n, from 0 on."""
    return pack_words([range(length) for length in lengths])


def class_words(ids: np.ndarray, seed: int = 0) -> np.ndarray:
    """(M, 77) random classes, 1 to 4, of captions made by `number_words`."""
    drawn = np.random.default_rng(seed).integers(1, 5, ids.shape).astype(np.uint8)
    ends = (ids == END).argmax(axis=1)[:, None]
    place = np.arange(ids.shape[1])
    return np.where((place > 0) & (place < ends), drawn, 0).astype(np.uint8)


def kept_words(ids_MT: np.ndarray) -> list[tuple[int, ...]]:
    """The words of reduced captions, which must be in their frame: start, end, zeros."""
    words = []
    for row in ids_MT.tolist():
        end = row.index(END)
        assert row[0] == START and not any(row[end + 1 :])
        words.append(tuple(row[1:end]))
    return words


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tokens", range(2, PACKED_LENGTH + 1))
def test_every_length_is_exact_and_in_order(method: str, tokens: int) -> None:
    ids = number_words(LENGTHS)
    out = reduce_ids(ids, tokens, method, 0, LENGTHS + 2**40, class_words(ids))
    assert out.shape == (76, tokens) and out.dtype == np.int64
    for length, words in zip(LENGTHS.tolist(), kept_words(out), strict=True):
        assert len(words) == min(length, tokens - 2)
        assert all(np.diff(words) > 0) and {*words} <= {*range(length)}


@given(
    words=st.lists(st.lists(st.integers(0, END), max_size=75), min_size=1, max_size=4),
    tokens=st.integers(2, PACKED_LENGTH),
    seed=st.integers(0, 9),
)
def test_any_ids_stay_a_subsequence_also_inner_zeros_and_end_tokens(
    words: list[list[int]], tokens: int, seed: int
) -> None:
    ids = pack_words(words)
    classes = np.zeros(ids.shape, np.uint8)
    for row, caption in enumerate(words):
        classes[row, 1 : len(caption) + 1] = [1 + word % 4 for word in caption]
    for method in METHODS:
        out = reduce_ids(ids, tokens, method, seed, np.arange(len(words)), classes)
        for caption, row in zip(words, out.tolist(), strict=True):
            count = min(len(caption), tokens - 2)
            assert [row[0], *row[count + 1 :]] == [START, END, *[0] * (tokens - count - 2)]
            rest = iter(caption)
            assert all(word in rest for word in row[1 : count + 1])


@pytest.mark.parametrize("method", METHODS)
def test_what_fits_is_the_same_under_every_method(method: str) -> None:
    ids = encode_texts(["", "a dog", "wow !!! !", "four words of text"])
    for tokens in (6, 20, 77):
        out = reduce_ids(ids, tokens, method, 0, np.arange(4), class_words(ids))
        assert np.array_equal(out, cut_ids(ids, tokens))


def test_truncate_keeps_the_first_words() -> None:
    ids = number_words(LENGTHS)
    for tokens in (2, 3, 16, 77):
        out = reduce_ids(ids, tokens, "truncate", 0, LENGTHS)
        assert np.array_equal(out, cut_ids(ids, tokens))
        assert kept_words(out)[-1] == tuple(range(tokens - 2))


@pytest.mark.parametrize(("length", "room", "subsets"), [(6, 3, 20), (5, 1, 5), (10, 7, 120)])
def test_random_is_uniform_over_all_subsets(length: int, room: int, subsets: int) -> None:
    count = 100 * subsets
    ids = number_words([length] * count)
    kept = Counter(kept_words(reduce_ids(ids, room + 2, "random", 8, np.arange(count))))
    assert {*kept} == {*combinations(range(length), room)}
    assert chisquare([*kept.values()]).pvalue > RARE


@pytest.mark.parametrize(("length", "room"), [(9, 4), (5, 4), (75, 3), (20, 1)])
def test_block_draws_every_window_equally_often_the_last_too(length: int, room: int) -> None:
    windows = length - room + 1
    count = 200 * windows
    ids = number_words([length] * count)
    kept = Counter(kept_words(reduce_ids(ids, room + 2, "block", 8, np.arange(count))))
    assert {*kept} == {tuple(range(first, first + room)) for first in range(windows)}
    assert chisquare([*kept.values()]).pvalue > RARE


def test_syntax_keeps_nouns_then_adjectives_then_verbs_the_earlier_of_equals() -> None:
    ids = number_words([8])
    classes = np.zeros(ids.shape, np.uint8)
    classes[0, 1:9] = [4, 2, 1, 3, 4, 1, 2, 4]
    wanted = {1: [2], 2: [2, 5], 3: [1, 2, 5], 4: [1, 2, 5, 6], 5: [1, 2, 3, 5, 6]}
    wanted |= {6: [0, 1, 2, 3, 5, 6], 7: [0, 1, 2, 3, 4, 5, 6], 8: [*range(8)]}
    for room, words in wanted.items():
        out = reduce_ids(ids, room + 2, "syntax", 0, np.arange(1), classes)
        assert kept_words(out) == [tuple(words)]


@pytest.mark.parametrize("tokens", [3, 8, 20, 60])
def test_syntax_is_a_stable_sort_by_class(tokens: int) -> None:
    ids = number_words(LENGTHS)
    classes = class_words(ids, tokens)
    out = reduce_ids(ids, tokens, "syntax", 0, LENGTHS, classes)
    for length, row, words in zip(LENGTHS.tolist(), classes.tolist(), kept_words(out), strict=True):
        ranked = sorted(range(length), key=row[1:].__getitem__)
        assert words == tuple(sorted(ranked[: tokens - 2]))


def test_syntax_takes_no_classes_of_other_captions() -> None:
    ids = number_words([8, 9])
    with pytest.raises(AssertionError, match="classes of other captions"):
        reduce_ids(ids, 5, "syntax", 0, np.arange(2), class_words(ids)[::-1])


@pytest.mark.parametrize("method", METHODS)
def test_any_split_of_a_batch_and_any_start_give_the_same(method: str) -> None:
    ids = number_words(LENGTHS)
    classes, sample = class_words(ids), np.arange(5000, 5076)
    whole = reduce_ids(ids, 9, method, 3, sample, classes)
    for cut in (1, 8, 40):
        parts = [
            reduce_ids(ids[rows], 9, method, 3, torch.from_numpy(sample[rows]), classes[rows])
            for rows in (slice(None, cut), slice(cut, None))
        ]
        assert np.array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(0).permutation(76)
    again = reduce_ids(ids[order], 9, method, 3, sample[order], classes[order])
    assert np.array_equal(again, whole[order])


def test_seeds_and_methods_draw_apart() -> None:
    ids, sample = number_words([30] * 400), np.arange(400)
    drawn = [
        reduce_ids(ids, 3, method, seed, sample)[:, 1]
        for method in ("random", "block")
        for seed in (0, 1)
    ]
    for one, other in combinations(drawn, 2):  # one of 30 words each: alike once in 30
        assert np.mean(one == other) < 0.1


def test_unknown_methods_are_told() -> None:
    with pytest.raises(ValueError, match=r"text_reduction='shuffle' is unknown; allowed: truncate"):
        reduce_ids(number_words([9]), 5, "shuffle", 0, np.arange(1))
