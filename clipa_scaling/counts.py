"""A model's parameters and FLOPs at its token counts, in closed form; no model is built."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from clipa_scaling.models import ConvNet, Model, Tower


def block_flops(tower: Tower, tokens: int) -> float:
    """FLOPs of all layers on so many tokens: projections and MLP, then scores and their sums."""
    projections = 2 * tokens * (4 * tower.width**2 + 2 * tower.width * tower.mlp_width)
    attention = 4 * tokens**2 * tower.width
    return float(tower.layers * (projections + attention))


def stage_sides(image_tokens: int) -> tuple[int, int, int, int]:
    """Positions a side of a ConvNeXt's four stages; its image tokens are those of the third.

    ValueError for what is no square of at least 2 x 2: halving drops an odd row, not the last one.
    """
    side = math.isqrt(image_tokens)
    if side * side != image_tokens or side < 2:
        allowed = "allowed: a square from 4 on"
        raise ValueError(
            f"ConvNeXt: image_tokens={image_tokens} is no grid it can halve; {allowed}"
        )
    return 4 * side, 2 * side, side, side // 2


def conv_flops(net: ConvNet, embed_dim: int, image_tokens: int) -> float:
    """FLOPs of one image through a ConvNeXt: stem, reductions, blocks, head; as `image_flops`."""
    sides, widths = stage_sides(image_tokens), net.widths
    total = 2 * sides[0] ** 2 * 3 * 4**2 * widths[0]
    for side, (before, width) in zip(sides[1:], pairwise(widths), strict=True):
        total += 2 * side**2 * 2**2 * before * width
    for side, depth, width in zip(sides, net.depths, widths, strict=True):
        each = net.kernel**2 * width + 2 * width * int(net.mlp_ratio * width)
        total += 2 * side**2 * depth * each
    return float(total + 2 * net.width * embed_dim)


def image_flops(image: Tower | ConvNet, patch: int, embed_dim: int, image_tokens: int) -> float:
    """FLOPs of one image, forward, two per multiply-add; a ViT's CLS beside the image tokens.

    Only kept patches are embedded, so masks and smaller images of one count cost the same. Counts
    matrix products as torch's FlopCounterMode does: no norms, activations or softmax. A ViT that
    averages its patches still carries the CLS through all layers, as in both papers' code.
    """
    if isinstance(image, ConvNet):
        return conv_flops(image, embed_dim, image_tokens)
    tower = image
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


def conv_params(net: ConvNet, embed_dim: int) -> int:
    """Parameters of timm's ConvNeXt and of open_clip's projection; any image size has the same."""
    widths = net.widths
    total = (3 * 4**2 + 3) * widths[0]  # stem: weight, bias, norm
    total += sum(2 * before + (2**2 * before + 1) * width for before, width in pairwise(widths))
    for depth, width in zip(net.depths, widths, strict=True):
        hidden = int(net.mlp_ratio * width)
        # Depthwise weight and bias, norm, layer scale; then the MLP.
        each = (net.kernel**2 + 4) * width + 2 * width * hidden + hidden + width
        total += depth * each
    return total + 2 * net.width + net.width * embed_dim


def image_params(
    image: Tower | ConvNet,
    patch: int,
    embed_dim: int,
    position_tokens: int,
    ln_pre: bool = True,
    layer_scale: bool = False,
    learned_position: bool = True,
) -> int:
    """Parameters of open_clip's image tower; the defaults are those of a stock CLIP.

    position_tokens: patches in the position table, the full grid for masks; CLS is added here. A
    table of fixed sine codes is not trained and not counted.
    """
    if isinstance(image, ConvNet):
        return conv_params(image, embed_dim)
    tower = image
    embedding = 3 * patch**2 * tower.width + tower.width  # no bias; and the CLS token
    position = table_params(tower, position_tokens, learned_position)
    norms = (4 if ln_pre else 2) * tower.width
    head = tower.width * embed_dim
    return embedding + position + norms + block_params(tower, layer_scale) + head


def table_params(image: Tower | ConvNet, position_tokens: int, learned: bool) -> int:
    """Parameters of the image position table, CLS in; none under sine codes or in a ConvNeXt."""
    return (position_tokens + 1) * image.width if learned and isinstance(image, Tower) else 0


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
    learned_position: bool = True,
    logit_bias: bool = False,
    texts_per_sample: float = 1.0,
) -> Counts:
    """Parameters and forward FLOPs of a model at its token counts; ValueError if one cannot be.

    texts_per_sample: other than 1 where pictures meet class prompts; NaN where unknown.
    Pooling, causality and padding masks change neither. nonembedding_params: without the token
    embedding and both position tables.
    """
    if min(image_tokens, text_tokens, vocab_size) < 1:
        given = f"{image_tokens=} {text_tokens=} {vocab_size=}"
        raise ValueError(f"price: {given} has a count below 1; allowed: at least 1 each")
    if image_tokens > position_tokens:
        raise ValueError(
            f"price: image_tokens={image_tokens} exceeds the position table; "
            f"allowed: at most position_tokens={position_tokens}"
        )
    size = model.size
    if isinstance(size.image, ConvNet) and image_tokens != position_tokens:
        raise ValueError(
            f"price: image_tokens={image_tokens} of {position_tokens} cannot be masked in a "
            "ConvNeXt; allowed: resize"
        )
    image = image_params(
        size.image,
        model.patch,
        size.embed_dim,
        position_tokens,
        ln_pre,
        learned_position=learned_position,
    )
    text = text_params(size.text, size.embed_dim, text_tokens, vocab_size)
    tables = table_params(size.image, position_tokens, learned_position)
    tables += (vocab_size + text_tokens) * size.text.width
    flops = image_flops(size.image, model.patch, size.embed_dim, image_tokens)
    flops += texts_per_sample * text_flops(size.text, size.embed_dim, text_tokens)
    total = image + text + (2 if logit_bias else 1)  # the logit scale, and siglip's bias
    return Counts(image, text, total, total - tables, flops)
