"""A bundle holds what a reader needs, is the same each time, and tells when it changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from make_data import ROOT

from clipa_scaling.bundle import PATH, check_bundle, main
from clipa_scaling.collect import load_tables, save_tables
from clipa_scaling.schema import SPEC

MINI = ROOT / "results" / "mini"
SWEEP = ROOT / "sweeps" / "mini.yaml"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "mini.zip"
    assert main([str(MINI), str(SWEEP), str(path)]) == 0
    return path


def test_it_holds_the_study_and_a_manifest(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    for path in MINI.rglob("*"):
        if path.is_file():
            assert found[f"mini/{path.relative_to(MINI).as_posix()}"] == path.read_bytes()
    assert found["sweep/mini.yaml"] == SWEEP.read_bytes()
    specs = json.loads(found["specs.json"])
    runs = load_tables(MINI)["runs"].dropna(subset=["run"])
    assert sorted(specs) == sorted(runs["run"])
    for run, tokens in zip(runs["run"], runs["image_tokens"], strict=True):
        assert specs[run]["image_tokens"] == tokens and set(SPEC) < set(specs[run])
    manifest = json.loads(found.pop("manifest.json"))
    assert manifest == {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    assert {"python", "revision", "numpy"} < set(json.loads(found["versions.json"]))
    assert "python -m clipa_scaling.figures" in found["README.md"].decode()


def test_the_same_study_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "mini"
    shutil.copytree(MINI, copy)
    for path in copy.rglob("*"):
        path.touch()
    (copy / ".hidden").write_text("not for readers")
    assert main([str(copy), str(SWEEP), str(tmp_path / "again.zip")]) == 0
    assert (tmp_path / "again.zip").read_bytes() == bundle.read_bytes()


def test_the_figures_can_be_drawn_from_it(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "read")
    folder = tmp_path / "read" / "mini"
    before = {path.name for path in (folder / "figures").iterdir()}
    shutil.rmtree(folder / "figures")
    command = [sys.executable, "-m", "clipa_scaling.figures", "mini"]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (folder / "figures").iterdir()} == before


def test_a_check_tells_every_kind_of_change(bundle: Path, tmp_path: Path) -> None:
    assert check_bundle(bundle) == [] and main(["--check", str(bundle)]) == 0
    with zipfile.ZipFile(bundle) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    found["mini/runs.csv"] += b" "
    found["more"] = b""
    del found["README.md"]
    spoilt = tmp_path / "spoilt.zip"
    with zipfile.ZipFile(spoilt, "w") as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    assert [fault.removeprefix(f"{spoilt}: ") for fault in check_bundle(spoilt)] == [
        "README.md is missing", "mini/runs.csv has changed", "more is not in the manifest",
    ]  # fmt: skip
    assert main(["--check", str(spoilt)]) == 1
    torn = tmp_path / "torn.zip"
    torn.write_bytes(bundle.read_bytes()[:-100])
    [fault] = check_bundle(torn)
    assert "cannot be read" in fault
    assert check_bundle(tmp_path / "none.zip") == [
        f"{tmp_path}/none.zip: No such file or directory; "
        "give a bundle that was made by this command"
    ]


def test_paths_of_this_machine_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = load_tables(MINI)
    tables["runs"].loc[3, "reason"] = "FileNotFoundError: '/data/secret/0.tar' is not there"
    save_tables(tables, tmp_path / "mine")
    out = tmp_path / "out.zip"
    assert main([str(tmp_path / "mine"), str(out)]) == 2 and not out.exists()
    assert capsys.readouterr().err == (
        "runs.csv: reason of row 5 holds a path of this machine, /data/secret…; --with-paths "
        "bundles it all the same\n"
    )
    assert main([str(tmp_path / "mine"), str(out), "--with-paths"]) == 0
    assert main([str(tmp_path / "nothing"), str(out)]) == 2


def test_what_is_a_path() -> None:
    for text in ("B/16", "1/s", "a/b/c", "https://x.org/a/b", "image 1 / 2 / 3", "r1/r5"):
        assert not PATH.search(text), text
    for text in ("/home/me/x", "at '/a/b'", "C:\\me", "~/data/x", "in /scratch/u: no space"):
        assert PATH.search(text), text
