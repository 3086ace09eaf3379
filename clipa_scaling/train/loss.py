"""The contrastive loss, through open_clip's own."""

from __future__ import annotations

import torch
from open_clip.loss import ClipLoss

_clip_loss = ClipLoss()


def contrastive_loss(
    image_BE: torch.Tensor, text_BE: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Mean of both directions' cross-entropies over the batch, nats (arXiv:2103.00020, Fig. 3)."""
    loss: torch.Tensor = _clip_loss(image_BE, text_BE, scale)
    return loss
