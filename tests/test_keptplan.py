"""A default that changed underneath is told for children too, each by its own parent."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sweep import SMALL
from tuned_sweep import load, of

from clipa_scaling.keptplan import changed_defaults, save_plan
from clipa_scaling.rundir import RunDir, write_json
from clipa_scaling.spec import RunSpec

STAGES = """\
stages:
  more: {kind: finetune, parent: pretrain, set: {image_tokens: 16, samples: 128, lr: 1e-4}}
  again: {kind: evaluate, parent: more}
"""


def finish(runs: Path, run: str) -> None:
    RunDir(runs / run).path.mkdir(parents=True)
    write_json(RunDir(runs / run).done, {"samples": 128, "attempt": 1, "loss": 1.0})


@pytest.mark.parametrize("stage", ["more", "again"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_finished_child_is_told_by_its_own_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, which: int
) -> None:
    text, runs = SMALL + STAGES, tmp_path / "runs"
    old = load(tmp_path, text)
    assert len(of(old, stage)) == 2
    save_plan(old, runs)
    finish(runs, of(old, stage)[which].id)
    assert changed_defaults(load(tmp_path, text), runs) is None
    kept = dict(RunSpec.__init__.__kwdefaults__ or {})
    monkeypatch.setattr(RunSpec.__init__, "__kwdefaults__", kept | {"weight_decay": 0.1})
    new = load(tmp_path, text)
    said = changed_defaults(new, runs)
    assert said is not None and "weight_decay: 0.2 -> 0.1" in said
    would = f"{of(new, stage)[which].id} would redo the finished {of(old, stage)[which].id},"
    assert would in said
