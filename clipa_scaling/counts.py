"""A model's parameters and FLOPs at its token counts, in closed form; no model is built."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from clipa_scaling.models import Model, Tower


def block_flops(tower: Tower, tokens: int) -> float:
    """FLOPs of all layers on so many tokens: projections and MLP, then scores and their sums."""
    projections = 2 * tokens * (4 * tower.width**2 + 2 * tower.width * tower.mlp_width)
    attention = 4 * tokens**2 * tower.width
    return float(tower.layers * (projections + attention))


def image_flops(tower: Tower, patch: int, embed_dim: int, image_tokens: int) -> float:
    """FLOPs of one image, forward, two per multiply-add, with CLS beside the image tokens.

    Only kept patches are embedded, so masks and smaller images of one count cost the same. Counts
    matrix products as torch's FlopCounterMode does: no norms, activations or softmax.
    """
    embedding = 2 * image_tokens * 3 * patch**2 * tower.width
    return embedding + block_flops(tower, image_tokens + 1) + 2 * tower.width * embed_dim


def text_flops(tower: Tower, embed_dim: int, text_tokens: int) -> float:
    """FLOPs of one text, forward, two per multiply-add; causal attention counted in full."""
    return block_flops(tower, text_tokens) + 2 * tower.width * embed_dim


def block_params(tower: Tower, layer_scale: bool = False) -> int:
    """Parameters of all layers: two norms, attention and MLP with biases, optional layer scale."""
    attention = 4 * tower.width**2 + 4 * tower.width
    mlp = 2 * tower.width * tower.mlp_width + tower.mlp_width + tower.width
    norms = 4 * tower.width
    return tower.layers * (attention + mlp + norms + (2 * tower.width if layer_scale else 0))


def image_params(
    tower: Tower,
    patch: int,
    embed_dim: int,
    position_tokens: int,
    ln_pre: bool = True,
    layer_scale: bool = False,
) -> int:
    """Parameters of open_clip's image tower; the defaults are those of a stock CLIP.

    position_tokens: patches in the position table, the full grid for masks; CLS is added here.
    """
    embedding = 3 * patch**2 * tower.width + tower.width  # no bias; and the CLS token
    position = (position_tokens + 1) * tower.width
    norms = (4 if ln_pre else 2) * tower.width
    head = tower.width * embed_dim
    return embedding + position + norms + block_params(tower, layer_scale) + head


def text_params(tower: Tower, embed_dim: int, text_tokens: int, vocab_size: int) -> int:
    """Parameters of open_clip's text tower with text_tokens positions."""
    tables = (vocab_size + text_tokens) * tower.width
    return tables + block_params(tower) + 2 * tower.width + tower.width * embed_dim


class Counts(NamedTuple):
    """The part of a cost that depends on model and token counts alone."""

    image_params: int
    text_params: int
    total_params: int
    nonembedding_params: int
    flops_per_sample: float


@lru_cache(maxsize=4096)
def count_model(
    model: Model,
    image_tokens: int,
    position_tokens: int,
    text_tokens: int,
    vocab_size: int,
    ln_pre: bool = True,
) -> Counts:
    """Parameters and forward FLOPs of a model at its token counts; ValueError if one cannot be."""
    if min(image_tokens, text_tokens, vocab_size) < 1:
        given = f"{image_tokens=} {text_tokens=} {vocab_size=}"
        raise ValueError(f"price: {given} has a count below 1; allowed: at least 1 each")
    if image_tokens > position_tokens:
        raise ValueError(
            f"price: image_tokens={image_tokens} exceeds the position table; "
            f"allowed: at most position_tokens={position_tokens}"
        )
    size = model.size
    image = image_params(size.image, model.patch, size.embed_dim, position_tokens, ln_pre)
    text = text_params(size.text, size.embed_dim, text_tokens, vocab_size)
    tables = (position_tokens + 1) * size.image.width + (vocab_size + text_tokens) * size.text.width
    flops = image_flops(size.image, model.patch, size.embed_dim, image_tokens)
    flops += text_flops(size.text, size.embed_dim, text_tokens)
    total = image + text + 1  # the logit scale
    return Counts(image, text, total, total - tables, flops)
