"""What evaluations take: an evaluation run's price, and the time of a training run's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_sweep import SMALL, write_small

from clipa_scaling.cost import CPU_FLOPS, CPU_UTILISATION
from clipa_scaling.counts import image_flops, text_flops
from clipa_scaling.evaluation_cost import SetSizes, evaluation_hours
from clipa_scaling.models import load_model
from clipa_scaling.plan import make_plan, over_budget
from clipa_scaling.sweepfile import load_sweep

STAGE = "stages: {again: {kind: evaluate, parent: pretrain}}\n"


def test_a_training_runs_evaluations_take_time_beside_its_price(tmp_path: Path) -> None:
    sweep = load_sweep(write_small(tmp_path), tmp_path / "packs")
    row, model = make_plan(sweep, tmp_path / "runs").rows[0], load_model("T32/8")
    image = image_flops(model.size.image, 8, model.size.embed_dim, 4)
    flops = 550 * image + 406 * text_flops(model.size.text, model.size.embed_dim, 8)
    # At 512 and 1,024 samples; 400 and 150 pictures, 256 prompts and 150 captions.
    expected = 2 * flops / (CPU_FLOPS * CPU_UTILISATION) / 3600
    spec, sizes = row.planned.spec, SetSizes(sweep.packs)
    assert evaluation_hours(spec, row.cost, sizes) == pytest.approx(expected, rel=1e-9)
    both = replace(spec, eval_sizes=("training", "full"), full_px=32)
    assert evaluation_hours(both, row.cost, sizes) > 2 * expected
    assert evaluation_hours(spec, row.cost, SetSizes(())) == 0, "shards before they are packed"


def test_an_evaluation_is_priced_by_its_pictures_and_prompts(tmp_path: Path) -> None:
    sweep = load_sweep(write_small(tmp_path, SMALL + STAGE), tmp_path / "packs")
    plan = make_plan(sweep, tmp_path / "runs")
    model = load_model("T32/8")
    text = text_flops(model.size.text, model.size.embed_dim, 8)
    for row, patches in zip(plan.rows[2:], (4, 16), strict=True):
        image = image_flops(model.size.image, 8, model.size.embed_dim, patches)
        # 400 pictures and 256 classes under one prompt; 150 pictures with a caption each.
        flops = (400 + 150) * image + (256 + 150) * text
        expected = flops / (CPU_FLOPS * CPU_UTILISATION) / 3600
        assert row.cost.gpu_hours == pytest.approx(expected, rel=1e-9)
        assert row.cost.train_flops == row.cost.checkpoint_bytes == 0
    assert over_budget(plan) is None
