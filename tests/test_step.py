"""One step: the same gradient in slices, over two processes, compiled, and as open_clip's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from make_data import ROOT
from open_clip.loss import ClipLoss, SigLipLoss
from step_values import (
    OBJECTIVES,
    build,
    difference,
    make_pack,
    make_spec,
    read_values,
    take_steps,
    write_spec,
)
from torch._dynamo.utils import counters

from clipa_scaling.models import load_model
from clipa_scaling.rundir import DONE, RunDir, make_run, read_jsonl
from clipa_scaling.spec import RunSpec, spec_to_json
from clipa_scaling.train.loop import work
from clipa_scaling.train.model import make_config
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.pictures import normalise
from clipa_scaling.train.slices import cut
from clipa_scaling.train.step import NO_LIMIT, Step, choose_micro_batch
from clipa_scaling.train.world import World

PLAIN: dict[str, Any] = {"color_jitter": 0.0, "grayscale_share": 0.0}
FULL: dict[str, Any] = {**PLAIN, "image_reduction": "resize", "image_size": 0, "image_tokens": 16}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    """Of captions, and of labels."""
    folder = tmp_path_factory.mktemp("packs")
    return {needs: make_pack(folder / needs, needs) for needs in ("captions", "labels")}


def spec_of(packs: dict[str, Pack], objective: str, **changes: Any) -> RunSpec:
    needs = "labels" if objective == "classify" else "captions"
    return make_spec(packs[needs], objective, **changes)


# In slices


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("micro_batch", [16, 8, 1])
def test_slices_give_the_whole_batchs_gradient(
    packs: dict[str, Pack], objective: str, micro_batch: int
) -> None:
    whole = take_steps(spec_of(packs, objective))
    sliced = take_steps(spec_of(packs, objective, micro_batch=micro_batch))
    assert sliced.losses == pytest.approx(whole.losses, rel=1e-6)
    assert difference(sliced, whole) < 1e-5
    assert sliced.image_tokens == whole.image_tokens == 5
    assert min(float(g.abs().max()) for g in whole.gradient.values()) > 0


def test_slices_under_autocast_are_near_the_whole_batchs_gradient(packs: dict[str, Pack]) -> None:
    whole = take_steps(spec_of(packs, "contrastive", precision="bf16"))
    for more in ({}, {"grad_checkpointing": True}):
        spec = spec_of(packs, "contrastive", precision="bf16", micro_batch=8, **more)
        assert difference(take_steps(spec), whole) < 0.01


def test_one_slice_is_the_direct_path_to_the_bit(packs: dict[str, Pack]) -> None:
    direct, named = (
        take_steps(spec_of(packs, "contrastive", micro_batch=size), steps=2) for size in (0, 32)
    )
    assert direct.losses == named.losses
    assert all(torch.equal(direct.gradient[n], named.gradient[n]) for n in direct.gradient)


def test_another_batch_of_slices_would_be_noticed(packs: dict[str, Pack]) -> None:
    whole = take_steps(spec_of(packs, "contrastive"))
    for change in ({"seed": 1}, {"color_jitter": 0.0}, {"image_tokens": 6}, {"crop_min_area": 0.9}):
        assert difference(take_steps(spec_of(packs, "contrastive", **change)), whole) > 1e-3


def test_a_frozen_tower_costs_no_second_pass(packs: dict[str, Pack]) -> None:
    gradients = []
    for micro_batch in (0, 8):
        spec = spec_of(packs, "contrastive", micro_batch=micro_batch)
        model = build(spec)
        model.visual.requires_grad_(False)
        Step(spec, model, World(torch.device("cpu")), 0).take(0)
        assert all(p.grad is None for p in model.visual.parameters())
        assert model.text_projection.grad is not None
        gradients.append(model.text_projection.grad)
    assert torch.allclose(gradients[0], gradients[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "at_once", "lengths"),
    [(32, 32, [32]), (32, 50, [32]), (32, 8, [8] * 4), (32, 5, [5] * 6 + [2]), (10, 4, [4, 4, 2]),
     (9, 5, [5, 4]), (3, NO_LIMIT, [3])],
)  # fmt: skip
def test_slices_cover_all_once(count: int, at_once: int, lengths: list[int]) -> None:
    found = cut(count, at_once)
    assert [len(range(count)[rows]) for rows in found] == lengths
    assert [n for rows in found for n in range(count)[rows]] == list(range(count))


def test_a_cpu_holds_all_at_once(packs: dict[str, Pack]) -> None:
    assert choose_micro_batch(spec_of(packs, "siglip"), World(torch.device("cpu"))) == NO_LIMIT


# As open_clip


@pytest.mark.parametrize("objective", ["contrastive", "siglip"])
def test_a_step_equals_stock_open_clips(packs: dict[str, Pack], objective: str) -> None:
    spec = spec_of(packs, objective, **FULL)
    ours = take_steps(spec)
    config = make_config(load_model(spec.model), spec.image_size, spec.text_tokens, 49_408)
    bias = None if objective == "contrastive" else -3.0
    stock = open_clip.CLIP(**config, init_logit_bias=bias, output_dict=True)
    stock.load_state_dict(build(spec).state_dict())
    batch = Step(spec, build(spec), World(torch.device("cpu")), spec.seed).batches.at(0)
    found = stock(normalise(batch.picture_BHWC), batch.text_BT)
    loss = ClipLoss() if objective == "contrastive" else SigLipLoss()
    value = loss(**found)
    value.backward()
    assert ours.losses == pytest.approx([value.item()], abs=1e-5)
    for name, parameter in stock.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(ours.gradient[name], parameter.grad, rtol=0, atol=1e-5), name


# Two processes


def test_two_processes_step_as_one(packs: dict[str, Pack], tmp_path: Path) -> None:
    specs = {}
    for objective in OBJECTIVES:
        specs[f"{objective}-whole"] = spec_of(packs, objective, gpus=2)
        specs[f"{objective}-sliced"] = spec_of(packs, objective, gpus=2, micro_batch=4)
        specs[f"{objective}-clipped"] = spec_of(
            packs, objective, gpus=2, micro_batch=8, grad_clip=0.1
        )
    for name, spec in specs.items():
        write_spec(tmp_path, name, spec)
    program = str(Path(__file__).with_name("step_values.py"))
    both = [
        subprocess.Popen(
            [sys.executable, program, str(rank), "2", str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=110) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()
    for name, spec in specs.items():
        alone = take_steps(spec, steps=2)
        for rank in range(2):
            together = read_values(tmp_path, name, rank)
            assert together.losses == pytest.approx(alone.losses, abs=1e-5), name
            assert difference(together, alone) < 1e-5, name
        other = read_values(tmp_path, name, 0).gradient
        assert all(torch.equal(other[n], g) for n, g in together.gradient.items()), "on each rank"


# What else a spec may ask for


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_is_trained_to_its_end(
    packs: dict[str, Pack], objective: str, tmp_path: Path
) -> None:
    run, ends = RunDir(tmp_path), {"samples": 4 * 32, "schedule": "wsd", "decay_samples": 64}
    spec = spec_of(packs, objective, micro_batch=16, warmup_samples=32, **ends)
    make_run(run, spec_to_json(spec))
    assert work(run) == (DONE, None)
    rows = read_jsonl(run.metrics)
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3 * (1 - 0.5**0.5)])
    want = take_steps(spec, steps=4)
    assert [row["loss"] for row in rows] == want.losses
    assert {row["image_tokens_seen"] for row in rows} == {5}


def test_clipping_limits_what_the_optimizer_sees(packs: dict[str, Pack]) -> None:
    free = take_steps(spec_of(packs, "contrastive"))
    clipped = take_steps(spec_of(packs, "contrastive", grad_clip=0.1))
    norms = [torch.stack([g.norm() for g in v.gradient.values()]).norm() for v in (free, clipped)]
    assert float(norms[0]) > 0.2
    assert float(norms[1]) == pytest.approx(0.1, rel=1e-4)


def test_the_largest_scale_is_the_specs(packs: dict[str, Pack]) -> None:
    for largest, expected in ((5.0, 5.0), (0.0, 1 / 0.07), (100.0, 1 / 0.07)):
        spec = replace(spec_of(packs, "contrastive"), logit_scale_max=largest)
        model = build(spec)
        Step(spec, model, World(torch.device("cpu")), 0).take(0)
        assert model.logit_scale.exp().item() == pytest.approx(expected, rel=1e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of torch's own compiler
def test_compiled_steps_are_eager_ones(packs: dict[str, Pack]) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a compiler on a CPU: install g++")
    counters["frames"].clear()
    eager, compiled = (
        take_steps(spec_of(packs, "contrastive", micro_batch=16, compile=on))
        for on in (False, True)
    )
    assert counters["frames"]["ok"] > 0
    assert compiled.losses == pytest.approx(eager.losses, abs=1e-5)
    assert difference(compiled, eager) < 1e-5
    assert compiled.gradient.keys() == eager.gradient.keys(), "names of weights stay"
    assert compiled.image_tokens == eager.image_tokens


def test_compiling_leaves_evaluation_eager(packs: dict[str, Pack]) -> None:
    spec = spec_of(packs, "contrastive", compile=True)
    model = build(spec)
    plain = build(spec).eval()
    names = list(model.state_dict())
    Step(spec, model, World(torch.device("cpu")), 0)
    assert list(model.state_dict()) == names
    model.eval()
    text = torch.randint(1, 1000, (3, 8))
    assert torch.equal(model.encode_text(text), plain.encode_text(text))
