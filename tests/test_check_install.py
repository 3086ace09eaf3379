"""The check at the end of an install: it passes here, and names what is wrong elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def check(stand_ins: Path) -> subprocess.CompletedProcess[str]:
    """Run the check as `make install` does, with `stand_ins` found before what is installed."""
    command = [sys.executable, "-m", "clipa_scaling.train.check_install"]
    environment = os.environ | {"PYTHONPATH": f"{stand_ins}{os.pathsep}{ROOT}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_this_install_passes_and_says_its_versions(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"torch {version('torch')}, torchvision {version('torchvision')}, " in done.stdout


@pytest.mark.parametrize(
    ("module", "body", "says"),
    [
        (
            "torchvision",
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "do not fit: RuntimeError: operator torchvision::nms does not exist. A CPU-only torch",
        ),
        (
            "torchvision",
            "class ops:\n    def nms(boxes, scores, iou): return scores.new_tensor([0, 1])",
            "do not fit: RuntimeError: torchvision::nms keeps box [0.0, 1.0] of two equal ones",
        ),
        ("torch", "raise ModuleNotFoundError(name='torch')", "torch is not installed; "),
        ("open_clip", "raise ImportError('no\\nlines')", "does not import: ImportError: no; "),
    ],
)
def test_a_broken_install_is_one_line_with_the_way_out(
    tmp_path: Path, module: str, body: str, says: str
) -> None:
    (tmp_path / f"{module}.py").write_text(body + "\n")
    done = check(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert "-m pip install" in done.stderr
    assert done.stderr.count("\n") == 1
