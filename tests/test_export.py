"""A run's exported folder is loaded by stock open_clip, to the same features and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from make_data import encode, pack_here
from safetensors.torch import load_file
from single_run import PX, TINY, pack_scenes, plan_run
from stock_open_clip import ask_stock

from clipa_scaling.correct import unpack_bits
from clipa_scaling.models import load_model
from clipa_scaling.resolve import resolve
from clipa_scaling.rundir import DONE, RunDir, make_run, read_json, read_state
from clipa_scaling.source import Source
from clipa_scaling.spec import EvalSet, RunSpec
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.export import at_lengths, export, export_run, main
from clipa_scaling.train.loop import work
from clipa_scaling.train.model import build_of, encode_pair, make_model, make_unit
from clipa_scaling.train.positions import IMAGE_TABLE, TEXT_TABLE, make_codes
from clipa_scaling.train.scenes import CLASS_NAMES, make_scenes

PROMPTS = ("a large {}", "a photo of a {} and a small plain star in the top left")
PAPERS: dict[str, Any] = {"image_pool": "mean", "ln_pre": False, "ln_after_pool": True}
PAPERS |= {"text_causal": False, "text_pool": "last"}
OPTIONS: dict[str, dict[str, Any]] = {
    "stock": {},
    "sincos": {"image_position": "sincos"},
    "mean": {"image_pool": "mean"},
    "no first norm": {"ln_pre": False},
    "norm after pooling": {"ln_after_pool": True},
    "not causal": {"text_causal": False},
    "last": {"text_pool": "last"},
    "papers": PAPERS,
    "siglip": {"objective": "siglip", "logit_bias_init": -7.0},
    "masks": {"image_reduction": "random", "image_size": 32, "image_tokens": 5},
    "convnext": {"model": "ConvNeXt-A/16", "image_tokens": 4},
}


def make_spec(**changes: Any) -> RunSpec:
    return resolve({**TINY, "data_fingerprint": "x", **changes})


def make_ours(spec: RunSpec, seed: int = 1) -> open_clip.CLIP:
    """A model whose every weight differs from what a fresh one has."""
    sizes = spec.image_size, spec.text_tokens, spec.vocab_size, seed
    model = make_model(load_model(spec.model), *sizes, build_of(spec)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def make_pairs(spec: RunSpec) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    text = torch.randint(1, 1000, (3, spec.text_tokens), generator=generator)
    text[:, 4], text[:, 5:] = 49_407, 0
    return torch.randn(3, 3, spec.image_size, spec.image_size, generator=generator), text


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_every_option_is_loaded_to_the_same_features(name: str, tmp_path: Path) -> None:
    spec = make_spec(**OPTIONS[name])
    model = make_ours(spec)
    export(spec, spec, model.state_dict(), tmp_path / "out", RunDir(tmp_path / "none"))
    stock, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    stock.eval()
    assert open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")(["x"]).shape == (1, 8)
    image, text = make_pairs(spec)
    ours = encode_pair(model, image, text, None)
    theirs = stock.encode_image(image, normalize=True), stock.encode_text(text, normalize=True)
    assert torch.allclose(ours.image_BE, theirs[0], rtol=0, atol=1e-6)
    assert torch.allclose(ours.text_BE, theirs[1], rtol=0, atol=1e-6)
    assert torch.equal(stock.logit_scale, model.logit_scale)
    assert stock.logit_bias is model.logit_bias is None or stock.logit_bias == model.logit_bias


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_pool": "mean_with_cls"}, "image_pool=mean_with_cls has no .*allowed: cls, mean"),
        ({"text_pad": "masked"}, "text_pad=masked has no word .*; allowed: seen"),
    ],
)
def test_what_open_clip_cannot_express_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=f"^{message}"):
        at_lengths(make_spec(**changes), 0, 0)


@pytest.mark.parametrize(
    ("size", "text_tokens", "message"),
    [
        (20, 0, "--size 20 is no multiple of patch 8; nearest: 16"),
        (-8, 0, "--size -8 is no multiple of patch 8; nearest: 8"),
        (0, -1, "--text-tokens -1 is below 1"),
    ],
)
def test_odd_lengths_are_refused(size: int, text_tokens: int, message: str) -> None:
    with pytest.raises(Refused, match=f"^{message}"):
        at_lengths(make_spec(), size, text_tokens)


@pytest.mark.parametrize("change", ["interpolate", "extend", "recompute"])
def test_another_size_has_positions_as_the_run_treats_them(change: str, tmp_path: Path) -> None:
    codes = {"image_position": "sincos"} if change == "recompute" else {}
    how = {"image_position_change": change, "text_position_change": "extend"}
    start = {"start_fingerprint": "x", "image_start": "x"} | how
    # Codes of a first stage are made anew too, though it has nothing to change itself.
    spec = make_spec(**codes, **({} if change == "recompute" else start))
    model, target = make_ours(spec), at_lengths(spec, 24, 12)
    export(spec, target, model.state_dict(), tmp_path / "out", RunDir(tmp_path / "none"))
    stock = open_clip.create_model(f"local-dir:{tmp_path / 'out'}")
    table, old = stock.state_dict()[IMAGE_TABLE], model.state_dict()[IMAGE_TABLE]
    assert len(table) == 10 and stock.context_length == 12
    if change == "recompute":
        assert torch.equal(table, make_codes(table))
    elif change == "extend":
        assert torch.equal(table[1:].view(3, 3, -1)[:2, :2].flatten(0, 1), old[1:])
        text = stock.state_dict()[TEXT_TABLE]
        assert torch.equal(text[:8], model.state_dict()[TEXT_TABLE])
    else:
        whole = open_clip.create_model(f"local-dir:{tmp_path / 'out'}", force_image_size=24)
        weights = dict(model.state_dict())
        open_clip.model.resize_pos_embed(weights, whole)
        assert torch.equal(table, weights[IMAGE_TABLE])
    with torch.no_grad():
        assert stock.encode_image(torch.zeros(1, 3, 24, 24)).isfinite().all()


# A trained run, and stock open_clip in a process that has nothing of ours


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of PNGs at the evaluation size."""
    folder = tmp_path_factory.mktemp("pictures")
    drawn, _, labels = make_scenes(5, 0, 1_200, PX)
    for number, (picture, label) in enumerate(zip(drawn, labels, strict=True)):
        place = folder / CLASS_NAMES[int(label)]
        if int(label) % 8 == 0:  # 32 classes
            place.mkdir(exist_ok=True)
            (place / f"{number:04d}.png").write_bytes(encode(picture))
    return folder


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of a few seconds that tells some of the classes apart."""
    folder = tmp_path_factory.mktemp("trained")
    source = Source("folder", str(pictures))
    test = pack_here(folder / "labels", source, PX, "labels")
    train = pack_scenes(folder / "train", 4_000, 3)
    sets = EvalSet("pngs", "classify", str(test.folder), test.fingerprint, PROMPTS)
    how: dict[str, Any] = {"batch_size": 64, "samples": 64 * 200, "warmup_samples": 640}
    how |= {"lr": 3e-3, "text_tokens": 12, "crop_min_area": 1.0, "checkpoint_every_samples": 0}
    run = plan_run(folder / "run", train, evals=(sets,), **how)
    assert work(run) == (DONE, None), read_state(run).reason
    return run


def test_stock_open_clip_gives_the_runs_own_answers(
    trained: RunDir, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["export", str(trained.path), str(tmp_path / "deep" / "out")])
    assert main() == 0
    said = ask_stock(tmp_path / "deep" / "out", pictures, *PROMPTS)
    [row] = [row for row in read_json(trained.evals)["rows"] if row["name"] == "accuracy"]
    assert np.mean(said["correct"]) == row["value"] > 1.5 / 32, "of 32 classes, above chance"
    assert said["correct"] == unpack_bits(row["correct"], row["n"]).tolist()
    assert row["truncated"] > 0, "cut prompts are among those that agree"
    card = (tmp_path / "deep" / "out" / "README.md").read_text()
    assert f"| pngs | common | accuracy | {row['value']:.6g} | {row['n']} |" in card
    assert "| lr | 0.003 |" in card and trained.path.name in card


def test_larger_pictures_differ_by_what_resizing_does(trained: RunDir, tmp_path: Path) -> None:
    """Four times the size: open_clip's bicubic is not our packing, and nearly."""
    from open_clip.transform import image_transform
    from PIL import Image

    from clipa_scaling.train.pictures import normalise
    from clipa_scaling.train.shards import decode_picture

    export_run(trained, tmp_path / "out")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    drawn, _, _ = make_scenes(6, 0, 64, 4 * PX)
    ours = normalise(np.stack([decode_picture(encode(picture), PX) for picture in drawn]))
    theirs = torch.stack([transform(Image.fromarray(picture)) for picture in drawn])
    bilinear = image_transform(PX, False, interpolation="bilinear")
    others = torch.stack([bilinear(Image.fromarray(picture)) for picture in drawn])
    apart, worse = ((x - ours).abs().mean().item() for x in (theirs, others))
    assert apart < 1e-6 < worse, "stored at the evaluation size, bicubic is what packing does"
    with torch.no_grad():
        features = [make_unit(model.eval().encode_image(x)) for x in (ours, theirs)]
    assert torch.allclose(features[0], features[1], rtol=0, atol=1e-5)


