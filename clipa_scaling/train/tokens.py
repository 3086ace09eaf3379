"""Keep K of L image tokens: which ones, and the patches, cut out before the embedding."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from clipa_scaling.train.keyed import keyed_bits, keyed_uniform, make_key

METHODS = ("random", "grid", "block")


def keep_patches(
    method: str, seed: int, sample_B: torch.Tensor, side: int, keep: int
) -> torch.Tensor:
    """(B, K) int64: the patches kept of a grid of side x side, row by row, in rising order.

    Distinct and exactly `keep`, 1 to side², whatever the method; keyed by (seed, method, sample)
    and made on the device of `sample_B`.
    """
    assert 1 <= keep <= side**2, f"keep={keep} of {side**2} patches"
    if method == "random":
        return keep_random(seed, sample_B, side**2, keep)
    if method == "grid":
        return keep_grid(seed, sample_B, side, keep)
    if method == "block":
        return keep_block(seed, sample_B, side, keep)
    raise ValueError(f"image_reduction={method!r} keeps no patches; allowed: {', '.join(METHODS)}")


def keep_random(seed: int, sample_B: torch.Tensor, total: int, keep: int) -> torch.Tensor:
    """(B, K) distinct patch positions in order, uniform among all subsets, keyed by sample.

    Masking as in FLIP and CLIPA (arXiv:2305.07017, section 3.2), but with an exact count and the
    patches left in order. Made on the device of `sample_B`.
    """
    bits_BL = keyed_bits(make_key(seed, "image mask"), sample_B, total)
    return bits_BL.argsort(dim=1)[:, :keep].sort(dim=1).values


def keep_grid(seed: int, sample_B: torch.Tensor, side: int, keep: int) -> torch.Tensor:
    """(B, K): one patch of each of K windows that share out the grid, uniform within its window.

    With side²/4 windows these are the 2 x 2 of arXiv:2305.07017, section 3.2, for which the paper's
    code was not released; `divide_grid` says what the windows are for any other count.
    """
    top, left, height, width = put_windows(side, keep, sample_B.device).unbind(dim=1)
    draw_BK = keyed_uniform(make_key(seed, "image grid"), sample_B, keep)
    cell_BK = (draw_BK * (height * width)).long()  # below the area: a draw is 2^-53 short of 1
    position_BK = (top + cell_BK // width) * side + left + cell_BK % width
    return position_BK.sort(dim=1).values


def keep_block(seed: int, sample_B: torch.Tensor, side: int, keep: int) -> torch.Tensor:
    """(B, K): one rectangle of ceil(√K) columns, every place in the grid equally likely.

    Its last row holds what the others leave of K, from the left. A single block is kept, the rest
    dropped (arXiv:2305.07017, figure 2d); the paper gives no rule for its shape or place.
    """
    width = math.isqrt(keep - 1) + 1
    height = -(-keep // width)
    rows, columns = side - height + 1, side - width + 1
    draw_B1 = keyed_uniform(make_key(seed, "image block"), sample_B, 1)
    place_B1 = (draw_B1 * (rows * columns)).long()
    corner_B1 = place_B1 // columns * side + place_B1 % columns
    inner_K = torch.arange(keep, device=sample_B.device)
    return corner_B1 + inner_K // width * side + inner_K % width


@lru_cache
def put_windows(side: int, count: int, device: torch.device) -> torch.Tensor:
    """The windows on a device, copied once: a copy waits for all that the device has to do."""
    return torch.from_numpy(divide_grid(side, count)).to(device)


@lru_cache
def divide_grid(side: int, count: int) -> np.ndarray:
    """(count, 4) int64: top, left, height, width of windows that share out side x side patches.

    R bands of windows lie one below the other, band r with floor((r+1)·count/R) - floor(r·count/R)
    windows beside each other; border i of n lies at floor(i·side/n) patches, in either direction.
    Of the R that leave no window empty: where patches lie closest together in their windows, by
    the sum over windows of area · (height² + width²), which equal squares make least; then the
    largest.
    """
    tried = []
    for bands in range(1, min(side, count) + 1):
        in_band = np.diff(np.arange(bands + 1) * count // bands)
        if in_band.max() <= side:
            windows = lay_windows(side, in_band)
            height, width = windows[:, 2], windows[:, 3]
            tried.append((int((height * width * (height**2 + width**2)).sum()), -bands, windows))
    return min(tried, key=lambda one: one[:2])[2]


def lay_windows(side: int, in_band: np.ndarray) -> np.ndarray:
    """(windows, 4) int64: top, left, height, width, with so many windows in each band."""
    windows = []
    tops = np.arange(len(in_band) + 1) * side // len(in_band)
    for top, below, count in zip(tops, tops[1:], in_band, strict=False):
        lefts = np.arange(count + 1) * side // count
        for left, right in zip(lefts, lefts[1:], strict=False):
            windows.append((top, left, below - top, right - left))
    return np.array(windows, np.int64)


def gather_patches(image_BCHW: torch.Tensor, patch: int, kept_BK: torch.Tensor) -> torch.Tensor:
    """(B, K, C, P, P): the kept patches, row by row, of a square grid."""
    batch, channels, height, width = image_BCHW.shape
    rows, columns = height // patch, width // patch
    patches = image_BCHW.reshape(batch, channels, rows, patch, columns, patch)
    patches_BLCPP = patches.permute(0, 2, 4, 1, 3, 5).reshape(
        batch, rows * columns, channels, patch, patch
    )
    return patches_BLCPP[torch.arange(batch, device=kept_BK.device)[:, None], kept_BK]
