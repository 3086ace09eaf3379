"""The export command, and stock open_clip in a process that cannot import this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from make_data import ROOT


def run_export(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clipa_scaling.train.export", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def ask_stock(folder: Path, pictures: Path, *prompts: str) -> dict[str, Any]:
    """What stock open_clip says, in a process that cannot import this package."""
    site = [sysconfig.get_paths()["purelib"]]
    found = find_spec("transformers")  # perhaps installed elsewhere
    if found is not None and found.origin is not None:
        site.append(str(Path(found.origin).parents[1]))
    script = str(Path(__file__).with_name("stock_zero_shot.py"))
    words = [os.pathsep.join(site), str(folder), str(pictures), *prompts]
    command = [sys.executable, "-I", "-S", script, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found_json: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found_json
