"""One tower at a time: unit features, and how many tokens it really saw."""

from __future__ import annotations

from typing import NamedTuple

import open_clip
import torch

from clipa_scaling.train.model import encode_kept, make_unit, token_counter


class Encoded(NamedTuple):
    """Unit-length features in float32, and the tokens of each input, read off the tensor."""

    features_BE: torch.Tensor
    tokens: int


def encode_image(
    model: open_clip.CLIP, image_BCHW: torch.Tensor, kept_BK: torch.Tensor | None
) -> Encoded:
    """Features of pictures; `kept_BK` names the patches to keep, None keeps them all."""
    with token_counter(model.visual.transformer) as lengths:
        if kept_BK is None:
            image_BE = model.encode_image(image_BCHW)
        else:
            image_BE = encode_kept(model.visual, image_BCHW, kept_BK)
    # The class token is in the image tower's sequence and is not counted (one per sequence).
    return Encoded(make_unit(image_BE), lengths[-1] - 1)


def encode_text(model: open_clip.CLIP, text_BT: torch.Tensor) -> Encoded:
    """Features of texts."""
    with token_counter(model.transformer) as lengths:
        text_BE = model.encode_text(text_BT)
    return Encoded(make_unit(text_BE), lengths[-1])
