"""Evaluation against plain re-computations, and models whose right answers are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import pytest
import torch
from known_model import Known, encode_image, encode_text
from make_data import encode, write_request, write_shards, write_tar
from open_clip.tokenizer import SimpleTokenizer

from clipa_scaling.correct import unpack_bits
from clipa_scaling.models import load_model
from clipa_scaling.rundir import write_json
from clipa_scaling.source import DataError, Source
from clipa_scaling.spec import EvalSet
from clipa_scaling.train import evaluate, features
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.features import Setting, StopRequested
from clipa_scaling.train.loss import contrastive_loss
from clipa_scaling.train.model import make_model, make_unit
from clipa_scaling.train.pack import check_pieces, make_head
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.part import write_part
from clipa_scaling.train.pieces import load_request
from clipa_scaling.train.tokenize import encode_texts

SETTING = Setting(8, 8, 4, ("common",), torch.device("cpu"), False, should_stop=lambda: False)
REAL = replace(SETTING, image_size=16, text_tokens=10)
NAMES = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]
LABELS = [[NAMES[number * 3 % 7]] for number in range(30)]
# Of 40 pictures; some have captions of others too, the first has one caption twice.
WORDS = [f"word {number}" for number in range(29)]
PAIRS = [[WORDS[n % 29], *([WORDS[n * 7 % 29]] if n % 3 == 0 else [])] for n in range(40)]
TOKENIZE, TOKENIZE_10 = SimpleTokenizer(), SimpleTokenizer(context_length=10)
Task = Literal["classify", "retrieve"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def let_known_models_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "encode_image", encode_image)
    monkeypatch.setattr(features, "encode_text", encode_text)


def make_set(folder: Path, task: Task, where: str, px: int, *prompts: str) -> EvalSet:
    """A set packed in this process, part by part."""
    source = Source("shards", where, caption="captions", label=None)
    needs = "labels" if task == "classify" else "captions"
    request = load_request(write_request(folder, source, px, needs))
    pieces = check_pieces(request)
    parts = [write_part(folder, n, piece, request) for n, piece in enumerate(pieces)]
    write_json(folder / "pack.json", make_head([*parts], request))
    return EvalSet("set", task, str(folder), request.fingerprint, prompts or ("{}",))


def known_set(folder: Path, samples: Sequence[Sequence[str]], task: Task, *prompts: str) -> EvalSet:
    """Pictures that tell their numbers, each with its captions, the first its class too."""
    members: list[tuple[str, bytes | None]] = []
    for number, texts in enumerate(samples):
        captions = json.dumps({"captions": texts}).encode()
        members += [(f"{number}.png", encode(np.full((8, 8, 3), number, np.uint8)))]
        members += [(f"{number}.json", captions), (f"{number}.cls", texts[0].encode())]
    return make_set(folder / task, task, str(write_tar(folder / "0.tar", members)), 8, *prompts)


def real_set(folder: Path, task: Task, *prompts: str) -> EvalSet:
    """Ten pictures of three classes with two captions each."""
    return make_set(folder / task, task, write_shards(folder / "data", 2, 5), 32, *prompts)


def make_real(size: int = 16) -> open_clip.CLIP:
    return make_model(load_model("T32/8"), size, REAL.text_tokens, 49_408, seed=3).eval()


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measure(model: Any, item: EvalSet, setting: Setting = SETTING) -> dict[str, dict[str, Any]]:
    """The rows of one set, by name."""
    rows = Evaluator((item,), setting).evaluate(model, 64)
    for row in rows:
        assert (row["samples"], row["set"], row["fingerprint"]) == (64, "set", item.benchmark)
    return {row["name"]: row for row in rows}


def rank(query: np.ndarray, others: np.ndarray, right: Sequence[bool]) -> int:
    """By the definition: wrong answers that score at least as high as the best right one."""
    unit = query / np.linalg.norm(query)
    scores = np.array([(unit * other / np.linalg.norm(other)).sum() for other in others])
    return int((scores >= scores[right].max())[~np.array(right)].sum())


def check_row(row: dict[str, Any], right: Sequence[bool]) -> None:
    """The bits are those expected and the value their mean, neither 0 nor 1, which prove little."""
    bits = unpack_bits(row["correct"], row["n"])
    assert bits.tolist() == list(right)
    assert row["value"] == bits.mean() and 0 < row["value"] < 1


@pytest.mark.parametrize("tied", [False, True])
def test_top_1_and_top_5_equal_a_plain_count(tmp_path: Path, tied: bool) -> None:
    image_NE, class_CE = draw(0, 30, 5), draw(1, 7, 5)
    if tied:
        class_CE[3] = class_CE[6]
    rows = measure(Known(image_NE, NAMES, class_CE), known_set(tmp_path, LABELS, "classify"))
    image, text = image_NE.double().numpy(), class_CE.double().numpy()
    ranks = [rank(image[n], text, [[name] == LABELS[n] for name in NAMES]) for n in range(30)]
    assert rows.keys() == {"accuracy", "accuracy_top5"}
    check_row(rows["accuracy"], [wrong < 1 for wrong in ranks])
    check_row(rows["accuracy_top5"], [wrong < 5 for wrong in ranks])


@pytest.mark.parametrize("width", [5, 7, 48, 96])
def test_a_collapsed_model_is_never_right(tmp_path: Path, width: int) -> None:
    image_NE, text_ME = draw(0, 1, width).expand(40, -1), draw(1, 1, width).expand(29, -1)
    rows = measure(Known(image_NE, NAMES, text_ME), known_set(tmp_path, LABELS, "classify"))
    rows |= measure(Known(image_NE, WORDS, text_ME), known_set(tmp_path, PAIRS, "retrieve"))
    assert {row["value"] for name, row in rows.items() if name != "loss"} == {0}


def test_a_broken_model_is_never_right_and_its_loss_unknown(tmp_path: Path) -> None:
    image_NE, text_ME = draw(0, 40, 5), draw(1, 29, 5)
    image_NE[4] = torch.inf
    rows = measure(Known(image_NE, NAMES, text_ME), known_set(tmp_path, LABELS, "classify"))
    rows |= measure(Known(image_NE, WORDS, text_ME), known_set(tmp_path, PAIRS, "retrieve"))
    for name, count in {"accuracy_top5": 30, "image_to_text_r10": 40}.items():
        bits = unpack_bits(rows[name]["correct"], count)
        assert bits.any() and not bits[4]
    assert rows["loss"]["value"] is None
    json.dumps(list(rows.values()), allow_nan=False)


@pytest.mark.parametrize("count", [1, 4, 5, 6])
def test_guesses_that_cannot_miss_have_no_value(tmp_path: Path, count: int) -> None:
    texts, same = NAMES[:count], draw(0, count, 9)
    model = Known(same, texts, same)
    rows = measure(model, known_set(tmp_path, [[text] for text in texts], "classify"))
    rows |= measure(model, known_set(tmp_path, [[text] for text in texts], "retrieve"))
    for name, k in {"accuracy": 1, "accuracy_top5": 5, "image_to_text_r1": 1}.items():
        assert rows[name]["value"] == (1.0 if count > k else None)
        assert (rows[name]["correct"] == "") == (count <= k)
    assert rows["text_to_image_r10"]["value"] is None
    assert (rows["loss"]["value"] is None) == (count == 1)


@pytest.mark.parametrize("prompts", [("{}",), ("a photo of a {}", "the {}, and on to beyond 10")])
def test_class_weights_are_open_clips(prompts: tuple[str, ...]) -> None:
    model = make_real()
    want = open_clip.build_zero_shot_classifier(model, TOKENIZE_10, NAMES, prompts)
    ids = encode_texts([prompt.replace("{}", name) for name in NAMES for prompt in prompts])
    with torch.no_grad():
        got = evaluate.encode_classes(model, ids, 7, REAL)
    assert torch.allclose(got, want.T, rtol=0, atol=1e-6)


def test_paper_is_open_clips_80_templates_and_common_the_sets_own(tmp_path: Path) -> None:
    setting = replace(REAL, protocols=("common", "paper"))
    item, model = real_set(tmp_path, "classify", "{}", "{x} of a {}"), make_real()
    rows = Evaluator((item,), setting).evaluate(model, 0)
    pack, paper = Pack.open(Path(item.pack)), open_clip.OPENAI_IMAGENET_TEMPLATES
    common: list[Any] = [str, lambda name: f"{{x}} of a {name}"]
    assert (len(rows), len(paper)) == (4, 80)
    with torch.no_grad():
        image_NE, _ = features.encode_images(model, pack, setting)
    for row, protocol, fills in ((rows[0], "common", common), (rows[2], "paper", paper)):
        names = pack.class_names
        weights = open_clip.build_zero_shot_classifier(model, TOKENIZE_10, names, fills)
        assert (row["protocol"], row["name"]) == (protocol, "accuracy")
        check_row(row, ((image_NE @ weights).argmax(dim=1).numpy() == pack.labels).tolist())
        texts = [fill(name) for name in names for fill in fills]
        cut = np.mean([len(TOKENIZE.encode(text)) + 2 > 10 for text in texts])
        assert row["truncated"] == cut and (cut > 0) == (protocol == "paper")


@pytest.mark.parametrize(("size", "tokens"), [(8, 1), (16, 4), (32, 16), (40, 25)])
def test_image_tokens_are_read_off_the_tensor(tmp_path: Path, size: int, tokens: int) -> None:
    setting = replace(REAL, image_size=size)
    rows = measure(make_real(size), real_set(tmp_path, "retrieve"), setting)
    assert {row["eval_image_tokens"] for row in rows.values()} == {tokens}


def test_features_have_unit_length_in_half_precision_too(tmp_path: Path) -> None:
    setting = replace(REAL, autocast=True)
    pack = Pack.open(Path(real_set(tmp_path, "retrieve").pack))
    with torch.no_grad():
        image_NE, _ = features.encode_images(make_real(), pack, setting)
        text_ME = features.encode_ids(make_real(), pack.texts(77), setting)
        exact_ME = features.encode_ids(make_real(), pack.texts(77), REAL)
    assert 0 < (text_ME - exact_ME).abs().max() < 0.02
    for x_ME in (image_NE, text_ME):
        assert (x_ME.norm(dim=1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]
)
def test_retrieval_equals_brute_force_whatever_the_chunks(tmp_path: Path, device: str) -> None:
    image_NE, text_ME = draw(5, 40, 3), draw(6, 29, 3)
    item, model = known_set(tmp_path, PAIRS, "retrieve"), Known(image_NE, WORDS, text_ME).to(device)
    setting = replace(SETTING, device=torch.device(device))
    rows = measure(model, item, setting)
    captions = [text for texts in PAIRS for text in texts]
    image, text = image_NE.double().numpy(), text_ME.double().numpy()
    text = text[[WORDS.index(caption) for caption in captions]]
    to_text = [rank(image[n], text, [word in PAIRS[n] for word in captions]) for n in range(40)]
    to_image = [rank(text[m], image, [captions[m] in own for own in PAIRS]) for m in range(54)]
    for direction, ranks in (("image_to_text", to_text), ("text_to_image", to_image)):
        for k in (1, 5, 10):
            check_row(rows[f"{direction}_r{k}"], [wrong < k for wrong in ranks])
    for batch in (1, 5, 100):
        assert measure(model, item, replace(setting, batch=batch)) == rows


def test_text_is_cut_before_its_end_and_what_the_cut_makes_equal_is_a_tie(tmp_path: Path) -> None:
    pairs = [["a b c d e f g"], ["a b c d e f h"], ["a b"], ["a b c d e"], ["a b c d e f"]]
    kept = ["a b c d e f", "a b", "a b c d e"]
    image_NE = torch.eye(3)[[0, 0, 1, 2, 0]]
    model, item = Known(image_NE, kept, torch.eye(3), 0.01), known_set(tmp_path, pairs, "retrieve")
    rows = measure(model, item, replace(SETTING, batch=8))
    for direction in ("image_to_text", "text_to_image"):
        check_row(rows[f"{direction}_r1"], [False, False, True, True, False])
    assert rows["loss"]["truncated"] == 2 / 5


def test_held_out_loss_is_that_of_the_batches_taken_alone(tmp_path: Path) -> None:
    image, text = (make_unit(draw(seed, count, 4)) for seed, count in ((0, 600), (1, 900)))
    owner = np.sort(np.concatenate([np.arange(600), np.arange(0, 600, 2)]))
    loss, count = evaluate.held_out_loss(image, text, owner, torch.tensor(9.0))
    batches = evaluate.held_out_batches(600)
    assert count == 512 and batches.shape == (2, 256) and len(np.unique(batches)) == 512
    assert abs(np.corrcoef(batches.ravel(), np.arange(512))[0, 1]) < 0.2  # 4.5 deviations
    first = np.searchsorted(owner, np.arange(600))
    want = [plain_loss(image[rows], text[first[rows]], 9.0) for rows in batches]
    assert loss == pytest.approx(np.mean(want), rel=1e-6)
    rows = measure(Known(image, WORDS, text), known_set(tmp_path, PAIRS, "retrieve"))
    firsts = text[[WORDS.index(own[0]) for own in PAIRS]]
    assert rows["loss"]["value"] == pytest.approx(plain_loss(image[:40], firsts, np.exp(2.0)))
    assert (rows["loss"]["n"], rows["loss"]["correct"]) == (40, "")


def plain_loss(image_BE: torch.Tensor, text_BE: torch.Tensor, scale: float) -> float:
    logits = scale * image_BE.double().numpy() @ text_BE.double().numpy().T
    sums = [np.log(np.exp(logits).sum(axis)) - np.diag(logits) for axis in (0, 1)]
    return float(np.mean(sums))


def test_bf16_features_have_the_loss_of_their_exact_values() -> None:
    image, text = draw(0, 64, 8).bfloat16(), draw(1, 64, 8).bfloat16()
    loss = contrastive_loss(image, text, torch.tensor(20.0))
    assert loss.item() == pytest.approx(plain_loss(image, text, 20.0), rel=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_a_stop_between_any_two_batches_leaves_no_trace(tmp_path: Path, training: bool) -> None:
    sets = real_set(tmp_path, "classify"), real_set(tmp_path, "retrieve")
    model, looks = make_real().train(training), iter(range(0))
    evaluator = Evaluator(sets, replace(REAL, should_stop=lambda: next(looks) == 0))
    state = torch.get_rng_state()
    looks = iter(range(1_000, 0, -1))
    rows, total = evaluator.evaluate(model, 0), 1_000 - next(looks)
    assert total > 20, "before every batch of pictures, of texts and of comparisons"
    for number in range(total):
        looks = iter(range(number, -1, -1))
        with pytest.raises(StopRequested):
            evaluator.evaluate(model, 0)
        assert all(module.training == training for module in model.modules())
        assert torch.is_grad_enabled() and not model.visual.transformer._forward_pre_hooks
    looks = iter(range(total, 0, -1))
    assert evaluator.evaluate(model, 0) == rows
    assert torch.equal(torch.get_rng_state(), state)


def test_another_pack_than_planned_is_refused(tmp_path: Path) -> None:
    item = known_set(tmp_path, PAIRS, "retrieve")
    with pytest.raises(DataError, match=f"{item.fingerprint} is not the planned abc;"):
        Evaluator((replace(item, fingerprint="abc"),), SETTING)
