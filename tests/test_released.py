"""Towers start from released weights: open_clip's own under a tag, or files of any of its kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from loading import load_start
from safetensors.torch import save_file

from clipa_scaling.models import load_model
from clipa_scaling.source import DataError
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.model import Build, encode_pair, make_config, make_model
from clipa_scaling.train.positions import IMAGE_TABLE, treatments
from clipa_scaling.train.released import read_start
from clipa_scaling.weights import BLOCK, BLOCKS, fingerprint_weights

NAME = "tiny-released"
START = f"open_clip:{NAME}/ours"


def make(side: int = 2, seed: int = 1, size: str = "T32/8", **options: Any) -> open_clip.CLIP:
    return make_model(load_model(size), 8 * side, 8, 1000, seed, Build(**options))


def state(model: open_clip.CLIP) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Writes a checkpoint as open_clip's trainer does, and has open_clip know it by a tag."""
    from open_clip import factory, pretrained

    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))

    def make_release(layout: str = "CLIP", **changes: Any) -> Path:
        config: dict[str, Any] = make_config(load_model("T32/8"), 16, 8, 1000)
        for key, value in changes.items():
            part, _, name = key.partition("__")
            if name:
                config[part][name] = value
            else:
                config[part] = value
        kind = open_clip.CustomTextCLIP if layout == "CustomTextCLIP" else open_clip.CLIP
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = kind(**config)
        path = tmp_path / "epoch_1.pt"
        named = {f"module.{name}": value for name, value in model.state_dict().items()}
        torch.save({"epoch": 1, "name": "x", "state_dict": named, "optimizer": {}}, path)
        (tmp_path / f"{NAME}.json").write_text(
            json.dumps({**config, "custom_text": layout == "CustomTextCLIP"})
        )
        open_clip.add_model_config(tmp_path / f"{NAME}.json")
        monkeypatch.setitem(pretrained._PRETRAINED, NAME, {"ours": {"file": str(path)}})
        return path

    yield make_release


