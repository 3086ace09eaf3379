"""How long planning takes, process start included: python bench/plan.py [CELLS…]"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
SWEEP = """\
name: grid
data: {{train: /nowhere.tar, store_px: 256}}
fixed: {{samples: 1e9, batch_size: 32768}}
axes:
  model: [S/16, B/16]
  image_tokens: [196, 100, 49, 36, 16]
  lr: {rates}
seeds: {seeds}
"""


def time_plan(cells: int, options: list[str]) -> float:
    """Median wall seconds of `--plan` over a grid of so many cells."""
    rates = [1e-5 * number for number in range(1, 11)]
    sweep = SWEEP.format(rates=rates, seeds=list(range(cells // 100)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        path.write_text(sweep)
        command = [sys.executable, "-m", "clipa_scaling.sweep", str(path), "--plan", *options]
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    for cells in map(int, sys.argv[1:] or ["1000", "3000", "10000"]):
        table, everything = time_plan(cells, []), time_plan(cells, ["--json"])
        print(f"{cells:6,} cells: --plan {table:.2f} s, --plan --json {everything:.2f} s")


if __name__ == "__main__":
    main()
