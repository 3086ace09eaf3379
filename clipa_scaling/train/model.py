"""An open_clip model of the papers, and the features of what it sees.

Training and evaluation encode through the same two functions, `encode_image` and `encode_text`, so
that what a model was built with holds in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer, text_global_pool

from clipa_scaling.models import ConvNet, Model
from clipa_scaling.spec import RunSpec
from clipa_scaling.train.keyed import make_key
from clipa_scaling.train.tokens import gather_patches

IMAGE_MEAN = open_clip.OPENAI_DATASET_MEAN
IMAGE_STD = open_clip.OPENAI_DATASET_STD

POOLS = {
    "cls": "tok",
    "mean": "avg",
    "mean_with_cls": "tok",
}  # open_clip's words; it lacks the last
TEXT_POOLS = {"eot": "argmax", "last": "last"}


@dataclass(frozen=True)
class Build:
    """What a model is built with beside its sizes; the defaults are a stock CLIP's.

    image_position: `learned`, or `sincos`: fixed, computed from the grid's integer coordinates,
    zero for CLS. image_pool: `cls`, `mean` of the patches, `mean_with_cls`. ln_after_pool: the
    image tower's last norm after the pooling. text_pool: `eot`, the first largest id, or `last`.
    text_pad: what comes behind that id is `seen` by attention, or `masked`. logit_scale_init is a
    scale, not its logarithm; logit_bias_init None builds no bias.

    The sine codes are open_clip's: frequencies 10000^(-i/n), n = width / 4, ordered sin x, cos x,
    sin y, cos y. CLIPA's JAX code has 10000^(-i/(n-1)) in the same order; open_clip's are taken so
    that checkpoints can be exchanged with it.
    """

    image_position: str = "learned"
    image_pool: str = "cls"
    ln_pre: bool = True
    ln_after_pool: bool = False
    text_causal: bool = True
    text_pool: str = "eot"
    text_pad: str = "seen"
    logit_scale_init: float = 1 / 0.07
    logit_bias_init: float | None = None


IMAGE_OPTIONS = ("image_position", "image_pool", "ln_pre", "ln_after_pool")  # a ViT's alone


def build_of(spec: RunSpec) -> Build:
    """A run's build, the zeros of its first scale and bias filled in (arXiv:2303.15343, sec. 3)."""
    siglip = spec.objective == "siglip"
    return Build(
        image_position=spec.image_position,
        image_pool=spec.image_pool,
        ln_pre=spec.ln_pre,
        ln_after_pool=spec.ln_after_pool,
        text_causal=spec.text_causal,
        text_pool=spec.text_pool,
        text_pad=spec.text_pad,
        logit_scale_init=spec.logit_scale_init or (10.0 if siglip else 1 / 0.07),
        logit_bias_init=(spec.logit_bias_init or -10.0) if siglip else None,
    )


@dataclass(frozen=True)
class Features:
    """Unit-length features and how many tokens each tower really saw, read off its tensors."""

    image_BE: torch.Tensor
    text_BE: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None
    image_tokens: int
    text_tokens: int


def make_vision_config(model: Model, image_size: int, build: Build) -> dict[str, Any]:
    """open_clip's configuration of the image tower; ValueError for what a ConvNeXt has not."""
    image = model.size.image
    if isinstance(image, ConvNet):
        for name in IMAGE_OPTIONS:
            got, stock = getattr(build, name), getattr(Build, name)
            if got != stock:
                raise ValueError(f"{name}={got} is not for {model.name}; allowed: {stock}")
        return {
            "timm_model_name": image.timm_name,
            "timm_model_pretrained": False,
            "timm_pool": "",  # timm's own: the mean of all positions, then a norm
            "timm_proj": "linear",
            "timm_drop_path": 0.0,  # open_clip's 0.1 drops layers by a generator with a state
            "image_size": image_size,
        }
    return {
        "image_size": image_size,
        "patch_size": model.patch,
        "layers": image.layers,
        "width": image.width,
        "head_width": image.head_width,
        "mlp_ratio": image.mlp_ratio,
        "pos_embed_type": "sin_cos_2d" if build.image_position == "sincos" else "learnable",
        "pool_type": POOLS[build.image_pool],
        "no_ln_pre": not build.ln_pre,
        "final_ln_after_pool": build.ln_after_pool,
    }


STOCK = Build()


def make_config(
    model: Model, image_size: int, text_tokens: int, vocab_size: int, build: Build = STOCK
) -> dict[str, Any]:
    """open_clip's own configuration of a model, from the numbers in models.py."""
    text = model.size.text
    return {
        "embed_dim": model.size.embed_dim,
        "vision_cfg": make_vision_config(model, image_size, build),
        "text_cfg": {
            "context_length": text_tokens,
            "vocab_size": vocab_size,
            "layers": text.layers,
            "width": text.width,
            "heads": text.heads,
            "mlp_ratio": text.mlp_ratio,
            "no_causal_mask": not build.text_causal,
            "pool_type": TEXT_POOLS[build.text_pool],
        },
    }


