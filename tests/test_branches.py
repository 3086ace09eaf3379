"""A decay run goes on from a state that its trunk kept, to the bit as one long run would."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from single_run import outcome_of, pack_scenes, plan_run
from test_grid import HEAD, grid, load

from clipa_scaling.plan import price_run
from clipa_scaling.rundir import DONE, FAILED, STOPPED, RunDir, read_json, read_jsonl, read_state
from clipa_scaling.spec import spec_from_json
from clipa_scaling.train import trainer
from clipa_scaling.train.begin import stream_key
from clipa_scaling.train.loop import work
from clipa_scaling.yamlfile import SweepError

TRUNK = {"samples": 320, "schedule": "constant", "checkpoint_every_samples": 64}
DECAYS = [{"samples": 192, "decay_samples": 64}, {"samples": 320, "decay_samples": 96}]
KEPT = (128, 224)  # where these leave

Plan = Callable[..., RunDir]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Plans a run by name, beside its parent."""
    folder = tmp_path_factory.mktemp("runs")
    pack = pack_scenes(folder / "pack", 300, 0)
    return lambda name, **changes: plan_run(folder / name, pack, **changes)


def finish(run: RunDir) -> RunDir:
    assert work(run) == (DONE, None), read_state(run).reason
    return run


@pytest.fixture(scope="module")
def trunk(plan: Plan) -> RunDir:
    return finish(plan("trunk", **TRUNK, keep_samples=KEPT))


@pytest.fixture(scope="module")
def direct(plan: Plan) -> list[RunDir]:
    """What a decay run is defined by: the whole of it, as one run."""
    runs = [plan(f"direct{at}", **decay, schedule="wsd") for at, decay in enumerate(DECAYS)]
    return [finish(run) for run in runs]


def branch(plan: Plan, name: str, at: int, parent: RunDir, **changes: Any) -> RunDir:
    more = {"kind": "decay", "schedule": "wsd", "parent": parent.path.name}
    return plan(name, **{**DECAYS[at], **more, **changes})


def check_same(run: RunDir, whole: RunDir) -> None:
    """The same weights and rows, from where the branch's begin, and to the end."""
    mine, theirs = outcome_of(run), outcome_of(whole)
    assert mine["weights"] == theirs["weights"]
    first = mine["metrics"][0]["samples"]
    rows = [row for row in theirs["metrics"] if row["samples"] >= first]
    assert mine["metrics"] == rows and rows[-1]["samples"] > first


@pytest.mark.parametrize("at", [0, 1])
def test_a_decay_run_is_the_direct_run_to_the_bit(
    at: int, plan: Plan, trunk: RunDir, direct: list[RunDir]
) -> None:
    run = finish(branch(plan, f"decay{at}", at, trunk))
    check_same(run, direct[at])
    assert read_jsonl(run.metrics)[0]["samples"] == KEPT[at] + 32, "it took over what was done"


def test_an_earlier_kept_state_gives_the_same_bits(
    plan: Plan, trunk: RunDir, direct: list[RunDir]
) -> None:
    shutil.copytree(trunk.path, early := trunk.path.parent / "early")
    shutil.rmtree(early / f"checkpoints/{KEPT[1]}")
    run = finish(branch(plan, "late", 1, RunDir(early)))
    check_same(run, direct[1])
    assert read_jsonl(run.metrics)[0]["samples"] == KEPT[0] + 32


