"""An open_clip model that sees K tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer

from clipa_scaling.models import Model
from clipa_scaling.train.keyed import make_key
from clipa_scaling.train.tokens import gather_patches

IMAGE_MEAN = open_clip.OPENAI_DATASET_MEAN
IMAGE_STD = open_clip.OPENAI_DATASET_STD


@dataclass(frozen=True)
class Features:
    """Unit-length features and how many tokens each tower really saw, read off its tensors."""

    image_BE: torch.Tensor
    text_BE: torch.Tensor
    scale: torch.Tensor
    image_tokens: int
    text_tokens: int


def make_config(model: Model, image_size: int, text_tokens: int, vocab_size: int) -> dict[str, Any]:
    """open_clip's own configuration of a model, from the numbers in models.py."""
    image, text = model.size.image, model.size.text
    return {
        "embed_dim": model.size.embed_dim,
        "vision_cfg": {
            "image_size": image_size,
            "patch_size": model.patch,
            "layers": image.layers,
            "width": image.width,
            "head_width": image.width // image.heads,
            "mlp_ratio": image.mlp_ratio,
        },
        "text_cfg": {
            "context_length": text_tokens,
            "vocab_size": vocab_size,
            "layers": text.layers,
            "width": text.width,
            "heads": text.heads,
            "mlp_ratio": text.mlp_ratio,
        },
    }


def make_model(
    model: Model, image_size: int, text_tokens: int, vocab_size: int, seed: int
) -> open_clip.CLIP:
    """A stock open_clip CLIP, its initial weights keyed by the seed; float32 on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_key(seed, "weights"))
        return open_clip.CLIP(
            **make_config(model, image_size, text_tokens, vocab_size), output_dict=True
        )


@contextmanager
def token_counter(transformer: torch.nn.Module) -> Iterator[list[int]]:
    """The lengths of the sequences that enter a transformer, read off the tensor."""
    lengths: list[int] = []
    handle = transformer.register_forward_pre_hook(
        lambda _, inputs: lengths.append(int(inputs[0].shape[1]))
    )
    try:
        yield lengths
    finally:
        handle.remove()


def encode_pair(
    model: open_clip.CLIP,
    image_BCHW: torch.Tensor,
    text_BT: torch.Tensor,
    kept_BK: torch.Tensor | None,
) -> Features:
    """Features of image-text pairs; `kept_BK` names the patches to keep, None keeps them all."""
    with token_counter(model.visual.transformer) as image_lengths:
        if kept_BK is None:
            image_BE = model.encode_image(image_BCHW)
        else:
            image_BE = encode_kept(model.visual, image_BCHW, kept_BK)
    with token_counter(model.transformer) as text_lengths:
        text_BE = model.encode_text(text_BT)
    # The class token is in the image tower's sequence and is not counted (one per sequence).
    return Features(
        image_BE=make_unit(image_BE),
        text_BE=make_unit(text_BE),
        scale=model.logit_scale.exp(),
        image_tokens=image_lengths[-1] - 1,
        text_tokens=text_lengths[-1],
    )


def make_unit(x_BE: torch.Tensor) -> torch.Tensor:
    """Unit rows in float32; normalised in bf16 they were measured up to 0.3 % off."""
    return F.normalize(x_BE.float(), dim=-1)


def encode_kept(
    visual: VisionTransformer, image_BCHW: torch.Tensor, kept_BK: torch.Tensor
) -> torch.Tensor:
    """(B, E) features of the kept patches alone.

    They go through the tower's own `conv1` as a (B K, 3, P, P) batch: bit-equal to embedding every
    patch and gathering, which a plain linear layer is not.
    """
    batch, keep = kept_BK.shape
    patch = visual.patch_size[0]
    patches_BKCPP = gather_patches(image_BCHW, patch, kept_BK)
    x_BKD = visual.conv1(patches_BKCPP.flatten(0, 1)).reshape(batch, keep, -1)
    class_B1D = visual.class_embedding.to(x_BKD.dtype).expand(batch, 1, -1)
    position = visual.positional_embedding.to(x_BKD.dtype)
    x_BLD = torch.cat([class_B1D + position[0], x_BKD + position[1:][kept_BK]], dim=1)
    x_BLD = visual.transformer(visual.ln_pre(x_BLD))
    pooled_BD, _ = visual._pool(x_BLD)
    feature_BE: torch.Tensor = pooled_BD @ visual.proj
    return feature_BE