def make_model(
    model: Model,
    image_size: int,
    text_tokens: int,
    vocab_size: int,
    seed: int,
    build: Build = STOCK,
) -> open_clip.CLIP:
    """An open_clip CLIP, its initial weights keyed by the seed; float32 on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_key(seed, "weights"))
        clip = open_clip.CLIP(
            **make_config(model, image_size, text_tokens, vocab_size, build),
            init_logit_scale=math.log(build.logit_scale_init),
            init_logit_bias=build.logit_bias_init,
            output_dict=True,
        )
    # What open_clip has no word for; its own `forward` knows of neither.
    clip.visual.mean_with_cls = build.image_pool == "mean_with_cls"
    clip.mask_padding = build.text_pad == "masked"
    return clip


def layers_of(model: open_clip.CLIP) -> list[torch.nn.Module]:
    """What holds nearly all the work: the transformers, and of a ConvNeXt its stages."""
    visual = model.visual
    if isinstance(visual, VisionTransformer):
        return [visual.transformer, model.transformer]
    return [*visual.trunk.stages, model.transformer]


def encode_pair(
    model: open_clip.CLIP,
    image_BCHW: torch.Tensor,
    text_BT: torch.Tensor,
    kept_BK: torch.Tensor | None,
) -> Features:
    """Features of image-text pairs; `kept_BK` names the patches to keep, None keeps them all."""
    image_BE, image_tokens = encode_image(model, image_BCHW, kept_BK)
    text_BE, text_tokens = encode_text(model, text_BT)
    return Features(
        image_BE=make_unit(image_BE),
        text_BE=make_unit(text_BE),
        scale=model.logit_scale.exp(),
        bias=model.logit_bias,
        image_tokens=image_tokens,
        text_tokens=text_tokens,
    )


def make_unit(x_BE: torch.Tensor) -> torch.Tensor:
    """Unit rows in float32; normalised in bf16 they were measured up to 0.3 % off."""
    return F.normalize(x_BE.float(), dim=-1)


def encode_image(
    model: open_clip.CLIP, image_BCHW: torch.Tensor, kept_BK: torch.Tensor | None
) -> tuple[torch.Tensor, int]:
    """(B, E) features of pictures, and the image tokens each was, its class token not counted."""
    visual = model.visual
    if not isinstance(visual, VisionTransformer):
        assert kept_BK is None, "a ConvNeXt sees every position"
        return encode_grid(visual, image_BCHW)
    if kept_BK is None:
        x_BLD = visual._embeds(image_BCHW)
    else:
        x_BLD = embed_kept(visual, image_BCHW, kept_BK)
    x_BLD = visual.transformer(x_BLD)
    feature_BE: torch.Tensor = pool_image(visual, x_BLD) @ visual.proj
    return feature_BE, x_BLD.shape[1] - 1


def embed_kept(
    visual: VisionTransformer, image_BCHW: torch.Tensor, kept_BK: torch.Tensor
) -> torch.Tensor:
    """(B, 1 + K, D): the class token and the kept patches alone, as the transformer takes them.

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
    normed_BLD: torch.Tensor = visual.ln_pre(x_BLD)
    return normed_BLD


def pool_image(visual: VisionTransformer, x_BLD: torch.Tensor) -> torch.Tensor:
    """(B, D): the class token, or a mean, with the last norm before or after it."""
    if not getattr(visual, "mean_with_cls", False):
        pooled_BD: torch.Tensor = visual._pool(x_BLD)[0]
    elif visual.final_ln_after_pool:
        pooled_BD = visual.ln_post(x_BLD.mean(dim=1))
    else:
        pooled_BD = visual.ln_post(x_BLD).mean(dim=1)
    return pooled_BD


def encode_grid(visual: torch.nn.Module, image_BCHW: torch.Tensor) -> tuple[torch.Tensor, int]:
    """(B, E) features from a ConvNeXt, and the positions of its third stage."""
    trunk: Any = visual.trunk
    x_BDHW, tokens = trunk.stem(image_BCHW), 0
    for number, stage in enumerate(trunk.stages):
        x_BDHW = stage(x_BDHW)
        if number == 2:
            tokens = x_BDHW.shape[2] * x_BDHW.shape[3]
    head: Any = visual.head
    feature_BE: torch.Tensor = head(trunk.forward_head(trunk.norm_pre(x_BDHW)))
    return feature_BE, tokens


def encode_text(model: open_clip.CLIP, text_BT: torch.Tensor) -> tuple[torch.Tensor, int]:
    """(B, E) features of token ids, and how many each text was, padding in."""
    dtype = model.transformer.get_cast_dtype()
    x_BTD = model.token_embedding(text_BT).to(dtype) + model.positional_embedding.to(dtype)
    mask = model.attn_mask
    if getattr(model, "mask_padding", False):
        mask = mask_padding(text_BT, mask, model.transformer.resblocks[0].attn.num_heads)
    x_BTD = model.ln_final(model.transformer(x_BTD, attn_mask=mask))
    pooled_BD = text_global_pool(x_BTD, text_BT, model.text_pool_type)
    feature_BE: torch.Tensor = pooled_BD @ model.text_projection
    return feature_BE, x_BTD.shape[1]


def mask_padding(text_BT: torch.Tensor, causal_TT: torch.Tensor | None, heads: int) -> torch.Tensor:
    """(B heads, T, T), added to attention: minus infinity at what comes behind each text's end.

    The end token is the largest id. Floats, since open_clip casts a mask to the features' type,
    under which a truth value would be added as 1.
    """
    place_T = torch.arange(text_BT.shape[1], device=text_BT.device)
    padding_BT = place_T > text_BT.argmax(dim=1, keepdim=True)
    mask_BT = torch.zeros(text_BT.shape, device=text_BT.device).masked_fill(padding_BT, -math.inf)
    length = text_BT.shape[1]
    mask_BTT = mask_BT[:, None].expand(-1, length, -1)
    if causal_TT is not None:
        mask_BTT = mask_BTT + causal_TT
    return mask_BTT.repeat_interleave(heads, dim=0)
