"""Learning rates, decayed weights, clipping and the clamp of the temperature."""

from __future__ import annotations

import math

import pytest
import torch

from clipa_scaling.models import load_model
from clipa_scaling.train.gradients import Gradients
from clipa_scaling.train.model import make_model
from clipa_scaling.train.optim import (
    clamp_temperature,
    learning_rate,
    make_optimizer,
    name_kernels,
)
from clipa_scaling.train.world import World

NAMES = ("cosine", "constant", "wsd")


def rates(schedule: str, total: int = 240, decay: int = 80, shape: str = "sqrt") -> list[float]:
    return [
        learning_rate(schedule, 2.0, seen, 10, 40, total, decay, shape)
        for seen in range(0, total, 10)
    ]


@pytest.mark.parametrize("schedule", NAMES)
def test_every_schedule_warms_up_to_the_peak(schedule: str) -> None:
    assert rates(schedule)[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


def test_cosine_falls_to_zero() -> None:
    found = rates("cosine")
    assert all(late < early for early, late in zip(found[4:], found[5:], strict=False))
    assert learning_rate("cosine", 1.0, 140, 10, 40, 240) == pytest.approx(0.5)
    assert learning_rate("cosine", 1.0, 240, 10, 40, 240) == pytest.approx(0.0)
    half = 2.0 * 0.5 * (1.0 + math.cos(math.pi * (60 - 40) / 200))
    assert found[6] == half, "to the bit, as runs of before had it"


def test_constant_stays() -> None:
    assert set(rates("constant")[4:]) == {2.0}


def test_wsd_stays_then_decays_over_its_last_samples() -> None:
    for shape, half in (("linear", 0.5), ("sqrt", 1 - math.sqrt(0.5))):
        found = rates("wsd", shape=shape)
        assert set(found[3:17]) == {2.0}, "at 160 samples nothing is done of the decay"
        assert all(late < early for early, late in zip(found[16:], found[17:], strict=False))
        assert found[20] == pytest.approx(2.0 * half)
        assert learning_rate("wsd", 2.0, 240, 10, 40, 240, 80, shape) == 0.0
    linear, sqrt = rates("wsd", shape="linear"), rates("wsd", shape="sqrt")
    assert all(s < s_linear for s, s_linear in zip(sqrt[17:], linear[17:], strict=True))


def test_without_a_length_the_decay_is_a_fifth() -> None:
    assert rates("wsd", total=400, decay=0) == rates("wsd", total=400, decay=80)


def test_decays_of_one_trunk_differ_in_their_last_samples_alone() -> None:
    short, long = rates("wsd", 200, 40), rates("wsd", 400, 80)
    constant = rates("constant", 400)
    assert short[:17] == long[:17] == constant[:17]
    assert short[17:] != long[17:20]
    assert long[:33] == constant[:33]


def test_a_warm_up_longer_than_the_trunk_comes_first() -> None:
    found = [learning_rate("wsd", 1.0, seen, 10, 100, 120, 60) for seen in range(0, 120, 10)]
    assert found[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert found[10] == pytest.approx(1 - math.sqrt(40 / 60))


# Which weights decay


def groups(decay_on: str) -> tuple[set[str], set[str]]:
    """Names of the weights that are decayed, and of the others."""
    model = make_model(load_model("T32/8"), 16, 8, 49_408, seed=0)
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, plain = make_optimizer(model, 0.2, 0.9, 0.95, 1e-8, decay_on).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.2, 0.0)
    first, second = ({names[id(p)] for p in group["params"]} for group in (decayed, plain))
    assert not first & second and first | second == set(names.values())
    return first, second


def test_matrices_are_all_but_gains_and_biases() -> None:
    decayed, plain = groups("matrices")
    assert {"token_embedding.weight", "positional_embedding"} <= decayed
    shapes = dict(make_model(load_model("T32/8"), 16, 8, 49_408, seed=0).named_parameters())
    assert min(shapes[name].ndim for name in decayed) == 2
    assert max(shapes[name].ndim for name in plain) == 1


def test_kernels_are_what_multiplies_activations() -> None:
    decayed, plain = groups("kernels")
    layer = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    want = {"visual.conv1.weight", "visual.proj", "text_projection"}
    want |= {
        f"{t}transformer.resblocks.{n}.{w}" for t in ("", "visual.") for n in "01" for w in layer
    }
    assert decayed == want
    tables = {"token_embedding.weight", "positional_embedding", "visual.positional_embedding"}
    assert tables | {"visual.class_embedding", "logit_scale"} <= plain


def test_linear_projections_and_attention_modules_are_kernels() -> None:
    model = torch.nn.ModuleDict(
        {"text_projection": torch.nn.Linear(4, 4), "attn": torch.nn.MultiheadAttention(4, 2)}
    )
    want = {"text_projection.weight", "attn.in_proj_weight", "attn.out_proj.weight"}
    assert name_kernels(model) == want


@pytest.mark.parametrize("decay_on", ["matrices", "kernels"])
def test_frozen_weights_are_left_out(decay_on: str) -> None:
    model = make_model(load_model("T32/8"), 16, 8, 49_408, seed=0)
    model.visual.requires_grad_(False)
    optimizer = make_optimizer(model, 0.2, 0.9, 0.95, 1e-8, decay_on)
    ours = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert ours == {id(p) for n, p in model.named_parameters() if not n.startswith("visual.")}


# Clipping and clamping


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_clipping_is_of_the_whole_gradient() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    gradients = Gradients(model, World(torch.device("cpu")))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, count = gradients.norm(), sum(p.numel() for p in model.parameters())
    assert before == pytest.approx(math.sqrt(count))
    gradients.clip(0.0)
    gradients.clip(2 * before)
    assert all(
        torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters() if p.grad is not None
    )
    gradients.clip(before / 4)
    assert torch.allclose(flat_gradient(model), torch.tensor(0.25))
    assert gradients.norm() == pytest.approx(before), "what is logged is from before"


@pytest.mark.parametrize(("start", "largest", "want"), [(9.0, 100.0, 100.0), (9.0, 20.0, 20.0),
                         (-1.0, 100.0, 1.0), (3.0, 100.0, math.e**3), (9.0, 0.0, math.e**9),
                         (-1.0, 0.0, 1 / math.e)])  # fmt: skip
def test_the_scale_is_kept_in_its_range(start: float, largest: float, want: float) -> None:
    scale = torch.nn.Parameter(torch.tensor(start))
    clamp_temperature(scale, largest)
    assert scale.exp().item() == pytest.approx(want)