def test_mistakes_are_refused_in_one_line(
    trained: RunDir,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.mkdir()
    fresh = RunDir(tmp_path / "fresh")
    make_run(fresh, read_json(trained.spec))
    for words, message in (
        ((trained.path, there), f"{there}: exists; allowed: a folder that does not"),
        ((missing, there / "x"), f"{missing}: is no run; allowed: a run that is done"),
        ((fresh.path, there / "x"), f"{fresh.path}: is planned; allowed: a run that is"),
        ((trained.path, there / "x", "--size", "20"), "--size 20 is no multiple of patch 8"),
    ):
        monkeypatch.setattr("sys.argv", ["export", *map(str, words)])
        assert main() == 2
        said = capsys.readouterr().err
        assert said.startswith(message) and said.count("\n") == 1
    assert not list(there.iterdir()), "nothing is left behind"


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec()
    monkeypatch.setattr("clipa_scaling.train.export.write_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        weights = make_ours(spec).state_dict()
        export(spec, spec, weights, tmp_path / "out", RunDir(tmp_path / "none"))
    assert not list(tmp_path.iterdir())


def test_the_exported_weights_are_the_runs_bit_for_bit(trained: RunDir, tmp_path: Path) -> None:
    export_run(trained, tmp_path / "out")
    last = trained.last_checkpoint()
    assert last is not None
    theirs = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    ours = load_file(last / "weights.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
