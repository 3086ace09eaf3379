"""ConvNeXt towers are open_clip's own, and count the positions of their third stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clipa_scaling.models import load_model
from clipa_scaling.train.model import Build, encode_image, encode_pair, make_config, make_model


@pytest.mark.parametrize("side", [2, 3, 4, 7])
def test_a_convnext_is_open_clips_and_its_tokens_are_its_third_stage(side: int) -> None:
    model = make_model(load_model("ConvNeXt-A/16"), 16 * side, 8, 1000, seed=0).eval()
    image = torch.randn(2, 3, 16 * side, 16 * side)
    seen: list[torch.Size] = []
    model.visual.trunk.stages[2].register_forward_hook(lambda *given: seen.append(given[2].shape))
    with torch.no_grad():
        feature, tokens = encode_image(model, image, None)
        assert torch.equal(feature, model.encode_image(image))
    assert tokens == side**2 == seen[0][2] * seen[0][3]
    model.train()
    again, _ = encode_image(model, image, None)
    assert torch.equal(again, feature), "nothing is dropped at random"


def test_every_weight_of_a_convnext_learns() -> None:
    model = make_model(load_model("ConvNeXt-A/16"), 64, 8, 49_408, seed=0)
    model.set_grad_checkpointing(True)
    ids = torch.tensor([[1, 2, 49_407, 0, 0, 0, 0, 0]]).expand(4, -1)
    features = encode_pair(model, torch.randn(4, 3, 64, 64), ids, None)
    (features.image_BE @ features.text_BE.T * features.scale).diagonal().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("option", [{"image_pool": "mean"}, {"ln_pre": False}])
def test_a_convnext_has_no_options_of_a_vit(option: dict[str, Any]) -> None:
    [(name, value)] = option.items()
    with pytest.raises(ValueError, match=f"^{name}={value} is not for ConvNeXt-T/16; allowed: "):
        make_config(load_model("ConvNeXt-T/16"), 64, 8, 1000, Build(**option))
