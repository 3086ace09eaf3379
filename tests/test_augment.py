"""Colours of a batch change as torchvision's operations change each picture, keyed by sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv

from clipa_scaling.train.augment import (
    Augment,
    make_gray,
    scale_brightness,
    scale_contrast,
    scale_saturation,
    turn_hue,
)
from clipa_scaling.train.keyed import keyed_uniform, make_key

SAMPLES = torch.arange(4_000)


def make_pictures(count: int, px: int = 9) -> torch.Tensor:
    """Noise, with greys and blacks, whose hue is anything, and pixels of two equal channels."""
    image = torch.rand(count, 3, px, px, generator=torch.Generator().manual_seed(0))
    image[:, :, 0] = image[:, :1, 0]
    image[:, 1, 1] = image[:, 0, 1]
    image[:, :, 2, :3] = torch.tensor([0.0, 1.0, 0.5])
    return image


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (scale_brightness, tv.adjust_brightness, 0.0, 2.0),
        (scale_contrast, tv.adjust_contrast, 0.0, 2.0),
        (scale_saturation, tv.adjust_saturation, 0.0, 2.0),
        (turn_hue, tv.adjust_hue, -0.5, 0.5),
    ],
)
def test_each_operation_equals_torchvisions(ours, theirs, low: float, high: float) -> None:  # type: ignore[no-untyped-def]
    image, factors = make_pictures(11), torch.linspace(low, high, 11)
    want = torch.stack([theirs(one, float(f)) for one, f in zip(image, factors, strict=True)])
    assert torch.allclose(ours(image, factors), want, rtol=0, atol=1e-5)


def test_gray_equals_torchvisions() -> None:
    image = make_pictures(3)
    assert torch.allclose(make_gray(image), tv.rgb_to_grayscale(image), rtol=0, atol=1e-6)


def test_a_batch_equals_torchvision_picture_by_picture() -> None:
    image, sample_B = make_pictures(64), torch.arange(100, 164)
    drawn = keyed_uniform(make_key(7, "color jitter"), sample_B, 5)
    gray = keyed_uniform(make_key(7, "grayscale"), sample_B, 1)[:, 0] < 0.2
    got = Augment(7, 0.32, 0.8, 0.2)(image, sample_B)
    kinds = set()
    for row, (share, *where) in enumerate(drawn.tolist()):
        want = image[row]
        if share < 0.8:
            bright, contrast, saturation, hue = (0.32 * (2 * value - 1) for value in where)
            want = tv.adjust_brightness(want, 1 + bright)
            want = tv.adjust_contrast(want, 1 + contrast)
            want = tv.adjust_saturation(want, 1 + saturation)
            want = tv.adjust_hue(want, hue / 4)
        if gray[row]:
            want = tv.rgb_to_grayscale(want, 3)
        assert torch.allclose(got[row], want, rtol=0, atol=1e-5)
        kinds.add((share < 0.8, bool(gray[row])))
        if not gray[row] and share >= 0.8:
            assert torch.equal(got[row], image[row])
    assert len(kinds) == 4


def test_shares_of_the_pictures_change() -> None:
    image = make_pictures(1, 3).expand(len(SAMPLES), 3, 3, 3)
    changed = (Augment(0, 0.3, 0.8, 0.0)(image, SAMPLES) != image).flatten(1).any(dim=1)
    assert changed.double().mean() == pytest.approx(0.8, abs=0.03)
    coloured = Augment(0, 0.0, 0.8, 0.2)(image, SAMPLES)
    gray = (coloured[:, 0] == coloured[:, 2]).flatten(1).all(dim=1)
    assert gray.double().mean() == pytest.approx(0.2, abs=0.03)
    both = np.corrcoef(changed, gray)[0, 1]
    assert abs(both) < 0.06, "drawn apart"


def test_off_is_off() -> None:
    assert not Augment(0).is_on and not Augment(0, 0.3, 0.0).is_on
    assert Augment(0, 0.3).is_on and Augment(0, gray_share=0.1).is_on
    image = make_pictures(4)
    assert Augment(0)(image, torch.arange(4)) is image


def test_a_picture_depends_on_seed_and_sample_alone() -> None:
    image, sample_B = make_pictures(8), torch.arange(50, 58)
    together = Augment(3, 0.4, 0.9, 0.3)(image, sample_B)
    for row in range(8):
        alone = Augment(3, 0.4, 0.9, 0.3)(image[row : row + 1], sample_B[row : row + 1])
        assert torch.allclose(alone[0], together[row], rtol=0, atol=1e-6)
    assert not torch.equal(Augment(4, 0.4, 0.9, 0.3)(image, sample_B), together)
    assert float(together.min()) >= 0 and float(together.max()) <= 1