@pytest.mark.parametrize("layout", ["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize("kind", ["tag", "pt", "safetensors"])
def test_both_towers_from_one_source_bring_the_scale_and_every_bit(
    kind: str, layout: str, release: Callable[..., Path], tmp_path: Path
) -> None:
    path = release(layout)
    source = open_clip.create_model(NAME, pretrained=str(path)).eval()
    if kind == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(source.state_dict(), path)
    start = START if kind == "tag" else str(path)
    model = make(logit_scale_init=3.0).eval()
    load_start(model, start, start)
    image, text = torch.randn(2, 3, 16, 16), torch.randint(0, 1000, (2, 8))
    with torch.no_grad():
        images, texts, scale = source(image, text)
        got = encode_pair(model, image, text, None)
    assert torch.equal(got.image_BE, images) and torch.equal(got.text_BE, texts)
    assert torch.equal(got.scale, scale)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_tower_alone_leaves_all_else_fresh(tower: str, release: Callable[..., Path]) -> None:
    release()
    model = make()
    fresh = state(model)
    load_start(model, *((START, "") if tower == "image" else ("", START)))
    for name, value in model.state_dict().items():
        in_tower = "image" if name.startswith("visual.") else "text"
        if name != "logit_scale" and not torch.equal(fresh[name], torch.ones_like(value)):
            moved = not torch.equal(value, fresh[name])
            if value.unique().numel() > 1:  # norms and biases start alike
                assert moved == (in_tower == tower), name
    assert torch.equal(model.logit_scale, fresh["logit_scale"])


def test_towers_of_two_sources_meet_under_a_fresh_scale(
    release: Callable[..., Path], tmp_path: Path
) -> None:
    release()
    other = make(seed=3, logit_scale_init=5.0)
    path = tmp_path / "other.safetensors"
    save_file(state(other), path)
    model = make(logit_scale_init=2.0)
    load_start(model, str(path), START)
    assert torch.equal(model.visual.proj, other.visual.proj)
    assert torch.equal(model.text_projection, read_start(model, "", START)["text_projection"])
    assert model.logit_scale.exp().item() == pytest.approx(2.0)


def test_another_grid_is_treated_and_treatments_can_be_tried_in_turn(
    release: Callable[..., Path],
) -> None:
    release(vision_cfg__image_size=32)
    model = make(3)
    initial = state(model)
    theirs = read_start(model, START, START)
    tables = []
    for image_change, text_change in treatments(model, theirs):
        load_start(
            model, START, START, image_change=image_change, text_change=text_change, initial=initial
        )
        tables.append(model.state_dict()[IMAGE_TABLE].clone())
        assert torch.equal(model.visual.proj, theirs["visual.proj"])
    interpolated, extended = tables
    assert not torch.equal(interpolated, extended)
    corner = theirs[IMAGE_TABLE][1:].view(4, 4, 32)[:3, :3]
    assert torch.equal(extended[1:].view(3, 3, 32), corner)


def test_a_scale_in_a_vector_and_a_bias_come_too(tmp_path: Path) -> None:
    source = make(seed=3, logit_scale_init=5.0, logit_bias_init=-7.0)
    weights = state(source)
    weights["logit_scale"] = weights["logit_scale"].reshape(1)
    weights["logit_bias"] = weights["logit_bias"].reshape(1)
    path = str(tmp_path / "weights.safetensors")
    save_file(weights, path)
    model = make(logit_bias_init=-10.0)
    load_start(model, path, path)
    assert model.logit_scale.exp().item() == pytest.approx(5.0) and model.logit_bias.item() == -7
    with pytest.raises(Refused, match="logit_bias is unexpected; allowed"):
        load_start(make(), path, path)
    load_start(make(), path, path, fresh_weights=["logit_bias"])


def test_a_start_that_pools_otherwise_is_said_and_other_heads_are_refused(
    release: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    release(vision_cfg__pool_type="avg", text_cfg__no_causal_mask=True, text_cfg__pool_type="last")
    load_start(make(), START, "")
    assert f"{START}: image_pool is mean there, cls here\n" in (said := capsys.readouterr().out)
    assert "text" not in said, "the text tower is not asked for"
    load_start(make(image_pool="mean"), START, START)
    said = capsys.readouterr().out
    assert f"{START}: text_causal is False there, True here\n" in said
    assert f"{START}: text_pool is last there, eot here\n" in said and "image_pool" not in said
    release(vision_cfg__act_kwargs={"approximate": "tanh"}, text_cfg__norm_kwargs={"eps": 0.1})
    load_start(make(), START, START)
    said = capsys.readouterr().out
    assert ": image activation is GELU(approximate='tanh') there, GELU(approximate='none') " in said
    assert ": text norm's epsilon is 0.1 there, 1e-05 here\n" in said
    release(vision_cfg__head_width=8)
    with pytest.raises(
        Refused, match=f"^{START} does not fit: image heads of width 8, not 16; allowed: "
    ):
        load_start(make(), START, START)
    load_start(make(), "", START)


def test_quick_gelu_is_refused_before_anything_is_fetched(release: Callable[..., Path]) -> None:
    release(quick_gelu=True)
    openai = "open_clip:ViT-B-32/openai"
    for start in (START, openai):
        with pytest.raises(Refused, match=f"^{start}: was trained with QuickGELU, .*allowed: "):
            load_start(make(), start, start)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("no/where.pt", "no/where.pt: no such file; allowed: open_clip:MODEL/TAG, a .safetensors "),
        ("open_clip:ViT-B-32", "open_clip:ViT-B-32: names no weights; allowed: open_clip:MODEL/"),
        (
            "open_clip:ViT-L-14-CLIPPA/datacomp1b",
            "open_clip:ViT-L-14-CLIPPA/datacomp1b: open_clip has no model ViT-L-14-CLIPPA; "
            "nearest: ViT-L-14-CLIPA, ",
        ),
        (
            "open_clip:ViT-H-14-CLIPA-336/laion2",
            "open_clip:ViT-H-14-CLIPA-336/laion2: open_clip has no such weights of "
            "ViT-H-14-CLIPA-336; nearest: laion2b, datacomp1b",
        ),
    ],
)
def test_what_is_not_there_is_refused_with_the_nearest(start: str, message: str) -> None:
    with pytest.raises(Refused, match=f"^{re.escape(message)}"):
        load_start(make(), start, "")


def test_a_hub_out_of_reach_is_refused_in_one_line() -> None:
    """Tests run with HF_HUB_OFFLINE; this is open_clip's own way to its weights."""
    start = "open_clip:ViT-L-14-CLIPA/datacomp1b"
    with pytest.raises(Refused) as error:
        load_start(make(), start, start)
    assert str(error.value).startswith(f"{start}: Failed to download weights for tag 'datacomp1b'")
    assert str(error.value).endswith("or a weights file") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("no weights")
    with pytest.raises(Refused, match=rf"^{path}: .*; allowed: a \.safetensors file, or a \.pt"):
        load_start(make(), str(path), "")
    torch.save({"state_dict": {"visual.proj": 3}}, tmp_path / "odd.pt")
    with pytest.raises(Refused, match="holds no weights by name; allowed"):
        load_start(make(), str(tmp_path / "odd.pt"), "")


def test_another_width_is_refused(release: Callable[..., Path]) -> None:
    release()
    fault = r"text_projection has shape \[32, 32\], not \[48, 48\]"
    with pytest.raises(Refused, match=f"^{START} does not fit: .*; allowed: weights of the same"):
        load_start(make(size="T48/8"), START, START)
    with pytest.raises(Refused, match=fault):
        load_start(make(size="T48/8"), "", START, fresh_weights=["ln_final*", "positional*"])


# Identity


def test_a_tag_is_its_own_fingerprint_and_a_file_is_what_it_holds(tmp_path: Path) -> None:
    tag = "open_clip:ViT-L-14-CLIPA/datacomp1b"
    assert fingerprint_weights(tag) == tag
    first, second = tmp_path / "a.pt", tmp_path / "b.safetensors"
    first.write_bytes(b"12345")
    second.write_bytes(b"12345")
    same = fingerprint_weights(str(first))
    assert re.fullmatch("[0-9a-f]{16}", same) and fingerprint_weights(str(second)) == same
    second.write_bytes(b"12346")
    assert fingerprint_weights(str(second)) != same
    for absent in ("no/file.pt", "open_clip:ViT-B-32"):
        with pytest.raises(DataError, match="; allowed: open_clip:MODEL/TAG"):
            fingerprint_weights(absent)


def test_of_a_large_file_blocks_from_its_first_to_its_last_byte_count(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    size = BLOCK * (BLOCKS + 6)
    with path.open("wb") as file:
        file.truncate(size)  # sparse
    seen = {fingerprint_weights(str(path))}
    places = (0, 32 * (size - BLOCK) // (BLOCKS - 1), size - 1)
    for place in places:
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        seen.add(fingerprint_weights(str(path)))
    with path.open("ab") as file:
        file.truncate(size + 1)
    seen.add(fingerprint_weights(str(path)))
    assert len(seen) == len(places) + 2
