"""Crops where they should be, pixels as they should be, on the host and on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from make_data import make_picture
from torchvision.transforms.v2.functional import normalize, to_dtype

from clipa_scaling.train.augment import Augment
from clipa_scaling.train.model import IMAGE_MEAN, IMAGE_STD
from clipa_scaling.train.pictures import (
    ASPECTS,
    crop_boxes,
    cut_on_device,
    cut_on_host,
    normalise,
    resize_all,
    resize_one,
    show,
)

MANY = torch.arange(20_000)


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


# On the device


def difference(pictures: np.ndarray, boxes: np.ndarray, size: int) -> np.ndarray:
    """Grey levels between the two ways, for every pixel."""
    want = torch.from_numpy(cut_on_host(pictures, boxes, size)).permute(0, 3, 1, 2)
    got = cut_on_device(torch.from_numpy(pictures), torch.from_numpy(boxes), size)
    assert got.dtype == torch.float32 and got.shape == want.shape
    return (got - want).abs().numpy()


@pytest.mark.parametrize(("px", "size"), [(48, 20), (48, 48), (40, 34), (24, 40), (64, 7)])
def test_the_device_cuts_as_opencv_does(px: int, size: int) -> None:
    pictures = np.stack([make_picture(px, px, seed) for seed in range(32)])
    boxes = crop_boxes(0, torch.arange(32), px, 0.4)
    levels = difference(pictures, boxes, size)
    assert levels.max() <= 1 and levels.mean() < 0.1
    whole = np.tile(np.array([0, 0, px, px]), (32, 1))
    assert difference(pictures, whole, size).max() <= 1


def test_the_device_cuts_noise_as_opencv_does() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (32, 30, 30, 3), np.uint8)
    boxes = crop_boxes(0, torch.arange(32), 30, 0.3)
    sides = boxes[:, 2:]
    assert (sides > 22).any() and (sides < 22).any() and (sides == 22).any()
    assert ((sides.max(axis=1) > 22) & (sides.min(axis=1) < 22)).any(), "one grows, one shrinks"
    levels = difference(pictures, boxes, 22)
    assert levels.max() <= 1 and levels.mean() < 0.1


def test_what_is_shown_does_not_depend_on_where_it_is_cut() -> None:
    pictures = np.stack([make_picture(32, 32, seed) for seed in range(8)])
    sample_B, plain = torch.arange(8), Augment(0)
    boxes = crop_boxes(0, sample_B, 32, 0.4)
    cut = torch.from_numpy(cut_on_host(pictures, boxes, 16))
    host = show(cut, None, sample_B, 16, plain)
    assert torch.equal(host, normalise(cut.numpy()))
    device = show(torch.from_numpy(pictures), torch.from_numpy(boxes), sample_B, 16, plain)
    assert (device - host).abs().max() < 2.5 / 255 / min(IMAGE_STD)
    jitter = Augment(0, strength=0.4, gray_share=0.3)
    coloured = show(cut, None, sample_B, 16, jitter)
    assert (coloured - host).abs().max() > 0.1
    again = show(cut[2:5], None, sample_B[2:5], 16, jitter)
    assert torch.equal(again, coloured[2:5])
