"""Every option builds what open_clip builds from its own words; its two lacks are ours to prove."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clipa_scaling.counts import count_model, image_flops
from clipa_scaling.models import SIZES, ConvNet, Model, load_model
from clipa_scaling.resolve import resolve
from clipa_scaling.train.model import (
    Build,
    build_of,
    encode_image,
    encode_pair,
    encode_text,
    make_model,
)

END = 49_407
PAPERS: dict[str, Any] = {"image_pool": "mean", "ln_pre": False, "ln_after_pool": True}
PAPERS |= {"text_causal": False, "text_pool": "last"}

# Ours, and the same in open_clip's words.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "stock": ({}, {}, {}),
    "sincos": ({"image_position": "sincos"}, {"pos_embed_type": "sin_cos_2d"}, {}),
    "mean": ({"image_pool": "mean"}, {"pool_type": "avg"}, {}),
    "no first norm": ({"ln_pre": False}, {"no_ln_pre": True}, {}),
    "norm after pooling": ({"ln_after_pool": True}, {"final_ln_after_pool": True}, {}),
    "not causal": ({"text_causal": False}, {}, {"no_causal_mask": True}),
    "last": ({"text_pool": "last"}, {}, {"pool_type": "last"}),
    "papers": (
        PAPERS,
        {"pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True},
        {"no_causal_mask": True, "pool_type": "last"},
    ),
}
VISION = {"patch_size": 8, "layers": 2, "width": 32, "head_width": 16}
TEXT = {"vocab_size": 49_408, "layers": 2, "width": 32, "heads": 2}


def make_ours(side: int = 4, text_tokens: int = 8, **options: Any) -> open_clip.CLIP:
    return make_model(load_model("T32/8"), 8 * side, text_tokens, 49_408, 0, Build(**options))


def make_batch(side: int, text_tokens: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Four pictures, and texts that end at the fifth token, padding behind."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(1, 1000, (4, text_tokens), generator=generator)
    text[:, 4], text[:, 5:] = END, 0
    return torch.randn(4, 3, 8 * side, 8 * side, generator=generator), text


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("side", [2, 7])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_open_clips_bit_for_bit_also_through_gathered_patches(
    name: str, side: int, training: bool
) -> None:
    ours, vision, text = OPTIONS[name]
    model = make_ours(side, **ours)
    stock = open_clip.CLIP(
        embed_dim=32,
        vision_cfg={"image_size": 8 * side, **VISION, **vision},
        text_cfg={"context_length": 8, **TEXT, **text},
        output_dict=True,
    )
    fixed = None if name != "sincos" else stock.visual.positional_embedding.clone()
    assert stock.logit_scale == model.logit_scale and stock.logit_bias is model.logit_bias is None
    stock.load_state_dict(model.state_dict())
    if fixed is not None:
        assert torch.equal(fixed, model.visual.positional_embedding), "the codes are no draw"
    model.train(training)
    stock.train(training)
    image, ids = make_batch(side)
    everything = torch.arange(side**2).expand(4, -1)
    with torch.no_grad():
        want = stock(image, ids)
        for kept in (None, everything):
            got = encode_pair(model, image, ids, kept)
            assert torch.equal(got.image_BE, want["image_features"])
            assert torch.equal(got.text_BE, want["text_features"])
            assert (got.image_tokens, got.text_tokens) == (side**2, 8)
        assert got.scale == want["logit_scale"]


@pytest.mark.parametrize("name", ["ViT-L-14-CLIPA", "ViT-H-14-CLIPA", "ViT-bigG-14-CLIPA"])
def test_the_released_clipa_models_are_ours_with_the_papers_options(name: str) -> None:
    """Names and shapes of the whole; on one layer a tower and 300 ids, every bit."""
    config = open_clip.get_model_config(name)
    ours = {"L": "L/14", "H": "H/14", "bigG": "G/14"}[name.split("-")[1]]
    with torch.device("meta"):
        theirs = open_clip.CLIP(**config)
        whole = make_model(load_model(ours), 224, 32, 32_000, 0, Build(**PAPERS))
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert shapes == {key: value.shape for key, value in whole.state_dict().items()}
    for got, want in ((whole.visual.transformer, theirs.visual.transformer),) + (
        (whole.transformer, theirs.transformer),
    ):
        assert got.resblocks[0].attn.num_heads == want.resblocks[0].attn.num_heads

    size = load_model(ours).size
    assert not isinstance(size.image, ConvNet)
    short = replace(size, image=replace(size.image, layers=1), text=replace(size.text, layers=1))
    config["vision_cfg"] |= {"layers": 1, "image_size": 28}
    config["text_cfg"] |= {"layers": 1, "vocab_size": 300}
    stock = open_clip.CLIP(**config, output_dict=True).eval()
    twin = make_model(Model(short, 14), 28, 32, 300, 0, Build(**PAPERS)).eval()
    twin.load_state_dict(stock.state_dict())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 300, (2, 32), generator=generator)
    image = torch.randn(2, 3, 28, 28, generator=generator)
    with torch.no_grad():
        want, got_pair = stock(image, ids), encode_pair(twin, image, ids, None)
    assert torch.equal(got_pair.image_BE, want["image_features"])
    assert torch.equal(got_pair.text_BE, want["text_features"])


def test_sine_codes_come_from_integer_coordinates_and_stay() -> None:
    small, large = (make_ours(side, image_position="sincos").visual for side in (2, 5))
    table = large.positional_embedding
    assert not table.requires_grad and not table[0].any()
    grid = table[1:].view(5, 5, 32)
    # The formula by hand: width 32, so eight frequencies; first the column, then the row.
    rates = [10_000 ** (-i / 8) for i in range(8)]
    for row, column in ((0, 3), (4, 1)):
        angles = [[at * rate for rate in rates] for at in (column, row)]
        want = [f(a) for line in angles for f in (math.sin, math.cos) for a in line]
        assert grid[row, column].tolist() == pytest.approx(want, abs=1e-6)
    corner = grid[:2, :2].reshape(4, 32)
    assert torch.equal(corner, small.positional_embedding[1:]), "no rescaling between grids"


@pytest.mark.parametrize("ln_after_pool", [False, True])
def test_the_mean_with_cls_is_over_every_token(ln_after_pool: bool) -> None:
    model = make_ours(3, image_pool="mean_with_cls", ln_after_pool=ln_after_pool).eval()
    with torch.no_grad():  # norms that do something
        model.visual.ln_post.weight.uniform_(0.5, 1.5)
    image, _ = make_batch(3)
    seen: list[torch.Tensor] = []
    model.visual.transformer.register_forward_hook(lambda *given: seen.append(given[2]))
    kept = torch.tensor([[0, 4, 7]]).expand(4, -1)
    with torch.no_grad():
        got, tokens = encode_image(model, image, kept)
        x_BLD, norm = seen[0].double(), model.visual.ln_post.double()
        pooled = norm(x_BLD.mean(1)) if ln_after_pool else norm(x_BLD).mean(1)
    assert (x_BLD.shape[1], tokens) == (4, 3)
    assert torch.allclose(got.double(), pooled @ model.visual.proj.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_masked_padding_is_not_seen(causal: bool, training: bool) -> None:
    seen = make_ours(text_causal=causal).train(training)
    masked = make_ours(text_causal=causal, text_pad="masked").train(training)
    _, ids = make_batch(2)
    other = ids.clone()
    other[:, 5:] = torch.tensor([7, 8, 9])
    full = ids.clone()
    full[:, 4:] = torch.tensor([5, 6, 7, END])
    with torch.no_grad():
        (first, tokens), (second, _) = (encode_text(masked, x) for x in (ids, other))
        assert torch.equal(first, second) and tokens == 8
        unmasked, unmasked_other = (encode_text(seen, x)[0] for x in (ids, other))
        # Behind the end lies nothing that a causal text could see there.
        assert torch.equal(unmasked, unmasked_other) == causal
        assert torch.allclose(first, unmasked, rtol=0, atol=1e-5) == causal
        whole, whole_masked = (encode_text(model, full)[0] for model in (seen, masked))
        assert torch.allclose(whole, whole_masked, rtol=0, atol=1e-5), (
            "without padding there is no mask"
        )


def test_a_masked_text_pooled_at_its_last_place_learns_in_half_precision() -> None:
    model = make_ours(text_causal=False, text_pool="last", text_pad="masked")
    _, ids = make_batch(2)
    with torch.autocast("cpu", torch.bfloat16):
        feature, _ = encode_text(model, ids)
        feature.float().square().sum().backward()
    used = model.token_embedding.weight.grad[ids[:, :5]]
    assert used.isfinite().all() and used.abs().sum() > 0


def make_spec(**changes: Any) -> Any:
    base = {"model": "T32/8", "image_tokens": 4, "samples": 8, "batch_size": 8, "lr": 1e-3}
    return resolve({**base, "data_fingerprint": "x", "store_px": 16, **changes})


def test_a_run_says_what_is_built_and_zero_is_its_objectives_own_start() -> None:
    assert build_of(make_spec()) == Build()
    siglip = build_of(make_spec(objective="siglip"))
    assert siglip == Build(logit_scale_init=10.0, logit_bias_init=-10.0)
    set_by_hand: dict[str, Any] = {"logit_scale_init": 5.0, "logit_bias_init": -3.0}
    assert build_of(make_spec(objective="siglip", **set_by_hand)) == Build(**set_by_hand)
    assert build_of(make_spec(**PAPERS)) == Build(**PAPERS)


def test_scale_and_bias_start_where_they_are_told() -> None:
    image, ids = make_batch(4)
    got = encode_pair(make_ours(logit_scale_init=10.0, logit_bias_init=-10.0), image, ids, None)
    assert got.scale.item() == pytest.approx(10.0) and got.bias is not None
    assert got.bias.item() == -10.0
    assert encode_pair(make_ours(), image, ids, None).bias is None


# Counts


BUILDS = {
    "stock": Build(),
    "papers": Build(**PAPERS, image_position="sincos"),
    "mean_with_cls": Build(image_pool="mean_with_cls", text_pad="masked"),
    "siglip": Build(logit_bias_init=-10.0),
}


BUILT = [(s, b) for s in SIZES for b in BUILDS if b in ("stock", "siglip") or "Conv" not in s]


@pytest.mark.parametrize(("size", "name"), BUILT)
def test_a_built_model_has_the_closed_forms_parameters(size: str, name: str) -> None:
    model, build = load_model(f"{size}/16"), BUILDS[name]
    with torch.device("meta"):
        built = make_model(model, 112, 16, 32_000, 0, build)
    learned = {name: p for name, p in built.named_parameters() if p.requires_grad}
    counts = count_model(
        model,
        49,
        49,
        16,
        32_000,
        ln_pre=build.ln_pre,
        learned_position=build.image_position == "learned",
        logit_bias=build.logit_bias_init is not None,
    )
    tables = ("visual.positional_embedding", "positional_embedding", "token_embedding.weight")
    visual = sum(p.numel() for name, p in learned.items() if name.startswith("visual."))
    assert counts.image_params == visual
    assert counts.total_params == sum(p.numel() for p in learned.values())
    plain = sum(p.numel() for name, p in learned.items() if name not in tables)
    assert counts.nonembedding_params == plain


@pytest.mark.parametrize("keep", [1, 5, 16])
@pytest.mark.parametrize("name", ["stock", "papers", "mean_with_cls"])
def test_kept_patches_cost_what_the_closed_form_says(name: str, keep: int) -> None:
    with torch.device("meta"):
        model = make_model(load_model("T64/8"), 32, 8, 1000, 0, BUILDS[name])
        image = torch.zeros(1, 3, 32, 32)
        kept = torch.zeros(1, keep, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            encode_image(model, image, kept)
    size = load_model("T64/8").size
    assert counter.get_total_flops() == image_flops(size.image, 8, size.embed_dim, keep)
