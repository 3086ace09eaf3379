"""The closed form against open_clip: its published profile, its configurations, its models."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from clipa_scaling.cost import price
from clipa_scaling.counts import image_flops, image_params, text_flops, text_params
from clipa_scaling.memory import image_bytes
from clipa_scaling.models import SIZES, ConvNet, Model, Tower

PROFILE = Path(__file__).parents[1] / "results" / "published" / "open_clip_model_profile.csv"


def load_configs() -> dict[str, dict[str, Any]]:
    """open_clip's own configurations, read from the installed package without importing it."""
    package = find_spec("open_clip")
    if package is None or package.origin is None:
        pytest.skip("open_clip is not installed: its model_configs are the other half of this test")
    files = (Path(package.origin).parent / "model_configs").glob("*.json")
    return {file.stem: json.loads(file.read_text()) for file in files}


def is_native(config: dict[str, Any]) -> bool:
    """Whether both towers are open_clip's own transformers (no timm, HF, ResNet, CoCa)."""
    image, text = config["vision_cfg"], config["text_cfg"]
    foreign = "timm_model_name" in image or "hf_model_name" in text or "multimodal_cfg" in config
    return not foreign and isinstance(image["layers"], int)


def profile(config: dict[str, Any]) -> dict[str, float]:
    """The columns of open_clip's profile, from a configuration by the closed form."""
    vision, words, embed = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    width, patch = vision["width"], vision["patch_size"]
    heads = width // vision.get("head_width", 64)
    image = Tower(vision["layers"], width, heads, vision.get("mlp_ratio", 4.0))
    text = Tower(words["layers"], words["width"], words["heads"], words.get("mlp_ratio", 4.0))
    patches = (vision["image_size"] // patch) ** 2
    ln_pre, layer_scale = not vision.get("no_ln_pre", False), "ls_init_value" in vision
    columns = {
        "image_gflops": image_flops(image, patch, embed, patches) / 1e9,
        "text_gflops": text_flops(text, embed, words["context_length"]) / 1e9,
        "image_mparams": image_params(image, patch, embed, patches, ln_pre, layer_scale) / 1e6,
        "text_mparams": text_params(text, embed, words["context_length"], words["vocab_size"])
        / 1e6,
    }
    columns["gflops"] = columns["image_gflops"] + columns["text_gflops"]
    columns["mparams"] = columns["image_mparams"] + columns["text_mparams"] + 1e-6
    return columns


def test_all_native_rows_of_open_clips_profile_are_reproduced() -> None:
    configs, checked = load_configs(), 0
    for row in csv.DictReader(PROFILE.read_text().splitlines()):
        if row["model"] in configs and is_native(configs[row["model"]]):
            for column, value in profile(configs[row["model"]]).items():
                printed = float(row[column])
                assert value == pytest.approx(printed, rel=0, abs=0.01), (row["model"], column)
            checked += 1
    assert checked == 35


@pytest.mark.parametrize(("name", "size"), [("tiny", "T"), ("base", "B")])
def test_the_convnext_rows_of_open_clips_profile_are_reproduced(name: str, size: str) -> None:
    """Its convnext_tiny embeds in 1,024 with B/16's text tower, so images alone can be compared."""
    rows = {row["model"]: row for row in csv.DictReader(PROFILE.read_text().splitlines())}
    row, image = rows[f"convnext_{name}"], SIZES[f"ConvNeXt-{size}"].image
    embed = int(row["embed_dim"])
    assert image_flops(image, 16, embed, 196) / 1e9 == pytest.approx(
        float(row["image_gflops"]), rel=0, abs=0.01
    )
    assert image_params(image, 16, embed, 196) / 1e6 == pytest.approx(
        float(row["image_mparams"]), rel=0, abs=0.01
    )


def make_conv_net(size: str, embed: int) -> Any:
    """open_clip's own tower, without the weights' memory."""
    torch, open_clip = pytest.importorskip("torch"), pytest.importorskip("open_clip")
    image = SIZES[size].image
    assert isinstance(image, ConvNet)
    with torch.device("meta"):
        return open_clip.timm_model.TimmModel(image.timm_name, embed, pool="")


@pytest.mark.parametrize("side", [2, 3, 4, 6, 7, 10, 14])
@pytest.mark.parametrize("size", ["ConvNeXt-A", "ConvNeXt-T", "ConvNeXt-B"])
def test_a_convnext_of_any_size_matches_open_clip_exactly(size: str, side: int) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    visual, image = make_conv_net(size, 96), SIZES[size].image
    count = sum(value.numel() for value in visual.parameters())
    assert count == image_params(image, 16, 96, side**2)
    with FlopCounterMode(display=False) as counter:
        visual(torch.zeros(1, 3, 16 * side, 16 * side, device="meta"))
    assert counter.get_total_flops() == image_flops(image, 16, 96, side**2)


def test_the_published_copy_names_its_source_in_every_row() -> None:
    rows = list(csv.DictReader(PROFILE.read_text().splitlines()))
    assert len(rows) == 85
    assert {row["source"] for row in rows} == {
        "open_clip docs/model_profile.csv, MIT, commit 89fb801"
    }


SMALL = (
    (Tower(3, 64, 4), Tower(2, 64, 4), 64, 8, 500),
    (Tower(2, 96, 3, mlp_ratio=4.9231), Tower(3, 48, 3, mlp_ratio=2.5), 40, 5, 300),
)


def make_open_clip(
    small: tuple[Tower, Tower, int, int, int], side: int, text_tokens: int, **vision: Any
) -> Any:
    """A stock open_clip CLIP whose image is side x side patches."""
    open_clip = pytest.importorskip("open_clip")
    image, text, embed, patch, vocab = small
    return open_clip.CLIP(
        embed_dim=embed,
        vision_cfg={
            "image_size": side * patch,
            "patch_size": patch,
            "width": image.width,
            "layers": image.layers,
            "head_width": image.head_width,
            "mlp_ratio": image.mlp_ratio,
            **vision,
        },
        text_cfg={
            "context_length": text_tokens,
            "vocab_size": vocab,
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
            "mlp_ratio": text.mlp_ratio,
        },
    )


@pytest.mark.parametrize("small", SMALL, ids=["T64", "odd"])
@pytest.mark.parametrize(("side", "text_tokens"), [(1, 4), (4, 8), (6, 16), (7, 32), (14, 77)])
def test_any_length_matches_open_clip_exactly(
    small: tuple[Tower, Tower, int, int, int], side: int, text_tokens: int
) -> None:
    """FlopCounterMode counts mm, addmm, bmm, convolution and some fused attention; nothing else.

    Attention is kept to plain products, since torch 2.14 does not count its fused kernel for CPUs;
    the model is in training mode, since the fused inference layer is not counted either.
    """
    torch = pytest.importorskip("torch")
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    image, text, embed, patch, vocab = small
    model = make_open_clip(small, side, text_tokens).train()
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    visual = sum(count for name, count in sizes.items() if name.startswith("visual."))
    assert visual == image_params(image, patch, embed, side**2)
    assert sum(sizes.values()) - visual - 1 == text_params(text, embed, text_tokens, vocab)

    pixels = torch.zeros(1, 3, side * patch, side * patch)
    words = torch.ones(1, text_tokens, dtype=torch.long)
    for encode, given, expected in (
        (model.encode_image, pixels, image_flops(image, patch, embed, side**2)),
        (model.encode_text, words, text_flops(text, embed, text_tokens)),
    ):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            encode(given)
        assert counter.get_total_flops() == expected


@pytest.mark.parametrize(
    ("vision", "flags"),
    [
        ({"no_ln_pre": True}, {"ln_pre": False}),
        ({"ls_init_value": 1e-4}, {"layer_scale": True}),
        ({"pool_type": "avg", "final_ln_after_pool": True}, {}),
        ({"pos_embed_type": "sin_cos_2d"}, {"learned_position": False}),
    ],
    ids=["no_ln_pre", "layer_scale", "mean pooling", "sine codes"],
)
def test_variants_of_the_image_tower_match_open_clip(
    vision: dict[str, Any], flags: dict[str, bool]
) -> None:
    small = SMALL[0]
    model = make_open_clip(small, side=4, text_tokens=8, **vision)
    learned = (value for value in model.visual.parameters() if value.requires_grad)
    count = sum(value.numel() for value in learned)
    assert count == image_params(small[0], small[3], small[2], 16, **flags)


def measure_kept(model: Any, *given: Any) -> int:
    """Bytes that autograd keeps of one forward: distinct storages, parameters excepted."""
    torch = pytest.importorskip("torch")
    ours = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: list[Any] = []

    def keep(tensor: Any) -> Any:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = model(*given)
        if not isinstance(features, torch.Tensor):
            images, texts, scale = features
            logits, right = scale * images @ texts.T, torch.arange(len(images))
            entropy = torch.nn.functional.cross_entropy
            features = entropy(logits, right) + entropy(logits.T, right)
        features.sum().backward()
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in kept}
    return sum(size for place, size in storages.items() if place not in ours)


