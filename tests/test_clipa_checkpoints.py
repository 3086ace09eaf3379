"""Checkpoints as CLIPA's are released, from open_clip's own configurations, in and out again.

Their weights cannot be had here: they are random ones, saved by open_clip as its trainer and its
hub do. L, H and bigG have their own widths, heads, vocabulary and 224 px, and one layer a tower.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from make_data import encode, make_picture, write_shards
from small_sweep import run_sweep, write_small
from stock_open_clip import ask_stock, run_export
from test_wordpiece import write_vocabulary

from clipa_scaling import models
from clipa_scaling.correct import unpack_bits
from clipa_scaling.launch.packs import write_request
from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir, make_run, read_json
from clipa_scaling.spec import spec_to_json
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.evaluate import encode_classes
from clipa_scaling.train.export import export, export_run
from clipa_scaling.train.features import encode_ids, encode_images
from clipa_scaling.train.model import Build, make_config, make_model
from clipa_scaling.train.pack import pack
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.released import read_start
from clipa_scaling.train.stopping import StopFlag
from clipa_scaling.train.tokenize import encode_texts
from clipa_scaling.train.trainer import Trainer
from clipa_scaling.train.world import World

pytest.importorskip("tokenizers", reason="pip install 'clipa_scaling[wordpiece]'")
pytest.importorskip("transformers", reason="open_clip's tokenizer needs it")

NAMES = {"L": "ViT-L-14-CLIPA", "H": "ViT-H-14-CLIPA", "G": "ViT-bigG-14-CLIPA"}
CLASSES = ("cat", "large dog", "red star walking")
PROMPTS = ["a photo of the {}", "many a {}, !" + " many" * 40]
TEXTS = [prompt.replace("{}", name) for name in CLASSES for prompt in PROMPTS]

SWEEP = """\
name: released
data:
  train: shards
  store_px: 224
  vocab: words/vocab.txt
  evals:
    few: {path: few, task: classify, prompts: PROMPTS}
fixed:
  model: MODEL
  image_tokens: TOKENS
  text_tokens: 32
  samples: 8
  batch_size: 8
  lr: 1e-4
  crop_min_area: 1.0
  precision: fp32
  tokenizer: wordpiece
  image_pool: mean
  ln_pre: false
  ln_after_pool: true
  text_causal: false
  text_pool: last
  image_start: START
  text_start: START
resources: {gpu: cpu-core}
"""


def write_sweep(folder: Path, model: str, start: str, px: int = 224) -> Path:
    tokens = (px // int(model.rpartition("/")[2])) ** 2
    text = SWEEP.replace("MODEL", model).replace("TOKENS", str(tokens)).replace("START", start)
    return write_small(folder, text.replace("224", str(px)).replace("PROMPTS", json.dumps(PROMPTS)))


def write_data(folder: Path, px: int) -> None:
    """Pairs, two pictures a class at the evaluation size, and a vocabulary."""
    write_shards(folder / "shards", 1, 8, px=px)
    for number, name in enumerate(CLASSES * 2):
        (folder / "few" / name).mkdir(parents=True, exist_ok=True)
        picture = encode(make_picture(px, px, number))
        (folder / "few" / name / f"{number}.png").write_bytes(picture)
    write_vocabulary(folder / "words")
    (folder / "words" / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )


def save_release(folder: Path, config: dict[str, Any], tokenizer: Path, seed: int = 5) -> None:
    """Random weights as open_clip saves them: its hub's folder, and its trainer's `epoch_1.pt`."""
    from open_clip.push_to_hf_hub import save_for_hf
    from open_clip.tokenizer import HFTokenizer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config)
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    open_clip.model.set_model_preprocess_cfg(model, {"mean": [0.5] * 3, "std": [0.5] * 3})
    words = HFTokenizer(str(tokenizer), context_length=32, strip_sep_token=True)
    save_for_hf(model, words, config, str(folder / "released"), safe_serialization=True)
    named = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 1, "name": "x", "state_dict": named}, folder / "epoch_1.pt")


# The three sizes, before the first step


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data for a sweep in this folder, packed."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, 224)
    (folder / "first.safetensors").write_bytes(b"")
    for request in load_sweep(write_sweep(folder, "L/14", "first.safetensors"), folder / "p").packs:
        write_request(request)
        pack(request.folder, 1)
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The three sizes with one layer a tower."""
    for name in NAMES:
        size = models.SIZES[name]
        assert isinstance(size.image, models.Tower)
        image, text = replace(size.image, layers=1), replace(size.text, layers=1)
        monkeypatch.setitem(models.SIZES, name, replace(size, image=image, text=text))
    load_model.cache_clear()
    yield
    monkeypatch.undo()
    load_model.cache_clear()


