"""Token counts are those of the tensors, and a full-token forward is open_clip's own."""

import open_clip
import pytest
import torch

from clipa_scaling.models import load_model
from clipa_scaling.train.loss import contrastive_loss
from clipa_scaling.train.model import encode_pair, make_config, make_model
from clipa_scaling.train.optim import make_optimizer, set_lr
from clipa_scaling.train.tokens import keep_random


def make_batch(size: int, text_tokens: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(1, 1000, (4, text_tokens), generator=generator)
    text[:, -1] = 49_407
    return torch.randn(4, 3, size, size, generator=generator), text


def test_full_forward_equals_stock_open_clip_bit_for_bit() -> None:
    ours = make_model(load_model("T32/8"), 64, 8, 49_408, seed=0).eval()
    stock = open_clip.CLIP(**make_config(load_model("T32/8"), 64, 8, 49_408), output_dict=True)
    stock.load_state_dict(ours.state_dict())
    stock.eval()
    image, text = make_batch(64)
    with torch.no_grad():
        want = stock(image, text)
        plain = encode_pair(ours, image, text, None)
        everything = torch.arange(64).expand(4, 64)
        gathered = encode_pair(ours, image, text, everything)
    assert torch.equal(plain.image_BE, want["image_features"])
    assert torch.equal(plain.text_BE, want["text_features"])
    assert torch.equal(gathered.image_BE, want["image_features"])
    assert (plain.image_tokens, plain.text_tokens) == (64, 8)


@pytest.mark.parametrize("keep", range(1, 65))
def test_random_sees_the_declared_tokens(keep: int) -> None:
    model = make_model(load_model("T32/4"), 32, 4, 49_408, seed=0)
    image, text = make_batch(32, 4)
    kept = keep_random(0, torch.arange(4), 64, keep)
    assert encode_pair(model, image, text, kept).image_tokens == keep


@pytest.mark.parametrize("side", range(1, 9))
def test_resize_sees_the_declared_tokens(side: int) -> None:
    model = make_model(load_model("T32/4"), side * 4, 4, 49_408, seed=0)
    image, text = make_batch(side * 4, 4)
    assert encode_pair(model, image, text, None).image_tokens == side**2


def test_seed_alone_decides_the_first_weights() -> None:
    first = make_model(load_model("T32/8"), 16, 8, 49_408, seed=0).state_dict()
    torch.rand(7)
    again = make_model(load_model("T32/8"), 16, 8, 49_408, seed=0).state_dict()
    other = make_model(load_model("T32/8"), 16, 8, 49_408, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["visual.conv1.weight"], other["visual.conv1.weight"])


def test_one_step_lowers_the_loss_and_moves_every_weight() -> None:
    model = make_model(load_model("T32/8"), 16, 8, 49_408, seed=0)
    optimizer = make_optimizer(model, 0.2, 0.9, 0.95, 1e-8)
    set_lr(optimizer, 1e-3)
    image, text = make_batch(16)
    losses = []
    for _ in range(3):
        features = encode_pair(model, image, text, None)
        loss = contrastive_loss(features.image_BE, features.text_BE, features.scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert all(p.grad is not None for p in model.parameters())
