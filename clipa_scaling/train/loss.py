"""The contrastive loss, through open_clip's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from clipa_scaling.train.world import World

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


def local_loss(
    image_bE: torch.Tensor, text_bE: torch.Tensor, scale: torch.Tensor, world: World
) -> torch.Tensor:
    """This rank's rows of the global batch's loss; its mean over the ranks is `contrastive_loss`.

    So is the gradient. Each rank's rows meet all B columns, and the gather's backward adds up what
    every rank's loss says of a feature: the mean of the ranks' gradients is that of the mean loss.
    """
    if world.size == 1:
        return contrastive_loss(image_bE, text_bE, scale)
    image_bE, text_bE = image_bE.float(), text_bE.float()
    image_BE, text_BE = world.gather(image_bE), world.gather(text_bE)
    label_b = world.rank * len(image_bE) + torch.arange(len(image_bE), device=image_bE.device)
    image_bB, text_bB = scale * image_bE @ text_BE.T, scale * text_bE @ image_BE.T
    return (F.cross_entropy(image_bB, label_b) + F.cross_entropy(text_bB, label_b)) / 2
