"""Labelled batches: each picture with its class, each class with a prompt, shared out in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from step_values import make_pack, make_spec, take_steps

from clipa_scaling.source import DataError
from clipa_scaling.train.class_names import name_classes
from clipa_scaling.train.data import Batches
from clipa_scaling.train.labelled import LabelledBatches
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.tokenize import cut_ids, encode_texts, text_lengths

PROMPTS = ("a photo of a {}", "{}", "{} and {}")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return make_pack(tmp_path_factory.mktemp("packs") / "labels", "labels", 60)


def make_batches(pack: Pack, **changes: Any) -> LabelledBatches:
    options: dict[str, Any] = {"batch_size": 12, "image_size": 16, "text_tokens": 6}
    options |= {"crop_min_area": 1.0, "seed": 0, "window": 4}
    return LabelledBatches(pack, PROMPTS, **{**options, **changes})


def test_pictures_come_with_their_classes(pack: Pack) -> None:
    batches, seen = make_batches(pack), []
    for position in range(0, 60, 12):
        batch, index = batches.at(position), batches.order.at(position)
        assert batch.label_B is not None
        assert np.array_equal(batch.label_B, pack.labels[index])
        assert np.array_equal(batch.picture_BHWC, pack.gather_pictures(index))
        seen += index.tolist()
    assert sorted(seen) == list(range(60))


def test_order_and_crops_are_those_of_pairs(pack: Pack) -> None:
    ours = make_batches(pack, crop_min_area=0.4, image_size=8)
    pairs = Batches(pack, batch_size=12, image_size=8, text_tokens=6, crop_min_area=0.4, seed=0,
                    window=4)  # fmt: skip
    assert np.array_equal(ours.order.at(24), pairs.order.at(24))
    assert ours.crops == pairs.crops
    batch = ours.at(24)
    pictures = pack.gather_pictures(pairs.order.at(24))
    assert torch.equal(batch.picture_BHWC, pairs.crops.of(pictures, batch.sample_B)[0])


def test_every_class_has_one_of_its_prompts(pack: Pack) -> None:
    batches, counts = make_batches(pack), np.zeros(len(PROMPTS))
    names = name_classes(pack.class_names)
    filled = [[prompt.replace("{}", name) for name in names] for prompt in PROMPTS]
    ids = np.stack([encode_texts(texts) for texts in filled])
    for position in range(0, 1200, 12):
        found = batches.prompts_at(position)
        same = (ids == found).all(axis=2)
        assert (same.sum(axis=0) == 1).all()
        counts += same.sum(axis=1)
    shares = counts / counts.sum()
    assert np.abs(shares - 1 / 3).max() < 0.03
    assert np.array_equal(batches.prompts_at(24), make_batches(pack).prompts_at(24))
    assert not np.array_equal(batches.prompts_at(24), batches.prompts_at(36))
    assert not np.array_equal(batches.prompts_at(24), make_batches(pack, seed=1).prompts_at(24))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ranks_share_classes_and_pictures_in_order(pack: Pack, size: int) -> None:
    whole, classes = make_batches(pack).at(12), len(pack.class_names)
    parts = [make_batches(pack, rank=rank, size=size).at(12) for rank in range(size)]
    assert len({len(part.text_BT) for part in parts}) == 1
    assert torch.equal(torch.cat([part.text_BT for part in parts])[:classes], whole.text_BT)
    assert torch.equal(torch.cat([part.picture_BHWC for part in parts]), whole.picture_BHWC)
    labels = [part.label_B for part in parts if part.label_B is not None]
    assert whole.label_B is not None and torch.equal(torch.cat(labels), whole.label_B)
    assert {(p.text_real, p.text_truncated) for p in parts} == {
        (whole.text_real, whole.text_truncated)
    }


def test_texts_are_cut_and_counted(pack: Pack) -> None:
    batches = make_batches(pack, text_tokens=6)
    batch, ids = batches.at(0), batches.prompts_at(0)
    assert torch.equal(batch.text_BT, torch.from_numpy(cut_ids(ids, 6)))
    lengths = text_lengths(ids)
    assert batch.text_truncated == pytest.approx((lengths > 6).mean())
    assert batch.text_real == pytest.approx(np.minimum(lengths, 6).mean())
    assert 0 < batch.text_truncated < 1


def test_a_pack_of_captions_is_refused(tmp_path: Path) -> None:
    captions = make_pack(tmp_path / "captions", "captions", 40)
    with pytest.raises(DataError, match="has captions and no labels"):
        make_batches(captions)


def test_labelled_pictures_are_learnt(pack: Pack) -> None:
    plain = {"image_reduction": "resize", "image_size": 0, "image_tokens": 16, "model": "T32/4"}
    colours = {"color_jitter": 0.0, "grayscale_share": 0.0, "crop_min_area": 1.0}
    rates = {"lr": 2e-3, "warmup_samples": 50 * 32, "samples": 400 * 32, "text_tokens": 12}
    spec = make_spec(pack, "classify", **plain, **colours, **rates)
    losses = take_steps(spec, steps=90).losses
    assert np.mean(losses[-5:]) < 0.75 * np.log(len(pack.class_names))
