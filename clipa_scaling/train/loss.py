"""The contrastive loss, through open_clip's own."""

from __future__ import annotations

import torch
from open_clip.loss import ClipLoss

_clip_loss = ClipLoss()


def contrastive_loss(
    image_BE: torch.Tensor, text_BE: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Mean of both directions' cross-entropies over the batch, nats (arXiv:2103.00020, Fig. 3).

    In float32 whatever the features are: bf16 logits near 100, where the temperature may end, come
    in steps of a half.
    """
    loss: torch.Tensor = _clip_loss(image_BE.float(), text_BE.float(), scale)
    return loss
