"""Image tokens: exact counts, the windows and blocks of the rules, uniform where it is claimed."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from clipa_scaling.train.tokens import METHODS, divide_grid, keep_patches, keep_random

SIDES = (1, 2, 3, 4, 7, 10, 14)
RARE = 1e-3  # chance that a fair draw fails a test of its uniformity; seeds are fixed


def windows_of(side: int, count: int) -> np.ndarray:
    """(side², count) bool: which patches, row by row, lie in which window."""
    row, column = np.divmod(np.arange(side**2)[:, None], side)
    top, left, height, width = divide_grid(side, count).T
    inside = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
    return np.asarray(inside)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", SIDES)
def test_every_count_is_exact_in_order_and_inside(method: str, side: int) -> None:
    sample_B = torch.arange(2**40, 2**40 + 20)
    for keep in range(1, side**2 + 1):
        kept_BK = keep_patches(method, 5, sample_B, side, keep)
        assert kept_BK.shape == (20, keep) and kept_BK.dtype == torch.int64
        assert bool((kept_BK.diff(dim=1) > 0).all())
        assert int(kept_BK.min()) >= 0 and int(kept_BK.max()) < side**2


@pytest.mark.parametrize("method", METHODS)
def test_any_split_of_a_batch_and_any_start_give_the_same(method: str) -> None:
    sample_B = torch.arange(1000, 1064)
    whole = keep_patches(method, 0, sample_B, 7, 11)
    ranks = [keep_patches(method, 0, part, 7, 11) for part in sample_B.chunk(4)]
    assert torch.equal(torch.cat(ranks), whole)
    assert torch.equal(keep_patches(method, 0, sample_B.flip(0), 7, 11).flip(0), whole)
    assert torch.equal(keep_patches(method, 0, sample_B[40:41], 7, 11), whole[40:41])


def test_methods_and_seeds_draw_apart() -> None:
    sample_B = torch.arange(256)
    drawn = [keep_patches(method, seed, sample_B, 8, 5) for method in METHODS for seed in (0, 1)]
    for one, other in combinations(drawn, 2):
        assert float((one == other).all(dim=1).double().mean()) < 0.2


def test_unknown_methods_are_told() -> None:
    with pytest.raises(ValueError, match=r"image_reduction='resize' keeps no patches; allowed: ra"):
        keep_patches("resize", 0, torch.arange(1), 7, 9)


# Random


def test_random_is_the_subset_that_older_runs_drew() -> None:
    sample_B = torch.arange(50)
    assert torch.equal(keep_patches("random", 3, sample_B, 7, 20), keep_random(3, sample_B, 49, 20))


@pytest.mark.parametrize(("side", "keep", "subsets"), [(2, 2, 6), (3, 4, 126), (3, 7, 36)])
def test_random_is_uniform_over_all_subsets(side: int, keep: int, subsets: int) -> None:
    kept_BK = keep_patches("random", 11, torch.arange(100 * subsets), side, keep)
    counts = Counter(map(tuple, kept_BK.tolist()))
    assert len(counts) == subsets
    assert chisquare([*counts.values()]).pvalue > RARE


def test_random_keeps_each_patch_and_each_pair_equally_often() -> None:
    side, keep, count = 7, 12, 20_000
    kept_BK = keep_patches("random", 2, torch.arange(count), side, keep)
    there_BL = torch.zeros(count, side**2, dtype=torch.float64).scatter_(1, kept_BK, 1.0)
    pairs_LL = there_BL.T @ there_BL
    share = keep / side**2
    both = share * (keep - 1) / (side**2 - 1)
    for seen, chance in ((pairs_LL.diagonal(), share), (pairs_LL.triu(1), both)):
        wrong = (seen[seen > 0] - count * chance).abs().max()
        # The largest of 1,225 normal deviations passes 5 in one of 1,400 seeds.
        assert float(wrong) < 5 * (count * chance * (1 - chance)) ** 0.5


# Grid


@pytest.mark.parametrize("side", SIDES)
def test_windows_share_out_the_grid_and_give_one_patch_each(side: int) -> None:
    for count in range(1, side**2 + 1):
        inside_LK = windows_of(side, count)
        assert inside_LK.shape == (side**2, count)
        assert (inside_LK.sum(axis=1) == 1).all() and inside_LK.any(axis=0).all()
        kept_BK = keep_patches("grid", 0, torch.arange(8), side, count).numpy()
        assert (inside_LK[kept_BK].sum(axis=1) == 1).all()


@pytest.mark.parametrize(("side", "edge"), [(14, 1), (14, 2), (14, 7), (16, 4), (24, 3), (9, 9)])
def test_where_equal_squares_can_be_windows_they_are(side: int, edge: int) -> None:
    windows = divide_grid(side, (side // edge) ** 2)
    assert (windows[:, 2:] == edge).all()
    assert (windows[:, :2] % edge == 0).all()


def test_half_of_the_patches_is_one_of_each_two_neighbours() -> None:
    assert (divide_grid(14, 98)[:, 2:] == (1, 2)).all()


def test_windows_of_any_count_are_nearly_alike_and_compact() -> None:
    for count in range(1, 197):
        _, _, height, width = divide_grid(14, count).T
        assert (height * width).max() <= 4 * 196 / count
        assert (height * width).min() >= 196 / count / 4
    _, _, height, width = divide_grid(14, 16).T
    assert {*height, *width} == {3, 4}


def test_grid_is_uniform_within_windows_and_independent_between_them() -> None:
    side, keep, count = 6, 5, 12_000
    inside_LK = windows_of(side, keep)
    kept_BK = keep_patches("grid", 4, torch.arange(count), side, keep).numpy()
    there_BL = np.zeros((count, side**2), bool)
    np.put_along_axis(there_BL, kept_BK, True, axis=1)
    for window in inside_LK.T:
        assert chisquare(there_BL[:, window].sum(axis=0)).pvalue > RARE
    for one, other in combinations(inside_LK.T, 2):
        both = there_BL[:, one].T.astype(np.int64) @ there_BL[:, other]
        assert chisquare(both.ravel()).pvalue > RARE


# Block


@pytest.mark.parametrize(
    ("keep", "height", "width"), [(1, 1, 1), (2, 1, 2), (4, 2, 2), (5, 2, 3), (7, 3, 3), (36, 6, 6)]
)
def test_a_block_is_one_rectangle_its_last_row_filled_from_the_left(
    keep: int, height: int, width: int
) -> None:
    for kept_K in keep_patches("block", 1, torch.arange(200), 6, keep).tolist():
        top, left = divmod(kept_K[0], 6)
        assert top + height <= 6 and left + width <= 6
        filled = [(top + n // width) * 6 + left + n % width for n in range(keep)]
        assert kept_K == filled


def test_every_place_of_a_block_is_equally_likely() -> None:
    kept_BK = keep_patches("block", 9, torch.arange(8_000), 6, 7)
    corners = Counter(kept_BK[:, 0].tolist())
    assert {*corners} == {row * 6 + column for row in range(4) for column in range(4)}
    assert chisquare([*corners.values()]).pvalue > RARE