def test_estimated_activations_are_what_autograd_keeps() -> None:
    """In fp32, everything but the state."""
    torch = pytest.importorskip("torch")
    image, text, patch, vocab, pairs = Tower(4, 128, 4), Tower(3, 128, 4), 8, 500, 32
    open_clip = make_open_clip((image, text, 128, patch, vocab), side=7, text_tokens=16).train()
    given = (torch.zeros(pairs, 3, 56, 56), torch.ones(pairs, 16, dtype=torch.long))
    measured = measure_kept(open_clip, *given)

    model = Model(replace(SIZES["T128"], image=image, text=text), patch)
    cost = price(
        model,
        image_tokens=49,
        position_tokens=49,
        text_tokens=16,
        vocab_size=vocab,
        samples=1,
        micro_batch=pairs,
        precision="fp32",
        grad_checkpointing=False,
        device="cpu-core",
        gpus=1,
    )
    assert cost.memory_bytes - 16 * cost.total_params == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("side", [4, 7])
@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_estimated_activations_of_a_convnext_are_too(side: int, grad_checkpointing: bool) -> None:
    torch, open_clip = pytest.importorskip("torch"), pytest.importorskip("open_clip")
    image = SIZES["ConvNeXt-A"].image
    visual = open_clip.timm_model.TimmModel("convnext_atto", 64, pool="")
    visual.set_grad_checkpointing(grad_checkpointing)
    measured = measure_kept(visual, torch.zeros(1, 3, 16 * side, 16 * side))
    estimate = image_bytes(image, side**2, "fp32", grad_checkpointing)
    if not grad_checkpointing:
        assert estimate == pytest.approx(measured, rel=0.1)
    else:  # the layer that is recomputed comes later, in the backward pass
        assert measured < estimate < image_bytes(image, side**2, "fp32", False)
