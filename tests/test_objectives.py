"""Losses are what their formulas say, and chance is the least that a blind model can have."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss

from clipa_scaling.train.loss import (
    chance_loss,
    local_classify,
    local_contrastive,
    local_siglip,
)
from clipa_scaling.train.world import World

ALONE = World(torch.device("cpu"))
SCALE, BIAS = torch.tensor(7.0), torch.tensor(-2.5)


def make_features(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 16, generator=generator), dim=-1)


def test_losses_of_pairs_equal_open_clips() -> None:
    image, text = make_features(12), make_features(12, 1)
    assert torch.equal(local_contrastive(image, text, SCALE, ALONE), ClipLoss()(image, text, SCALE))
    want = SigLipLoss()(image, text, SCALE, BIAS)
    assert local_siglip(image, text, SCALE, BIAS, ALONE).item() == pytest.approx(want.item())


def test_the_sigmoid_loss_sums_over_pairs() -> None:
    image, text = make_features(5), make_features(5, 1)
    total = 0.0
    for row in range(5):
        for column in range(5):
            logit = 7.0 * float(image[row] @ text[column]) - 2.5
            total += math.log1p(math.exp(-logit if row == column else logit))
    assert local_siglip(image, text, SCALE, BIAS, ALONE).item() == pytest.approx(total / 5)


def test_padding_of_classes_does_not_count() -> None:
    image, text = make_features(6), make_features(4, 1)
    label = torch.tensor([0, 1, 2, 3, 3, 0])
    want = F.cross_entropy(7.0 * image @ text.T, label)
    padded = torch.cat([text, text[:2]]).requires_grad_()
    found = local_classify(image, padded, SCALE, label, 4, ALONE)
    assert found.item() == pytest.approx(want.item())
    found.backward()
    assert padded.grad is not None
    assert padded.grad[:4].abs().min() > 0 and not padded.grad[4:].any()


def test_features_in_bf16_are_compared_in_fp32() -> None:
    image, text = make_features(8).bfloat16(), make_features(8, 1).bfloat16()
    label = torch.arange(8)
    for loss in (
        local_contrastive(image, text, SCALE, ALONE),
        local_siglip(image, text, SCALE, BIAS, ALONE),
        local_classify(image, text, SCALE, label, 8, ALONE),
    ):
        assert loss.dtype == torch.float32


def test_chance_is_the_least_loss_of_constant_logits() -> None:
    blind = torch.ones(32, 16) / 4
    assert chance_loss("contrastive", 32, 0) == pytest.approx(math.log(32))
    found = local_contrastive(blind, blind, SCALE, ALONE).item()
    assert found == pytest.approx(chance_loss("contrastive", 32, 0), rel=1e-5)
    found = local_classify(blind, blind[:10], SCALE, torch.zeros(32).long(), 10, ALONE).item()
    assert found == pytest.approx(chance_loss("classify", 32, 10), rel=1e-5)
    biases = torch.linspace(-8, 8, 4001)
    losses = [local_siglip(blind, blind, torch.tensor(0.0), b, ALONE).item() for b in biases]
    assert min(losses) == pytest.approx(chance_loss("siglip", 32, 0), rel=1e-5)
    assert chance_loss("siglip", 32_768, 0) == pytest.approx(math.log(32_768) + 1, abs=1e-4)
    assert chance_loss("siglip", 1, 0) == 0.0
