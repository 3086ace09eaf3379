"""Runs start from a copy of the code: editing the tree does not change what was launched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from make_data import ROOT

from clipa_scaling import revision


def test_one_snapshot_per_distinct_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = revision.take_snapshot(tmp_path)
    assert revision.take_snapshot(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
    # The package elsewhere, one comment longer.
    copy = tmp_path / "tree"
    subprocess.run(["cp", "-r", str(ROOT / "clipa_scaling"), str(copy)], check=True)
    (copy / "schema.py").write_text((copy / "schema.py").read_text() + "# another\n")
    monkeypatch.setattr(revision, "PACKAGE", copy)
    other = revision.take_snapshot(tmp_path)
    assert other != first
    assert (other / "tree/schema.py").read_text().endswith("# another\n")


def test_a_snapshot_holds_the_package_and_runs_by_itself(tmp_path: Path) -> None:
    snapshot = revision.take_snapshot(tmp_path)
    mine = {path.relative_to(ROOT) for path in (ROOT / "clipa_scaling").rglob("*.py")}
    assert {path.relative_to(snapshot) for path in snapshot.rglob("*.py")} == mine
    code = "from clipa_scaling import revision; print(revision.PACKAGE, revision.find_revision())"
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=snapshot, capture_output=True, text=True, check=True).stdout
    assert said.split()[0] == str(snapshot / "clipa_scaling")
    assert said.split()[1:] == revision.find_revision().split()


def test_asking_for_the_revision_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run killed while it asks leaves a lock that no commit gets past."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "file").write_text("text")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    os.utime(tmp_path / "file", (1, 1))  # what git would note in its index
    monkeypatch.setattr(revision, "PACKAGE", tmp_path)
    before = (tmp_path / ".git/index").read_bytes()
    assert len(revision.ask_git()) == 12
    assert (tmp_path / ".git/index").read_bytes() == before


def test_runs_are_launched_from_the_snapshot_and_record_the_revision(small_study: Path) -> None:
    runs = small_study.parent / "runs"
    assert len(list((runs / ".code").iterdir())) == 1
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    if head.returncode:
        pytest.skip("needs git: this is no checkout")
    for path in runs.glob("pretrain-*/attempts/1/env.json"):
        assert json.loads(path.read_text())["revision"].rstrip("+") == head.stdout.strip()