def test_a_stopped_decay_run_resumes_its_own_checkpoint(
    plan: Plan, trunk: RunDir, direct: list[RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = branch(plan, "stopped", 1, trunk)

    def step_and_signal(self: trainer.Trainer) -> None:
        step(self)
        if self.samples == KEPT[1] + 32:
            signal.raise_signal(signal.SIGUSR2)

    step = trainer.Trainer.step
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", step_and_signal)
        assert work(run) == (STOPPED, signal.SIGUSR2)
    assert read_state(run).samples == KEPT[1] + 32
    check_same(finish(run), direct[1])


def test_only_planned_states_are_kept_whole(trunk: RunDir) -> None:
    found = {path.parent.name for path in trunk.checkpoints.glob("*/optimizer.pt")}
    assert found == {str(samples) for samples in KEPT}
    assert {path.name for path in trunk.checkpoints.iterdir()} == {*found, "320"}
    assert (trunk.checkpoints / "320/weights.safetensors").exists(), "without optimizer state"


def test_a_trunk_without_a_kept_state_is_refused_in_one_line(plan: Plan, trunk: RunDir) -> None:
    bare = RunDir(trunk.path.parent / "bare")
    shutil.copytree(trunk.path, bare.path)
    for samples in KEPT:
        shutil.rmtree(bare.checkpoints / str(samples))
    run = branch(plan, "lonely", 0, bare)
    assert work(run) == (FAILED, None)
    reason = read_state(run).reason
    said = "lonely: parent bare has no state at sample 128 or before; it kept: none; allowed: "
    assert reason.startswith(said) and "\n" not in reason
    orphan = branch(plan, "orphan", 0, RunDir(trunk.path.parent / "nobody"))
    assert work(orphan) == (FAILED, None)
    assert read_state(orphan).reason.startswith("orphan: parent nobody has no folder; allowed: ")


def test_a_decay_goes_on_with_the_stream_of_the_finetune_that_it_leaves(
    plan: Plan, trunk: RunDir
) -> None:
    changes = {"kind": "finetune", "parent": "trunk", "seed": 5}
    steady = finish(plan("steady", **TRUNK | changes, keep_samples=(128,)))
    whole = finish(plan("whole", **DECAYS[0] | changes, schedule="wsd"))
    run = branch(plan, "cooled", 0, steady, seed=5)
    check_same(finish(run), whole)
    keys = [stream_key(spec_from_json(read_json(item.spec)), item) for item in (run, steady, trunk)]
    assert keys[0] == keys[1] != keys[2]


SWEEP = """\
axes: {model: [T32/8], image_tokens: [4]}
rules: [{when: {model: T32/8}, set: {schedule: constant}}]
stages:
  cool:
    kind: decay
    parent: pretrain
"""


def test_a_sweep_file_plans_what_a_trunk_keeps_and_prices_the_decay_alone(tmp_path: Path) -> None:
    text = SWEEP + "    axes: {samples: [512, {parent: 0.25}, {parent: 1}]}\n"
    sweep = load(tmp_path, HEAD + text + "    set: {decay_samples: 128}\n")
    trunk, *decays = sweep.grid.runs
    assert trunk.spec.keep_samples == (128, 384, 896)
    assert [(run.spec.samples, run.spec.schedule, run.spec.parent) for run in decays] == [
        (samples, "wsd", trunk.id) for samples in (512, 256, 1024)
    ]
    whole, *prices = (price_run(run.spec, sweep).train_flops for run in sweep.grid.runs)
    assert prices == [pytest.approx(whole / 8)] * 3
    alone = grid(tmp_path, SWEEP.partition("stages")[0])
    assert alone.runs[0].id == trunk.id, "what is kept is no part of what is trained"


def test_a_decay_stage_inherits_lengths_and_starts(tmp_path: Path) -> None:
    masks = "rules: [{when: {model: T32/8}, set: {schedule: constant, image_reduction: random, "
    masks += "image_size: 48, image_start: open_clip:ViT-B-32/openai, fresh_weights: [logit*]}}]"
    old = SWEEP.splitlines()[1]
    trunk, cool = grid(tmp_path, SWEEP.replace(old, masks)).runs
    for name in ("image_size", "image_start", "start_fingerprint", "fresh_weights"):
        assert getattr(cool.spec, name) == getattr(trunk.spec, name) != "", name


WRONG = {
    "another rate": ("    set: {lr: 2e-3}\n", "10: stages.cool.set.lr: lr differs from the"),
    "another axis": ("    axes: {seed: [0, 3]}\n", "10: stages.cool.axes.seed.1: seed differs"),
    "past the end": (
        "    axes: {samples: [512, 2048]}\n",
        "10: stages.cool.axes.samples.1: samples=2048 leave the parent at 1664, past its steady "
        "1024; allowed: up to 1408",
    ),
    "nothing but decay": (
        "    set: {samples: 512, decay_samples: 512}\n",
        "10: stages.cool.set.decay_samples: decay_samples=512 is all of samples",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_what_is_no_branch_is_one_line_with_its_place(mistake: str, tmp_path: Path) -> None:
    text, words = WRONG[mistake]
    with pytest.raises(SweepError) as caught:
        grid(tmp_path, SWEEP + text)
    assert str(caught.value).startswith(f"{tmp_path / 'test.yaml'}:{words}"), caught.value
    assert "\n" not in str(caught.value)


def test_a_cosine_parent_has_no_steady_rate(tmp_path: Path) -> None:
    text = SWEEP.replace("schedule: constant", "schedule: cosine")
    with pytest.raises(SweepError, match=r"test.yaml:7: stages.cool\S*: kind=decay has no st") as e:
        grid(tmp_path, text)
    assert "allowed: a parent with schedule: constant or wsd" in str(e.value)
