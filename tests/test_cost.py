"""What a run is priced at: sums, monotony, refusals, and the papers' own FLOPs and hours."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from clipa_scaling.cost import DEVICES, Cost, at_measured_rate, price
from clipa_scaling.counts import block_flops, count_model
from clipa_scaling.models import SIZES, Tower, load_model

BASE: dict[str, Any] = {
    "image_tokens": 49,
    "position_tokens": 196,
    "text_tokens": 16,
    "vocab_size": 49_408,
    "samples": 1_000_000,
    "micro_batch": 256,
    "precision": "bf16",
    "grad_checkpointing": False,
    "device": "a100-80gb",
    "gpus": 8,
}


def make_cost(model: str = "B/16", **changes: Any) -> Cost:
    """The price of a common run, changed."""
    return price(load_model(model), **{**BASE, **changes})


def test_pricing_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, clipa_scaling.cost as c, clipa_scaling.models as m\n"
        "heavy = {'torch', 'numpy', 'open_clip'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_mask_and_a_smaller_image_cost_the_same_flops_but_not_parameters() -> None:
    mask, resize = make_cost(position_tokens=196), make_cost(position_tokens=49)
    assert mask.train_flops == resize.train_flops
    assert mask.image_params - resize.image_params == (196 - 49) * 768
    assert mask.nonembedding_params == resize.nonembedding_params


def test_parameters_add_up() -> None:
    cost = make_cost()
    tables = (49_408 + 16) * 512 + 197 * 768
    assert cost.total_params == cost.image_params + cost.text_params + 1
    assert cost.nonembedding_params == cost.total_params - tables
    assert cost.checkpoint_bytes == 12 * cost.total_params
    net = make_cost("ConvNeXt-B/16", position_tokens=49)
    assert net.nonembedding_params == net.total_params - (49_408 + 16) * 512
    counts = [
        count_model(load_model("B/16"), 49, 196, 16, 49_408, **change)
        for change in ({}, {"learned_position": False}, {"logit_bias": True})
    ]
    plain, fixed, biased = counts
    assert plain.total_params - fixed.total_params == 197 * 768
    assert plain.nonembedding_params == fixed.nonembedding_params
    assert biased.total_params == plain.total_params + 1
    assert make_cost(ln_pre=False).total_params == cost.total_params - 2 * 768


def test_flops_hours_and_dollars_follow_from_each_other() -> None:
    plain = make_cost(utilisation=0.5, dollars_per_gpu_hour=2.0)
    assert plain.train_flops == 3 * 1_000_000 * plain.flops_per_sample
    assert plain.recompute_flops == 0
    assert plain.gpu_hours == pytest.approx(plain.train_flops / (312e12 * 0.5) / 3600)
    assert plain.dollars == 2 * plain.gpu_hours
    checkpointed = make_cost(utilisation=0.5, grad_checkpointing=True)
    assert checkpointed.train_flops == plain.train_flops
    assert checkpointed.recompute_flops == plain.train_flops / 3
    assert checkpointed.gpu_hours == pytest.approx(plain.gpu_hours * 4 / 3)


def test_unknown_prices_are_nan_and_assumed_utilisation_is_marked() -> None:
    assumed, given = make_cost(), make_cost(utilisation=0.4)
    assert math.isnan(assumed.dollars)
    assert assumed.utilisation_assumed and assumed.utilisation == DEVICES["a100-80gb"].utilisation
    assert not given.utilisation_assumed and given.utilisation == 0.4
    assert (assumed.priced_by, given.priced_by) == ("assumed utilisation", "given utilisation")
    measured = at_measured_rate(given, 3 * given.gpu_hours, dollars_per_gpu_hour=2.0)
    assert measured.priced_by == "measured" and measured.train_flops == given.train_flops
    assert measured.utilisation == pytest.approx(0.4 / 3)
    assert measured.dollars == pytest.approx(6 * given.gpu_hours)


def make_rising() -> Iterator[tuple[str, list[Cost]]]:
    """Costs along one growing quantity each."""
    for name, values in (
        ("image_tokens", [1, 16, 36, 49, 100, 196]),
        ("text_tokens", [1, 4, 8, 16, 32, 77]),
        ("samples", [0, 1, 10**6, 10**10]),
    ):
        yield name, [make_cost("B/16", **{name: value}) for value in values]
    sizes = ["T32", "T48", "T64", "T96", "T128", "S", "B", "L", "H", "G"]
    nets = ["ConvNeXt-A", "ConvNeXt-T", "ConvNeXt-B"]
    assert sorted([*sizes, *nets]) == sorted(SIZES)
    yield "net", [make_cost(f"{net}/16", position_tokens=49) for net in nets]
    yield "size", [make_cost(f"{size}/16") for size in sizes]


def test_more_costs_more() -> None:
    for name, costs in make_rising():
        for less, more in pairwise(costs):
            assert less.train_flops < more.train_flops, name
            assert less.gpu_hours < more.gpu_hours, name
            assert less.memory_bytes <= more.memory_bytes, name
            assert less.total_params <= more.total_params, name


@pytest.mark.parametrize("grad_checkpointing", [False, True])
def test_memory_grows_with_batch_and_precision_and_shrinks_by_checkpointing(
    grad_checkpointing: bool,
) -> None:
    base = make_cost(grad_checkpointing=grad_checkpointing)
    assert make_cost().memory_bytes >= base.memory_bytes
    for name, value in (("micro_batch", 512), ("batch_size", 32_768), ("image_tokens", 100)):
        changes: dict[str, Any] = {name: value}
        more = make_cost(grad_checkpointing=grad_checkpointing, **changes)
        assert more.memory_bytes > base.memory_bytes
    big: dict[str, Any] = {"micro_batch": 4096, "grad_checkpointing": grad_checkpointing}
    assert make_cost(precision="fp32", **big).memory_bytes > make_cost(**big).memory_bytes
    assert make_cost(micro_batch=4096, grad_checkpointing=True).memory_bytes < (
        0.5 * make_cost(micro_batch=4096).memory_bytes
    )


def test_the_papers_flops_are_our_multiply_adds() -> None:
    """arXiv:2306.15658, Table 3, H/14: 177.0 at 224 px, 237.8 at 336 px with 40 % masked.

    Printed as GFLOPs, they are multiply-adds, with 32 text tokens. The masked count embeds every
    patch, we the kept ones alone: hence 1 % on the second.
    """
    kept = int(576 * 0.6)
    shared: dict[str, Any] = {"text_tokens": 32, "vocab_size": 32_000}
    full = make_cost("H/14", image_tokens=256, position_tokens=256, **shared)
    masked = make_cost("H/14", image_tokens=kept, position_tokens=576, **shared)
    assert full.flops_per_sample / 2e9 == pytest.approx(177.0, abs=0.05)
    assert masked.flops_per_sample / 2e9 == pytest.approx(237.8, rel=0.01)


# A100 hours: arXiv:2305.07017, Table 1 and arXiv:2306.15658, Table 4. Stages as (samples, image
# tokens, text tokens); the last three finetune with 30 % of 256 patches masked (L/14: assumed).
HOURS = [
    ("B/16", 444, [(2.56e9, 49, 16), (128e6, 196, 16)]),
    ("L/16", 628, [(2.56e9, 16, 16), (128e6, 196, 16)]),
    ("L/16", 826, [(2.56e9, 36, 8), (128e6, 196, 32)]),
    ("H/14", 5920, [(12.8e9, 25, 8), (512e6, 179, 32)]),
    ("H/14", 7776, [(12.8e9, 36, 8), (512e6, 179, 32)]),
    ("L/14", 4008, [(12.8e9, 36, 8), (512e6, 179, 32)]),
]


@pytest.mark.parametrize(("name", "hours", "stages"), HOURS)
def test_the_assumed_utilisation_gives_the_published_hours_to_a_third(
    name: str, hours: float, stages: list[tuple[float, int, int]]
) -> None:
    ours = sum(
        make_cost(
            name,
            samples=int(samples),
            image_tokens=image_tokens,
            position_tokens=256,
            text_tokens=text_tokens,
            grad_checkpointing=True,  # as in the released scripts
        ).gpu_hours
        for samples, image_tokens, text_tokens in stages
    )
    assert 3 / 4 < ours / hours < 4 / 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"device": "a100"},
            "price: device='a100' is unknown; allowed: a100-40gb, a100-80gb, h100-80gb, "
            "h200-141gb, v100-32gb, l40s-48gb, rtx4090-24gb, cpu-core",
        ),
        ({"precision": "fp16"}, "price: precision='fp16' is unknown; allowed: bf16, fp32"),
        (
            {"device": "v100-32gb"},
            "price: device='v100-32gb' has no bf16; allowed: precision='fp32'",
        ),
        (
            {"utilisation": 35.0},
            "price: utilisation=35.0 is no share; allowed: above 0, at most 1",
        ),
        (
            {"image_tokens": 197},
            "price: image_tokens=197 exceeds the position table; "
            "allowed: at most position_tokens=196",
        ),
        (
            {"text_tokens": 0},
            "price: image_tokens=49 text_tokens=0 vocab_size=49408 has a count below 1; "
            "allowed: at least 1 each",
        ),
        (
            {"model": "ConvNeXt-T/16", "position_tokens": 196},
            "price: image_tokens=49 of 196 cannot be masked in a ConvNeXt; allowed: resize",
        ),
        (
            {"model": "ConvNeXt-T/16", "image_tokens": 1, "position_tokens": 1},
            "ConvNeXt: image_tokens=1 is no grid it can halve; allowed: a square from 4 on",
        ),
        (
            {"gpus": 0},
            "price: micro_batch=256 gpus=0 samples=1000000 is below its least; "
            "allowed: at least 0, 1 and 0",
        ),
    ],
)
def test_what_cannot_be_priced_is_refused_in_one_line(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        make_cost(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize("name", DEVICES)
def test_every_device_prices_in_fp32_and_says_where_its_numbers_come_from(name: str) -> None:
    device = DEVICES[name]
    assert device.name == name and device.source
    assert 0 < device.utilisation <= 1
    assert make_cost(device=name, precision="fp32").gpu_hours > 0


def test_a_large_grid_counts_each_model_once() -> None:
    count_model.cache_clear()
    for micro_batch in range(1, 201):
        for name in ("S/16", "B/16"):
            make_cost(name, micro_batch=micro_batch)
    assert count_model.cache_info().misses == 2


def test_attention_is_what_grows_with_the_square_of_the_tokens() -> None:
    tower = Tower(2, 64, 4)
    second = block_flops(tower, 3) - 2 * block_flops(tower, 2) + block_flops(tower, 1)
    assert second == 2 * 2 * 4 * 64  # layers x second difference of 4 T^2 W