def shorten(name: str) -> dict[str, Any]:
    config: dict[str, Any] = open_clip.get_model_config(name)
    config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 1
    return config


@pytest.mark.parametrize("size", NAMES)
@torch.no_grad()
def test_a_release_gives_open_clips_logits_before_the_first_step_and_goes_out_again(
    size: str, data: Path, short: None, tmp_path: Path
) -> None:
    save_release(tmp_path, shorten(NAMES[size]), data / "words")
    start = f"local-dir:{tmp_path / 'released'}"
    spec = load_sweep(write_sweep(data, f"{size}/14", start), data / "p").grid.runs[0].spec
    assert spec.kind == "finetune" and spec.vocab_size == 32_000
    pictures = Pack.open(Path(spec.evals[0].pack))
    tokenizer, want_NC = ask_release(start, pictures)
    assert want_NC.std() > 1e-3, "they say something"

    run = RunDir(tmp_path / "run")
    make_run(run, spec_to_json(spec))
    (run.attempts / "1").mkdir(parents=True)
    begun = Trainer(spec, run, 1, StopFlag(), World(torch.device("cpu")))
    begun.resume()
    begun.compare_positions()
    setting = begun.evaluator.setting
    ids = encode_texts(TEXTS, setting.vocab)
    image_NE, tokens = encode_images(begun.model.eval(), pictures, setting)
    class_CE = encode_classes(begun.model, ids, len(CLASSES), setting)
    logits_NC = begun.model.logit_scale.exp() * image_NE @ class_CE.T
    assert tokens == 256 and torch.allclose(logits_NC, want_NC, rtol=0, atol=1e-5)
    rows = [row for row in read_json(run.evals)["rows"] if row["name"] == "accuracy"]
    assert [(row["samples"], row["positions"]) for row in rows] == [(0, "as they were")]
    right = (want_NC.argmax(dim=1).numpy() == pictures.labels).tolist()
    assert unpack_bits(rows[0]["correct"], rows[0]["n"]).tolist() == right

    ours, file = begun.model.state_dict(), str(tmp_path / "epoch_1.pt")
    from_file = read_start(begun.model, file, file)
    assert from_file.keys() == ours.keys()
    assert all(torch.equal(from_file[name], ours[name]) for name in ours)
    del from_file

    export(spec, spec, ours, tmp_path / "out", run)
    again = open_clip.create_model(f"local-dir:{tmp_path / 'out'}").eval()
    words = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    assert torch.equal(words(TEXTS), tokenizer(TEXTS))
    image_again = again.encode_image(as_open_clip_does(pictures)[:2], normalize=True)
    assert torch.allclose(image_again, image_NE[:2], rtol=0, atol=1e-6)
    text_again = again.encode_text(words(TEXTS), normalize=True)
    text_NE = encode_ids(begun.model, ids, setting)
    assert torch.allclose(text_again, text_NE, rtol=0, atol=1e-6)


