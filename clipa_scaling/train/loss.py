"""The losses: contrastive through open_clip's own, the sigmoid's, and of labelled pictures."""

from __future__ import annotations

import math

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


# Local losses: this rank's rows of the global batch's loss. Their mean over the ranks is the loss,
# and so is the gradient: each rank's rows meet all columns, and the gather's backward adds up what
# every rank's loss says of a feature, so the mean of the ranks' gradients is that of the mean loss.


def local_contrastive(
    image_bE: torch.Tensor, text_bE: torch.Tensor, scale: torch.Tensor, world: World
) -> torch.Tensor:
    """`contrastive_loss` of the global batch."""
    if world.size == 1:
        return contrastive_loss(image_bE, text_bE, scale)
    image_bE, text_bE = image_bE.float(), text_bE.float()
    image_BE, text_BE = world.gather(image_bE), world.gather(text_bE)
    label_b = find_own(image_bE, world)
    image_bB, text_bB = scale * image_bE @ text_BE.T, scale * text_bE @ image_BE.T
    return (F.cross_entropy(image_bB, label_b) + F.cross_entropy(text_bB, label_b)) / 2


def local_siglip(
    image_bE: torch.Tensor,
    text_bE: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    world: World,
) -> torch.Tensor:
    """Each of B x B pairs told true from false, summed, over B: nats (arXiv:2303.15343, Eq. 1)."""
    image_bE, text_BE = image_bE.float(), world.gather(text_bE.float())
    logit_bB = scale * image_bE @ text_BE.T + bias
    sign_bB = torch.full_like(logit_bB, -1.0)
    sign_bB.scatter_(1, find_own(image_bE, world)[:, None], 1.0)
    return -F.logsigmoid(sign_bB * logit_bB).sum() / len(image_bE)


def local_classify(
    image_bE: torch.Tensor,
    text_cE: torch.Tensor,
    scale: torch.Tensor,
    label_b: torch.Tensor,
    classes: int,
    world: World,
) -> torch.Tensor:
    """Cross-entropy of pictures over classes, nats; each rank has texts of its share of classes.

    Shares are equal; what stands past the last class only fills the last ones up.
    """
    text_CE = world.gather(text_cE.float())[:classes]
    return F.cross_entropy(scale * image_bE.float() @ text_CE.T, label_b)


def find_own(x_bE: torch.Tensor, world: World) -> torch.Tensor:
    """(b,) where this rank's rows stand in the global batch."""
    return world.rank * len(x_bE) + torch.arange(len(x_bE), device=x_bE.device)


def chance_loss(objective: str, batch_size: int, classes: int) -> float:
    """The least loss, nats, of a model that cannot tell any two inputs apart.

    ln B, or ln C of `classify`. Of siglip that of the best constant logit, which says "true" with
    probability 1 / B: B times the entropy of one pair in B, about ln B + 1.
    """
    if objective == "classify":
        return math.log(classes)
    chance = math.log(batch_size)
    if objective == "siglip" and batch_size > 1:
        chance -= (batch_size - 1) * math.log1p(-1 / batch_size)
    return chance
