"""Measures by hand, and the digits that name what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_sets import (
    PAIRS,
    REAL,
    WORDS,
    draw,
    known_set,
    let_known_encode,
    make_real,
    measure,
    real_set,
)
from known_model import Known

from clipa_scaling.correct import pack_clusters, unpack_clusters
from clipa_scaling.models import load_model
from clipa_scaling.spec import EVALUATOR
from clipa_scaling.train import evaluate
from clipa_scaling.train.model import make_model
from clipa_scaling.train.tokenize import encode_texts


@pytest.fixture(autouse=True)
def let_known_models_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    let_known_encode(monkeypatch)


def test_per_class_accuracy_counts_a_rare_class_as_much_as_a_common_one(tmp_path: Path) -> None:
    image_NE = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0]])
    labels = [["ant"], ["ant"], ["ant"], ["bee"]]
    model = Known(image_NE, ["ant", "bee"], torch.eye(2))
    rows = measure(model, known_set(tmp_path, labels, "classify"))
    assert rows["accuracy"]["value"] == 2 / 4
    assert rows["accuracy_per_class"]["value"] == pytest.approx((2 / 3 + 0) / 2)
    assert (rows["accuracy_per_class"]["n"], rows["accuracy_per_class"]["correct"]) == (3, "")


def test_captions_of_one_picture_are_a_cluster(tmp_path: Path) -> None:
    rows = measure(
        Known(draw(0, 40, 3), WORDS, draw(1, 29, 3)), known_set(tmp_path, PAIRS, "retrieve")
    )
    assert rows["image_to_text_r1"]["clusters"] == rows["loss"]["clusters"] == ""
    clusters = unpack_clusters(rows["text_to_image_r1"]["clusters"], 54)
    assert clusters.tolist() == [n for n, own in enumerate(PAIRS) for _ in own]
    for counts, text in (([1, 1], ""), ([5, 5, 5], "5"), ([5, 6], "5 6")):
        assert pack_clusters(np.array(counts)) == text
        want = np.repeat(np.arange(len(counts)), counts).tolist()
        assert unpack_clusters(text, sum(counts)).tolist() == want


def digits(folder: Path, task: str = "classify", *prompts: str, **setting: object) -> str:
    """What names the measures of a small real set."""
    chosen = replace(REAL, **setting)  # type: ignore[arg-type]
    model = make_model(load_model("T32/8"), chosen.image_size, chosen.text_tokens, 49_408, seed=3)
    item = real_set(folder, task, *prompts)  # type: ignore[arg-type]
    rows = measure(model.eval(), item, chosen)
    assert {row["evaluator"] for row in rows.values()} == {EVALUATOR}
    [found] = {row["evaluation"] for row in rows.values()}
    return str(found)


def test_an_evaluation_is_named_by_what_is_asked_and_not_of_which_model(tmp_path: Path) -> None:
    base = digits(tmp_path, "classify", "a {}")
    assert len(base) == 16
    assert digits(tmp_path, "classify", "a {}", image_size=32) == base
    assert digits(tmp_path, "classify", "a {}", text_tokens=4, batch=3) == base
    rows = measure(make_real(), real_set(tmp_path, "classify", "a {}"), REAL)
    other = measure(
        make_model(load_model("T32/8"), 16, 10, 49_408, seed=4).eval(),
        real_set(tmp_path, "classify", "a {}"),
        REAL,
    )
    assert rows["accuracy"]["evaluation"] == other["accuracy"]["evaluation"] == base
    assert digits(tmp_path, "classify", "the {}") != base
    assert digits(tmp_path, "classify", "a {}", "the {}") != base
    assert digits(tmp_path, "classify", "a {}", protocols=("paper",)) != base
    assert digits(tmp_path, "retrieve") != base


def test_another_class_name_or_tokenizer_is_another_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tokenize_otherwise(texts: list[str], vocab: str = "") -> np.ndarray:
        ids = encode_texts(texts)
        ids[-1, -1] = 1  # one token of one text, beyond the cut
        return ids

    base = digits(tmp_path, "classify", "a {}")
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "name_classes", lambda names: ["cat", *names[1:]])
        assert digits(tmp_path, "classify", "a {}") != base
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "encode_texts", tokenize_otherwise)
        assert digits(tmp_path, "classify", "a {}") != base
    assert digits(tmp_path, "classify", "a {}") == base


def test_a_caption_is_part_of_what_is_measured_to_its_end(tmp_path: Path) -> None:
    found = []
    for number, ending in enumerate(("end", "and", "end")):
        long = [[f"w {n} and on to beyond the cut, the {ending}"] for n in range(5)]
        (tmp_path / str(number)).mkdir()
        item = known_set(tmp_path / str(number), long, "retrieve")
        texts = [own[0] for own in long]
        model = Known(draw(0, 5, 3), texts, draw(1, 5, 3))
        found.append(measure(model, item)["loss"]["evaluation"])
    assert found[0] == found[2] != found[1]