def ask_release(start: str, pictures: Pack) -> tuple[Any, torch.Tensor]:
    """The tokenizer, and (N, C) zero-shot logits, of stock open_clip."""
    stock, tokenizer = open_clip.create_model(start).eval(), open_clip.get_tokenizer(start)
    class_EC = open_clip.build_zero_shot_classifier(stock, tokenizer, CLASSES, PROMPTS)
    image_NE = stock.encode_image(as_open_clip_does(pictures), normalize=True)
    return tokenizer, stock.logit_scale.exp() * image_NE @ class_EC


def as_open_clip_does(pictures: Pack) -> torch.Tensor:
    """All pictures through its transform, with CLIP's mean and deviation."""
    from open_clip.transform import image_transform
    from PIL import Image

    transform = image_transform(224, is_train=False)
    found = pictures.pictures(0, pictures.count)
    return torch.stack([transform(Image.fromarray(picture)) for picture in found])


# A tiny one through the commands


def tiny_config() -> dict[str, Any]:
    papers = Build("learned", "mean", ln_pre=False, ln_after_pool=True, text_causal=False)
    papers = replace(papers, text_pool="last")
    config = make_config(load_model("T32/8"), 16, 32, 32_000, papers)
    config["text_cfg"] |= {
        "hf_tokenizer_name": "bert-base-uncased",
        "tokenizer_kwargs": {"strip_sep_token": True},
    }
    return config


@pytest.mark.slow
def test_a_folder_is_finetuned_by_a_sweep_and_exported(tmp_path: Path) -> None:
    write_data(tmp_path, 16)
    save_release(tmp_path, tiny_config(), tmp_path / "words")
    sweep = write_sweep(tmp_path, "T32/8", "local-dir:released", px=16)
    done = run_sweep(sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (tmp_path / "runs").glob("finetune-*")
    rows = [row for row in read_json(path / "evals.json")["rows"] if row["name"] == "accuracy"]
    assert [row["samples"] for row in rows] == [0, 8]
    exported = run_export(str(path), str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    said = ask_stock(tmp_path / "out", tmp_path / "few", *PROMPTS)
    assert said["correct"] == unpack_bits(rows[1]["correct"], rows[1]["n"]).tolist()
    text = PROMPTS[0].replace("{}", CLASSES[0])
    ids = encode_texts([text], str(tmp_path / "words" / "vocab.txt"))[0, :32]
    assert np.array_equal(said["ids"], ids)


# Folders that are none


def refused(start: Path | str) -> str:
    model = make_model(load_model("T32/8"), 16, 8, 1000, 0)
    with pytest.raises(Refused) as error:
        read_start(model, str(start), "")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folders_without_weights_or_configuration_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path).startswith(f"{tmp_path}: has no weights, such as open_clip_model.safe")
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"x")
    assert refused(f"local-dir:{tmp_path}").startswith(f"{tmp_path}: has no open_clip_config.json;")
    (tmp_path / "open_clip_config.json").write_text("{")
    assert refused(tmp_path).startswith(f"{tmp_path}: open_clip_config.json: ")
    config = {"model_cfg": make_config(load_model("T32/8"), 16, 8, 1000)}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert refused(tmp_path).endswith("or a weights file")
    config["model_cfg"]["quick_gelu"] = True
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert "QuickGELU" in refused(tmp_path)


def test_a_lost_vocabulary_is_said_at_export(tmp_path: Path) -> None:
    write_data(tmp_path, 16)
    (tmp_path / "first.safetensors").write_bytes(b"")
    sweep = load_sweep(write_sweep(tmp_path, "T32/8", "first.safetensors", px=16), tmp_path / "p")
    spec, run = sweep.grid.runs[0].spec, RunDir(tmp_path / "run")
    with pytest.raises(Refused, match="has no vocab.txt, the run's vocabulary"):
        export(spec, spec, {}, tmp_path / "out", run)
    with pytest.raises(Refused, match="is no run"):
        export_run(run, tmp_path / "out")
