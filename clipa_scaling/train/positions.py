"""Position tables at another length, and which ways to get there differ."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import isqrt

import open_clip
import torch
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from open_clip.pos_embed import get_2d_sincos_pos_embed

IMAGE_TABLE, TEXT_TABLE = "visual.positional_embedding", "positional_embedding"
IMAGE_CHANGES = ("interpolate", "recompute", "extend")
TEXT_CHANGES = ("interpolate", "extend")

Weights = Mapping[str, torch.Tensor]


def change_image(
    model: open_clip.CLIP, old_LD: torch.Tensor, fresh_LD: torch.Tensor, change: str
) -> torch.Tensor:
    """The image table, CLS first, at the fresh one's length.

    `interpolate`: open_clip's, bicubic with antialiasing. `recompute`: the sine codes of the new
    grid. `extend`: the old grid is the new one's top left corner, where the codes of CLIPA's JAX
    code have it; beyond it the fresh table's, and of a smaller grid only the corner is taken.
    """
    if change == "recompute":
        return make_codes(fresh_LD)
    if len(old_LD) == len(fresh_LD):
        return old_LD
    if change == "interpolate":
        weights = {IMAGE_TABLE: old_LD.float().cpu()}
        resize_pos_embed(weights, model)
        return weights[IMAGE_TABLE]
    new_LD = fresh_LD.float().cpu().clone()
    new_HWD, old_HWD = view_grid(new_LD), view_grid(old_LD.float().cpu())
    side = min(len(new_HWD), len(old_HWD))
    new_HWD[:side, :side] = old_HWD[:side, :side]
    new_LD[0] = old_LD[0]
    return new_LD


def change_text(
    model: open_clip.CLIP, old_TD: torch.Tensor, fresh_TD: torch.Tensor, change: str
) -> torch.Tensor:
    """The text table at the fresh one's length.

    `interpolate`: open_clip's, linear: a word's old place is spread over several new ones.
    `extend`: the old table is the new one's prefix, the rest fresh; a shorter one is a prefix.
    """
    if len(old_TD) == len(fresh_TD):
        return old_TD
    if change == "interpolate":
        weights = {TEXT_TABLE: old_TD.float().cpu()}
        resize_text_pos_embed(weights, model)
        return weights[TEXT_TABLE]
    new_TD = fresh_TD.float().cpu().clone()
    length = min(len(new_TD), len(old_TD))
    new_TD[:length] = old_TD[:length]
    return new_TD


def view_grid(table_LD: torch.Tensor) -> torch.Tensor:
    """The (H, W, D) part of an image table behind CLS, sharing its memory."""
    side = isqrt(len(table_LD) - 1)
    return table_LD[1:].view(side, side, -1)


def make_codes(table_LD: torch.Tensor) -> torch.Tensor:
    """open_clip's sine codes for a table of this shape, zero for CLS."""
    side, width = isqrt(len(table_LD) - 1), table_LD.shape[1]
    return torch.from_numpy(get_2d_sincos_pos_embed(width, side, cls_token=True)).float()


def treatments(
    model: open_clip.CLIP, theirs: Weights, initial: Weights | None = None
) -> list[tuple[str, str]]:
    """The pairs (image_change, text_change) that give different tables, for weights to be loaded.

    Only an axis whose length changes varies. `recompute` is for models with fixed codes, on either
    side; between two of them `extend` gives the same. `initial`: the fresh model's weights, where
    others have been loaded since.
    """
    ours = initial if initial is not None else model.state_dict()
    images, texts = [IMAGE_CHANGES[0]], [TEXT_CHANGES[0]]
    if is_other_length(IMAGE_TABLE, ours, theirs):
        old_LD, fresh_LD = theirs[IMAGE_TABLE], ours[IMAGE_TABLE]
        fixed = not model.visual.positional_embedding.requires_grad
        fixed = fixed or torch.equal(old_LD.float().cpu(), make_codes(old_LD))
        changes = [change for change in IMAGE_CHANGES if fixed or change != "recompute"]
        tables = {change: change_image(model, old_LD, fresh_LD, change) for change in changes}
        images = keep_different(tables)
    if is_other_length(TEXT_TABLE, ours, theirs):
        old_TD, fresh_TD = theirs[TEXT_TABLE], ours[TEXT_TABLE]
        tables = {change: change_text(model, old_TD, fresh_TD, change) for change in TEXT_CHANGES}
        texts = keep_different(tables)
    return list(product(images, texts))


def is_other_length(name: str, ours: Weights, theirs: Weights) -> bool:
    """Whether both have this table, at different lengths."""
    return name in ours and name in theirs and len(ours[name]) != len(theirs[name])


def keep_different(tables: dict[str, torch.Tensor]) -> list[str]:
    """The changes in their order, less those that give an earlier one's table."""
    kept: list[str] = []
    for change, table in tables.items():
        if not any(torch.equal(table, tables[earlier]) for earlier in kept):
            kept.append(change)
    return kept
