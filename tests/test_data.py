"""Training batches: pictures with their captions, all keyed by position."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from make_data import encode, make_picture, write_request, write_tar
from open_clip.tokenizer import SimpleTokenizer

from clipa_scaling.rundir import write_json
from clipa_scaling.source import Source
from clipa_scaling.train.data import Batch, Batches
from clipa_scaling.train.order import Order
from clipa_scaling.train.pack import check_pieces, make_head
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.part import write_part
from clipa_scaling.train.pictures import crop_boxes, resize_one
from clipa_scaling.train.pieces import load_request

PX, COUNT = 24, 40
TOKENIZE = SimpleTokenizer()


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Four parts of ten pictures; caption n has n + 1 words."""
    folder = tmp_path_factory.mktemp("pairs")
    for shard in range(4):
        members: list[tuple[str, bytes | None]] = []
        for number in range(shard * 10, shard * 10 + 10):
            text = "dog " * (number + 1)
            picture = encode(make_picture(PX, PX, number))
            members += [(f"{number}.png", picture), (f"{number}.txt", text.encode())]
        write_tar(folder / f"{shard}.tar", members)
    source = Source("shards", str(folder))
    request = load_request(write_request(folder / "pack", source, PX))
    pieces = check_pieces(request)
    parts = [write_part(folder / "pack", n, piece, request) for n, piece in enumerate(pieces)]
    write_json(folder / "pack" / "pack.json", make_head([*parts], request))
    return Pack.open(folder / "pack")


def make_batches(pack: Pack, size: int = PX, min_area: float = 1.0, **more: Any) -> Batches:
    options: dict[str, Any] = {"batch_size": 8, "text_tokens": 12, "seed": 0, "window": 2, **more}
    return Batches(pack, image_size=size, crop_min_area=min_area, **options)


def numbers_of(batch: Batch) -> list[int]:
    """Which pairs they are, by the lengths of their captions."""
    return [row.index(49_407) - 2 for row in batch.text_BT.tolist()]


# Batches


def test_whole_pictures_pass_untouched_and_belong_to_their_captions(pairs: Pack) -> None:
    batches, order = make_batches(pairs, text_tokens=77, seed=2), Order(pairs.part_sizes, 8, 2, 2)
    seen = []
    for step in range(5):
        batch = batches.at(step * 8)
        numbers = numbers_of(batch)
        assert numbers == order.at(step * 8).tolist()
        want = np.stack([make_picture(PX, PX, number) for number in numbers])
        assert np.array_equal(batch.picture_BHWC, want) and batch.box_B4 is None
        seen += numbers
    assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("size", [8, 20, 40])
def test_crops_are_cut_from_the_pictures_of_their_captions(pairs: Pack, size: int) -> None:
    batch = make_batches(pairs, size, 0.4, text_tokens=77, seed=5).at(16)
    assert batch.sample_B.tolist() == list(range(16, 24))
    boxes = crop_boxes(5, batch.sample_B, PX, 0.4)
    for row, (number, (x, y, w, h)) in enumerate(zip(numbers_of(batch), boxes, strict=True)):
        crop = resize_one(make_picture(PX, PX, number)[y : y + h, x : x + w], size)
        assert np.array_equal(batch.picture_BHWC[row], crop)
    ahead = make_batches(pairs, size, 0.4, text_tokens=77, seed=5, on_device=True).at(16)
    assert ahead.box_B4 is not None and np.array_equal(ahead.box_B4, boxes)
    assert ahead.upsampled == batch.upsampled
    whole = np.stack([make_picture(PX, PX, number) for number in numbers_of(batch)])
    assert np.array_equal(ahead.picture_BHWC, whole), "the device cuts them"


def test_a_batch_is_a_function_of_its_position(pairs: Pack) -> None:
    def same(one: Batch, other: Batch) -> bool:
        pairs_of = ((getattr(one, f.name), getattr(other, f.name)) for f in fields(Batch))
        return all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs_of
        )

    first, second = (make_batches(pairs, 16, 0.5) for _ in range(2))
    forward = {position: first.at(position) for position in range(0, 160, 8)}
    for position in (152, 0, 80, 40, 8, 0):
        assert same(second.at(position), forward[position])
    assert not same(make_batches(pairs, 16, 0.5, seed=1).at(0), forward[0])
    epochs = [[forward[start + step * 8] for step in range(5)] for start in (0, 40)]
    order = [torch.cat([batch.text_BT for batch in epoch]).tolist() for epoch in epochs]
    assert order[0] != order[1] and sorted(order[0]) == sorted(order[1])


def test_upsampled_is_the_share_of_crops_smaller_than_the_image(pairs: Pack) -> None:
    for min_area in (0.4, 1.0):
        assert make_batches(pairs, 4, min_area).at(0).upsampled == 0
        assert make_batches(pairs, PX + 1, min_area).at(0).upsampled == 1
    assert make_batches(pairs, PX, 1.0).at(0).upsampled == 0
    batch = make_batches(pairs, 18, 0.4, batch_size=COUNT).at(0)
    sides = crop_boxes(0, batch.sample_B, PX, 0.4)[:, 2:]
    assert batch.upsampled == np.mean([min(side) < 18 for side in sides])
    assert 0.2 < batch.upsampled < 0.8


@pytest.mark.parametrize("tokens", [3, 4, 12, 43, 77])
def test_real_and_truncated_tokens_are_counted(pairs: Pack, tokens: int) -> None:
    batch = make_batches(pairs, batch_size=COUNT, text_tokens=tokens).at(0)
    lengths = np.arange(COUNT) + 3  # with start and end
    assert batch.text_real == pytest.approx(np.minimum(lengths, tokens).mean())
    assert batch.text_truncated == pytest.approx((lengths > tokens).mean())
    texts = ["dog " * (number + 1) for number in range(COUNT)]
    want = TOKENIZE(texts, tokens).tolist()
    assert sorted(batch.text_BT.tolist()) == sorted(want)
    assert batch.text_BT.shape == (COUNT, tokens) and batch.text_BT.dtype == torch.int64
