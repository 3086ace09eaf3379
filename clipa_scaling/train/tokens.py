"""Keep K of L image tokens: which ones, and the patches, cut out before the embedding."""

from __future__ import annotations

import torch

from clipa_scaling.train.keyed import keyed_bits, make_key


def keep_random(seed: int, sample_B: torch.Tensor, total: int, keep: int) -> torch.Tensor:
    """(B, K) distinct patch positions in order, uniform among all subsets, keyed by sample.

    Masking as in FLIP and CLIPA (arXiv:2305.07017, section 3.2), but with an exact count and the
    patches left in order. Made on the device of `sample_B`.
    """
    bits_BL = keyed_bits(make_key(seed, "image mask"), sample_B, total)
    return bits_BL.argsort(dim=1)[:, :keep].sort(dim=1).values


def gather_patches(image_BCHW: torch.Tensor, patch: int, kept_BK: torch.Tensor) -> torch.Tensor:
    """(B, K, C, P, P): the kept patches, row by row, of a square grid."""
    batch, channels, height, width = image_BCHW.shape
    rows, columns = height // patch, width // patch
    patches = image_BCHW.reshape(batch, channels, rows, patch, columns, patch)
    patches_BLCPP = patches.permute(0, 2, 4, 1, 3, 5).reshape(
        batch, rows * columns, channels, patch, patch
    )
    return patches_BLCPP[torch.arange(batch, device=kept_BK.device)[:, None], kept_BK]
