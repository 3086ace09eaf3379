"""A finetuned run starts from its parent's weights, resized where its lengths are others."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from loading import load_parent
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from safetensors.torch import save_file
from single_run import outcome_of, pack_scenes, plan_run, weights_of

from clipa_scaling.models import load_model
from clipa_scaling.rundir import DONE, FAILED, STOPPED, RunDir, read_json, read_jsonl, read_state
from clipa_scaling.spec import spec_from_json
from clipa_scaling.train import trainer
from clipa_scaling.train.begin import read_parent
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.loop import work
from clipa_scaling.train.model import make_model
from clipa_scaling.train.positions import IMAGE_TABLE, TEXT_TABLE, treatments
from clipa_scaling.train.stopping import StopFlag
from clipa_scaling.train.trainer import Trainer
from clipa_scaling.train.world import World

CHILD = {"kind": "finetune", "parent": "parent", "samples": 128, "lr": 1e-4, "seed": 5}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunDir]:
    """Plans a run by name, beside its parent."""
    folder = tmp_path_factory.mktemp("runs")
    pack = pack_scenes(folder / "pack", 300, 0)
    return lambda name, **changes: plan_run(folder / name, pack, **changes)


@pytest.fixture(scope="module")
def parent(plan: Callable[..., RunDir]) -> RunDir:
    run = plan("parent", samples=256)
    assert work(run) == (DONE, None)
    return run


def make_child(**changes: Any) -> open_clip.CLIP:
    """A model of other initial weights than the parent's."""
    sizes = {"image_size": 16, "text_tokens": 8} | changes
    return make_model(load_model("T32/8"), **sizes, vocab_size=49_408, seed=9)


def test_a_child_starts_from_its_parents_weights(
    parent: RunDir, plan: Callable[..., RunDir]
) -> None:
    run = plan("first", **CHILD)
    spec = spec_from_json(read_json(run.spec))
    child = Trainer(spec, run, 1, StopFlag(), World(torch.device("cpu")))
    child.resume()
    weights = weights_of(parent)
    state = child.model.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert not child.optimizer.state and child.samples == 0
    child.step()
    first = float(child.window.loss)
    fresh = plan("fresh", **CHILD | {"kind": "pretrain", "parent": ""})
    assert work(fresh) == (DONE, None)
    assert first < read_jsonl(fresh.metrics)[0]["loss"] - 0.02, "it learned from its parent"


def test_other_lengths_resize_the_tables_as_open_clip_does(
    parent: RunDir, plan: Callable[..., RunDir]
) -> None:
    sizes = {"image_size": 32, "text_tokens": 12}
    child = make_child(**sizes)
    load_parent(child, RunDir(parent.path.parent / "child"), parent)
    expected = weights_of(parent)
    stock = make_child(**sizes)
    resize_pos_embed(expected, stock)
    resize_text_pos_embed(expected, stock)
    state = child.state_dict()
    assert state["visual.positional_embedding"].shape == (17, 32)
    assert state["positional_embedding"].shape == (12, 32)
    assert all(torch.equal(state[name], expected[name]) for name in state)

    run = plan("longer", **CHILD | {"image_tokens": 16, "text_tokens": 12})
    assert work(run) == (DONE, None)
    [seen] = {
        (row["image_tokens_seen"], row["text_tokens_seen"]) for row in read_jsonl(run.metrics)
    }
    assert seen == (16, 12)


def test_a_parent_that_is_not_done_is_refused(plan: Callable[..., RunDir]) -> None:
    plan("absent")
    run = plan("orphan", **CHILD | {"parent": "absent"})
    assert work(run) == (FAILED, None)
    state = read_state(run)
    assert (state.name, state.kind) == ("failed", "error")
    assert state.reason.startswith("orphan: parent absent is not done; allowed: ")
    assert (run.attempts / "1" / "log").read_text() == state.reason + "\n"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda weights: weights.pop("text_projection"), "text_projection is missing"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "extra is unexpected"),
        (
            lambda weights: weights.update(text_projection=torch.zeros(3, 4)),
            r"text_projection has shape \[3, 4\], not \[32, 32\]",
        ),
    ],
)
def test_a_weight_that_does_not_fit_is_named(
    change: Callable[[dict[str, torch.Tensor]], Any], fault: str, parent: RunDir, tmp_path: Path
) -> None:
    other = RunDir(tmp_path / "other")
    (other.checkpoints / "1").mkdir(parents=True)
    other.done.write_text("{}")
    weights = weights_of(parent)
    change(weights)
    save_file(weights, other.checkpoints / "1" / "weights.safetensors")
    with pytest.raises(Refused, match=f"^child: parent other does not fit: {fault}; allowed: "):
        load_parent(make_child(), RunDir(tmp_path / "child"), other)


def test_a_stopped_child_resumes_its_own_checkpoint(
    parent: RunDir, plan: Callable[..., RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = plan("whole", **CHILD), plan("stopped", **CHILD)
    assert work(whole) == (DONE, None)

    def step_and_signal(self: Trainer) -> None:
        step(self)
        if self.samples == 64:
            signal.raise_signal(signal.SIGUSR2)

    step = trainer.Trainer.step
    handler = signal.getsignal(signal.SIGUSR2)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "step", step_and_signal)
        assert work(stopped) == (STOPPED, signal.SIGUSR2)
    assert signal.getsignal(signal.SIGUSR2) == handler, "the caller's handler is back"
    assert (read_state(stopped).name, read_state(stopped).samples) == ("stopped", 64)
    assert read_jsonl(stopped.events)[-1]["signal"] == "SIGUSR2"
    assert work(stopped) == (DONE, None)
    assert outcome_of(stopped) == outcome_of(whole)


def test_a_parent_can_be_treated_in_several_ways_in_turn(parent: RunDir) -> None:
    """What a run needs to measure zero-shot under each treatment, right at its start."""
    child, run = make_child(image_size=24, text_tokens=12), RunDir(parent.path.parent / "child")
    initial = {name: value.clone() for name, value in child.state_dict().items()}
    weights = read_parent(run, parent)
    pairs = treatments(child, weights, initial)
    assert len(pairs) == 4
    seen = []
    for image, text in pairs:
        changes = {"image_change": image, "text_change": text}
        load_parent(child, run, parent, initial=initial, fresh_weights=["logit*"], **changes)
        state = child.state_dict()
        seen.append([state[name].clone() for name in (IMAGE_TABLE, TEXT_TABLE)])
        others = weights.keys() - {IMAGE_TABLE, TEXT_TABLE}
        assert all(torch.equal(state[name], weights[name]) for name in others)
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[2][1])
    assert torch.equal(seen[3][1][8:], initial[TEXT_TABLE][8:]), "extended by fresh positions"
