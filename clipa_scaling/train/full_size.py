"""A trained model on pictures of another size: all as trained, but for its position table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip.transformer import VisionTransformer

from clipa_scaling.models import load_model
from clipa_scaling.spec import RunSpec
from clipa_scaling.train.model import build_of, encode_image, make_model
from clipa_scaling.train.positions import IMAGE_TABLE, change_image


@dataclass(frozen=True)
class FullSize:
    """The full size, px a side, and how a position table gets there: see `change_image`.

    fresh: makes a table of the full size, of which `extend` takes what the trained one lacks.
    """

    px: int
    change: str = "interpolate"
    fresh: Callable[[], torch.Tensor] | None = None

    def table(self, model: open_clip.CLIP) -> torch.Tensor | None:
        """(1 + tokens, D), CLS first, for a ViT; None for a ConvNeXt, which has none."""
        if not isinstance(model.visual, VisionTransformer):
            return None
        old_LD = model.visual.positional_embedding.detach()
        side = self.px // model.visual.patch_size[0]
        if self.change == "extend":
            assert self.fresh is not None, "extend needs a table to fill up with"
            fresh_LD = self.fresh()
        else:
            fresh_LD = torch.zeros(side * side + 1, old_LD.shape[1])  # of which the shape counts
        # What open_clip's interpolation asks of a model; one of this size need not be built.
        grid: Any = SimpleNamespace(visual=SimpleNamespace(grid_size=(side, side)))
        return change_image(grid, old_LD, fresh_LD, self.change).to(old_LD)


def full_size_of(spec: RunSpec) -> FullSize:
    """A run's full size; fixed codes are computed anew unless the run changes its table otherwise.

    The fresh table is that of the run's seed, as for a child that is finetuned at full size.
    """
    starts = spec.parent or spec.image_start or spec.text_start  # else the field has no effect
    change = spec.image_position_change
    if not starts and spec.image_position == "sincos":
        change = "recompute"

    @cache
    def fresh() -> torch.Tensor:
        model = load_model(spec.model)
        lengths = spec.full_px, spec.text_tokens, spec.vocab_size
        built = make_model(model, *lengths, spec.seed, build_of(spec))
        table_LD: torch.Tensor = built.visual.positional_embedding.detach().clone()
        return table_LD

    return FullSize(spec.full_px, change, fresh)


class ImageTower(torch.nn.Module):
    """A model's images alone, so that torch can call it with another table in its place."""

    def __init__(self, model: open_clip.CLIP):
        super().__init__()
        self.model = model

    def forward(self, image_BCHW: torch.Tensor) -> tuple[torch.Tensor, int]:
        return encode_image(self.model, image_BCHW, None)


def encode_image_with(
    model: open_clip.CLIP, image_BCHW: torch.Tensor, table_LD: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """As `encode_image`, with another position table; the model has its own again afterwards."""
    swapped = {f"model.{IMAGE_TABLE}": table_LD}
    encoded: tuple[torch.Tensor, int] = torch.func.functional_call(
        ImageTower(model), swapped, (image_BCHW,)
    )
    return encoded
