"""Training batches: crops where they should be, pixels as they should be, all keyed by position."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from make_data import encode, make_picture, write_request, write_tar
from open_clip.tokenizer import SimpleTokenizer
from torchvision.transforms.v2.functional import normalize, to_dtype

from clipa_scaling.rundir import write_json
from clipa_scaling.source import Source
from clipa_scaling.train.data import (
    ASPECTS,
    Batch,
    Batches,
    crop_boxes,
    normalise,
    resize_all,
    resize_one,
)
from clipa_scaling.train.model import IMAGE_MEAN, IMAGE_STD
from clipa_scaling.train.order import Order
from clipa_scaling.train.pack import check_pieces, load_request, make_head
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.part import write_part

PX, COUNT = 24, 40
MANY = torch.arange(20_000)
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


# Crops


@pytest.mark.parametrize("px", [1, 2, 7, 24, 500])
@pytest.mark.parametrize("min_area", [0.01, 0.4, 0.999, 1.0])
def test_crops_lie_inside_the_picture(px: int, min_area: float) -> None:
    left, top, width, height = crop_boxes(0, MANY, px, min_area).T
    assert min(left.min(), top.min()) >= 0
    assert min(width.min(), height.min()) >= 1
    assert max((left + width).max(), (top + height).max()) <= px
    for start, side in ((left, width), (top, height)):
        inner = side < px
        if inner.any():  # both edges are reached, not only by crops as large as the picture
            assert start[inner].min() == 0 and (start + side)[inner].max() == px


def chi_square(values: np.ndarray, low: float, high: float) -> float:
    """Of 20 equal bins against a uniform density; 43.8 is exceeded once in a thousand."""
    counts, _ = np.histogram(values, 20, (low, high))
    assert counts.sum() == len(values)
    return float(((counts - len(values) / 20) ** 2 / (len(values) / 20)).sum())


def test_crop_areas_are_uniform_and_aspects_log_uniform() -> None:
    px = 100_000  # so that rounding to pixels does not show
    left, top, width, height = crop_boxes(0, MANY, px, 0.4).T
    area, aspect = width * height / px**2, np.log(width / height)
    assert chi_square(area.clip(0.4, 1), 0.4, 1) < 43.8
    assert area.mean() == pytest.approx(0.7, abs=0.005)
    low, high = np.log(ASPECTS)
    assert (low, high) == pytest.approx((np.log(3 / 4), np.log(4 / 3)))
    assert aspect.min() > low - 1e-4 and aspect.max() < high + 1e-4
    # The larger crops fit at fewer aspects: those from the area to its inverse.
    free, tight = area < 3 / 4, (area > 3 / 4) & (area < 0.999)
    assert chi_square(aspect[free].clip(low, high), low, high) < 43.8
    assert chi_square((aspect[tight] / -np.log(area[tight])).clip(-1, 1), -1, 1) < 43.8
    for start, side in ((left, width), (top, height)):
        inner = side < 0.9 * px
        assert chi_square(start[inner] / (px - side[inner]), 0, 1) < 43.8
    independent = np.corrcoef([area[free], aspect[free], left[free] / (px - width[free])])
    assert np.abs(np.triu(independent, 1)).max() < 0.04


def test_a_crop_depends_on_seed_and_sample_alone() -> None:
    together = crop_boxes(3, torch.arange(1_000, 1_100), 100, 0.4)
    alone = np.concatenate(
        [crop_boxes(3, torch.tensor([n]), 100, 0.4) for n in range(1_000, 1_100)]
    )
    assert np.array_equal(together, alone)
    assert len(np.unique(together, axis=0)) > 95
    assert (together != crop_boxes(4, torch.arange(1_000, 1_100), 100, 0.4)).any(axis=1).all()


# Pixels


def stripes(height: int, width: int) -> np.ndarray:
    """Columns of black and white in turn."""
    return np.broadcast_to(
        (np.arange(width) % 2 * 255).astype(np.uint8)[:, None], (height, width, 3)
    )


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(48, 48, 24), (60, 60, 24), (64, 64, 7), (16, 40, 20), (24, 48, 24)],
)
def test_shrinking_averages_also_where_the_other_side_grows(
    height: int, width: int, size: int
) -> None:
    small = resize_one(stripes(height, width), size).astype(int)
    assert small.shape == (size, size, 3)
    # Pixels of no whole number of columns are off by the largest part a stripe can have of them.
    allowed = 1 if width % (2 * size) == 0 else 128 * size / width
    assert np.abs(small - 127.5).max() <= allowed
    assert (
        np.abs(resize_one(stripes(height, width).swapaxes(0, 1), size) - small.swapaxes(0, 1)).max()
        <= 1
    )


@pytest.mark.parametrize("size", [48, 24, 16, 12, 8])
def test_whole_factors_are_plain_means(size: int) -> None:
    pictures = np.stack([make_picture(48, 48, seed) for seed in range(3)])
    blocks = pictures.reshape(3, size, 48 // size, size, 48 // size, 3).mean(axis=(2, 4))
    assert np.abs(resize_all(pictures, size) - blocks).max() <= 0.5001


@pytest.mark.parametrize(("px", "size"), [(24, 25), (24, 64), (10, 37)])
def test_growing_is_bicubic(px: int, size: int) -> None:
    picture = make_picture(px, px, 0)
    float_BCHW = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    want = F.interpolate(float_BCHW, size=(size, size), mode="bicubic").clamp(0, 255)[0]
    assert np.abs(resize_one(picture, size) - want.permute(1, 2, 0).numpy()).max() < 1.5


def test_normalising_equals_torchvisions() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), np.uint8)
    float_BCHW = to_dtype(torch.from_numpy(pictures).permute(0, 3, 1, 2), scale=True)
    got = normalise(pictures)
    assert got.is_contiguous() and got.dtype == torch.float32
    want = normalize(float_BCHW, list(IMAGE_MEAN), list(IMAGE_STD))
    assert torch.allclose(got, want, rtol=0, atol=1e-6)
    one = normalise(np.array([[[[255, 0, 0]]]], np.uint8)).flatten().tolist()
    assert one == pytest.approx(
        [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, -0.40821073 / 0.27577711]
    )


# Batches


def test_whole_pictures_pass_untouched_and_belong_to_their_captions(pairs: Pack) -> None:
    batches, order = make_batches(pairs, text_tokens=77, seed=2), Order(pairs.part_sizes, 8, 2, 2)
    seen = []
    for step in range(5):
        batch = batches.at(step * 8)
        numbers = numbers_of(batch)
        assert numbers == order.at(step * 8).tolist()
        want = normalise(np.stack([make_picture(PX, PX, number) for number in numbers]))
        assert torch.equal(batch.image_BCHW, want)
        seen += numbers
    assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("size", [8, 20, 40])
def test_crops_are_cut_from_the_pictures_of_their_captions(pairs: Pack, size: int) -> None:
    batch = make_batches(pairs, size, 0.4, text_tokens=77, seed=5).at(16)
    assert batch.sample_B.tolist() == list(range(16, 24))
    boxes = crop_boxes(5, batch.sample_B, PX, 0.4)
    for row, (number, (x, y, w, h)) in enumerate(zip(numbers_of(batch), boxes, strict=True)):
        crop = resize_one(make_picture(PX, PX, number)[y : y + h, x : x + w], size)
        assert torch.equal(batch.image_BCHW[row], normalise(crop[None])[0])


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
