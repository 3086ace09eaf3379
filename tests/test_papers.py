"""The papers' recipes in sweeps/: what is planned is what the papers print, in their own units."""

from __future__ import annotations

import re
from typing import Any

import pytest
from make_data import ROOT
from paper_plans import make, plan, specs

from clipa_scaling import sweep as command_line
from clipa_scaling.plan import over_budget
from clipa_scaling.published import select
from clipa_scaling.show import hours

PAPERS = (
    "inverse", "reductions", "text_tokens", "limited", "finetune_masking", "finetune_masking_h14",
    "finetune_batch", "convnext", "clipa_v2", "law",
)  # fmt: skip
TWINS = (
    "tiny_reductions", "tiny_text_tokens", "tiny_limited", "tiny_finetune_masking",
    "tiny_finetune_batch", "tiny_convnext", "tiny_clipa_v2", "tiny_law",
)  # fmt: skip
WHOLE = 131_072_000  # "128M", 4,000 steps of 32,768
BIG = 12_811_670_000  # "12.8B", 10,000 epochs of ImageNet-1k
LENGTHS = (197, 101, 50, 37, 17)  # Table 11, the CLS counted
# Distinct (samples, batch size, base rate in 1e-7, warm-up steps) of each recipe's stages.
SCHEDULES = {
    "inverse": {
        "pretrain": {(2_560_000_000, 32_768, 80, 1_600)},
        "finetune": {(WHOLE, 32_768, 8, 800), (WHOLE, 32_768, 4, 800)},
    },
    "limited": {
        "pretrain": {(2_560_000_000, 65_536, 80, 782), (2_560_000_000, 32_768, 80, 1_563)},
        "finetune": {(WHOLE, 8_192, 8, 3_072), (WHOLE, 7_168, 8, 3_571)},
    },
    "finetune_masking": {
        "pretrain": {(2_560_000_000, 32_768, 80, 1_600), (2_560_000_000, 65_536, 80, 3_200)},
        "finetune": {(WHOLE, 32_768, 8, 800), (WHOLE, 32_768, 4, 800)},
    },
    "finetune_masking_h14": {
        "pretrain": {(BIG, 65_536, 80, 3_200)},
        "masks": {(WHOLE, 32_768, 4, 800)},
        "schedules": {(WHOLE, 32_768, 4, 800), (5 * WHOLE, 32_768, 4, 800)},
        "at336": {(5 * WHOLE, 16_384, 1, 1_600)},
        "ft224": {(4 * WHOLE, 32_768, 4, 800)},
        "ft336": {(WHOLE, 16_384, 1, 1_600)},
    },
    "finetune_batch": {
        "pretrain": {(2_560_000_000, 32_768, 80, 1_600)},
        "finetune": {
            (WHOLE, 1_024 * k, 8, 26_214_400 // (1_024 * k)) for k in (32, 16, 8, 4, 2)
        },
    },
    "convnext": {
        "pretrain": {(2_560_000_000, 32_768, 80, 1_600)},
        "finetune": {(WHOLE, 32_768, 8, 800)},
    },
    "clipa_v2": {
        "pretrain": {(BIG, 65_536, 80, 3_200), (BIG, 65_536, 40, 3_200)},
        "ft224": {(4 * WHOLE, 32_768, 4, 800), (4 * WHOLE, 16_384, 4, 0)},
        "ft336": {(WHOLE, 16_384, 1, 1_600)},
    },
}  # fmt: skip
SCHEDULES |= {"reductions": SCHEDULES["inverse"], "text_tokens": SCHEDULES["inverse"]}


@pytest.mark.parametrize("name", PAPERS + TWINS)
def test_the_head_tells_command_and_planned_hours(name: str) -> None:
    head = (ROOT / f"sweeps/{name}.yaml").read_text().partition(f"\nname: {name}\n")[0]
    assert all(line.startswith("# ") for line in head.splitlines())
    assert re.search(rf"^#   python -m clipa_scaling.sweep sweeps/{name}.yaml( |$)", head, re.M)
    [said] = re.findall(r"^# Planned: ([\d.,]+) (?:GPU|core)-hours\b", head, re.M)
    assert said == hours(plan(name)["totals"]["gpu_hours"])
    if name in PAPERS and name != "law":
        assert re.search(r"arXiv:230[56]\.\d{5}, (Table|Figure)", head), "what it reproduces"
    twin = re.search(r"On two cores: (\w+)\.yaml", head)
    assert (twin is not None) == (name in PAPERS)
    assert twin is None or (ROOT / f"sweeps/{twin[1]}.yaml").exists()


@pytest.mark.parametrize("name", PAPERS + TWINS)
def test_nothing_in_a_recipe_looks_like_a_slip(name: str) -> None:
    """Lacking data and whole steps apart; not that no crop is enlarged or a rule never holds."""
    left = [line for line in plan(name)["warnings"] if "is rounded up to" not in line]
    assert [line.startswith("data missing: ") for line in left] == [True] * (name in PAPERS)
    assert over_budget(make(name)) is None


@pytest.mark.parametrize("name", SCHEDULES)
def test_samples_batches_rates_and_warm_ups_are_the_papers(name: str) -> None:
    found: dict[str, set[tuple[int, ...]]] = {}
    for cell in plan(name)["cells"]:
        spec, asked = cell["spec"], cell["asked"]["samples"]
        batch = spec["batch_size"]
        assert asked <= spec["samples"] < asked + batch, "whole steps"
        base = spec["lr"] * 256 / batch / 1e-7
        assert base == pytest.approx(round(base), abs=1e-6)
        warm = spec["warmup_samples"] / batch
        assert warm == int(warm)
        row = (asked, batch, round(base), int(warm))
        found.setdefault(spec["stage"], set()).add(row)
        common = [spec[key] for key in ("weight_decay", "beta1", "beta2", "crop_min_area")]
        assert common == [0.2, 0.9, 0.95, 0.4] and spec["schedule"] == "cosine"
    assert found == SCHEDULES[name]


def test_image_lengths_are_table_11s() -> None:
    rows = select("v1 Table 11")
    ways = rows["start_image_reduction"].fillna("resize")
    printed = set(zip(rows["model"], ways, rows["start_image_tokens"] + 1, strict=True))
    found = {
        (spec["model"], spec["image_reduction"], spec["image_tokens"] + 1)
        for spec in specs("reductions", "pretrain")
    }
    assert found == printed
    resized = {(model, tokens) for model, method, tokens in printed if method == "resize"}
    inverse = {(spec["model"], spec["image_tokens"] + 1) for spec in specs("inverse", "pretrain")}
    assert inverse == resized and {tokens for _, tokens in resized} == set(LENGTHS)
    for spec in specs("reductions", "finetune") + specs("inverse", "finetune"):
        seen = (spec["image_reduction"], spec["image_tokens"], spec["text_tokens"])
        assert seen == ("resize", 196, 32)


def test_text_lengths_are_table_12s() -> None:
    rows = select("v1 Table 12")
    names = ("model", "start_text_reduction", "start_text_tokens")
    printed = set(zip(*(rows[name] for name in names), strict=True))
    for stage, image in (("pretrain", 49), ("finetune", 196)):
        found = {
            (spec["model"], spec["text_reduction"], spec["text_tokens"])
            for spec in specs("text_tokens", stage)
        }
        same = {(model, method, 32) for model, method, _ in printed}
        assert found == (printed if stage == "pretrain" else same)
        assert {spec["image_tokens"] for spec in specs("text_tokens", stage)} == {image}
    assert len(specs("text_tokens", "finetune")) == len(printed) == 60


def test_convnexts_are_table_13s() -> None:
    rows = select("v1 Table 13")
    printed = set(zip(rows["model"], rows["start_image_size"], strict=True))
    found = {(spec["model"], spec["image_size"]) for spec in specs("convnext", "pretrain")}
    assert found == printed


def test_kept_shares_are_figure_2s() -> None:
    shares = (100, 80, 70, 60, 50, 40, 30, 20)
    models = ("S/16", "B/16", "L/16", "H/14")
    rows = select("v2 Figure 2")
    printed = {(model, patches(model) * share // 100) for model in models for share in shares}
    assert set(zip(rows["model"], rows["image_tokens"], strict=True)) == printed
    tuned = specs("finetune_masking", "finetune")
    assert {(spec["model"], spec["image_tokens"]) for spec in tuned} == printed
    for spec in tuned:
        masked = spec["image_tokens"] < patches(spec["model"])
        assert spec["image_reduction"] == ("random" if masked else "resize")
        assert spec["image_size"] == 224 and spec["text_reduction"] == "truncate"


def patches(model: str) -> int:
    return int((224 // int(model.partition("/")[2])) ** 2)


def test_masks_of_the_large_model_are_tables_9_and_10s() -> None:
    masks = {
        (spec["image_reduction"], spec["image_tokens"] / 256)
        for spec in specs("finetune_masking_h14", "masks")
    }
    each = {(method, kept) for method in ("random", "block", "grid") for kept in (0.75, 0.5, 0.25)}
    assert masks == each | {("resize", 1.0)}
    # Case: (mask, size, samples in 128M), Table 10; the 40 % are of 24 x 24.
    cases = {
        (spec["image_tokens"], spec["image_size"], cell_samples(spec))
        for stage in ("schedules", "at336", "ft224", "ft336")
        for spec in specs("finetune_masking_h14", stage)
    }
    kept, larger = int(0.7 * 256), int(0.6 * 576)
    assert cases == {
        (kept, 224, 1),
        (kept, 224, 4),
        (kept, 224, 5),
        (larger, 336, 5),
        (larger, 336, 1),
    }
    [start] = specs("finetune_masking_h14", "pretrain")
    assert (start["model"], start["image_size"], start["text_tokens"]) == ("H/14", 84, 8)


def cell_samples(spec: dict[str, Any]) -> float:
    return float(spec["samples"]) / WHOLE


def test_the_models_of_limited_resources_are_table_1s() -> None:
    found = {
        (spec["model"], spec["image_tokens"] + 1, spec["text_tokens"])
        for spec in specs("limited", "pretrain")
    }
    assert found == {("B/16", 50, 16), ("L/16", 17, 16), ("L/16", 37, 8)}
    assert all(cell["cost"]["memory_bytes"] < 80e9 for cell in plan("limited")["cells"])
    for spec in specs("limited", "pretrain"):
        jitter = (spec["color_jitter"], spec["color_jitter_share"], spec["grayscale_share"])
        assert jitter == ((0.32, 0.8, 0.2) if spec["model"] == "L/16" else (0.0, 0.8, 0.0))
    [start] = specs("finetune_batch", "pretrain")
    assert (start["model"], start["image_tokens"] + 1, start["text_tokens"]) == ("L/16", 17, 16)


def test_the_three_stages_of_clipa_v2() -> None:
    sizes = {
        stage: sorted(
            (spec["model"], spec["image_size"], spec["image_tokens"], spec["text_tokens"])
            for spec in specs("clipa_v2", stage)
        )
        for stage in ("pretrain", "ft224", "ft336")
    }
    first = [("G/14", 84, 36, 8), ("H/14", 70, 25, 8), ("H/14", 84, 36, 8), ("L/14", 84, 36, 8)]
    assert sizes["pretrain"] == first
    kept = {"G/14": int(0.6 * 256), "H/14": int(0.7 * 256), "L/14": int(0.7 * 256)}
    assert sizes["ft224"] == [(model, 224, kept[model], 32) for model, *_ in first]
    assert sizes["ft336"] == [(model, 336, int(0.6 * 576), 32) for model, *_ in first]
    runs = {cell["run"]: cell["spec"] for cell in plan("clipa_v2")["cells"]}
    for spec in specs("clipa_v2", "ft336"):
        before = runs[spec["parent"]]
        assert before["stage"] == "ft224" and runs[before["parent"]]["stage"] == "pretrain"


def test_recipes_share_their_runs() -> None:
    ids = {name: {cell["run"] for cell in plan(name)["cells"]} for name in PAPERS}
    assert ids["inverse"] < ids["reductions"]
    vits = [cell for cell in plan("inverse")["cells"] if cell["spec"]["model"] != "L/16"]
    assert {cell["run"] for cell in vits} < ids["convnext"]
    # Truncated to 32 at 112 px: both stages of three sizes.
    assert len(ids["inverse"] & ids["text_tokens"]) == 6


@pytest.mark.parametrize(("name", "sizes", "lengths", "counts", "runs"), [
    ("law", 4, 4, 5, {"small": 3, "large": 1}),
    ("tiny_law", 3, 3, 4, {"small": 3}),
])  # fmt: skip
def test_the_law_has_enough_to_be_fitted(
    name: str, sizes: int, lengths: int, counts: int, runs: dict[str, int]
) -> None:
    decays = specs(name, "decay")
    axes = [{spec[key] for spec in decays} for key in ("model", "image_tokens", "samples")]
    assert [len(axis) for axis in axes] == [sizes, lengths, counts]
    points: dict[tuple[Any, ...], set[int]] = {}
    for spec in decays:
        point = (spec["model"], spec["image_tokens"], spec["samples"])
        points.setdefault(point, set()).add(spec["seed"])
    assert len(points) == sizes * lengths * counts, "no cell is missing"
    for (model, *_), seeds in points.items():
        large = model in ("L/16", "H/16")
        assert len(seeds) == runs["large" if large else "small"], model
    trunks = {cell["run"]: cell["spec"] for cell in plan(name)["cells"]}
    for spec in decays:  # a trunk ends where its last branch leaves: nothing is trained in vain
        trunk = trunks[spec["parent"]]
        assert trunk["schedule"] == "constant" and spec["schedule"] == "wsd"
        longest = max(axes[2])
        assert trunk["samples"] == longest - longest // 5


def test_every_recipe_is_in_the_readme_with_its_hours() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in PAPERS:
        [line] = [line for line in readme.splitlines() if line.startswith(f"| [{name}](")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == f"[{name}](sweeps/{name}.yaml)"
        assert cells[2] == hours(plan(name)["totals"]["gpu_hours"])
        assert (ROOT / f"sweeps/{cells[3].partition('[')[2].partition(']')[0]}.yaml").exists()


@pytest.mark.parametrize("name", ["clipa_v2", "text_tokens"])
def test_the_command_plans_without_data_and_changes_nothing(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, nowhere = ROOT / f"sweeps/{name}.yaml", ROOT / "no/such/folder"
    assert command_line.main([str(sweep), "--plan", "--runs", str(nowhere)]) == 0
    out = capsys.readouterr().out
    assert f"{hours(plan(name)['totals']['gpu_hours'])}" in out and "data missing" in out
    assert not (ROOT / "no").exists()
