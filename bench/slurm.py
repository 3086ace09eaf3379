"""How long the launcher takes for a large sweep on a private Slurm: python bench/slurm.py [RUNS]

No job starts. A status is timed twice: when it asks the queue, and when the last answer is new
enough. squeue calls are counted, by a program of that name that calls the real one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from slurm.cluster import Cluster, find_hindrance  # noqa: E402
from slurm.launching import Study, make_study, pack_once, wrap_program, write_text  # noqa: E402


def measure(study: Study, name: str, options: list[str], poll: int, folder: Path) -> None:
    """Run the command once; print its wall seconds, process start included, and squeue calls."""
    counted = folder / "squeue.calls"
    counted.write_text("")
    path = wrap_program(folder / "bin", "squeue", f"echo >> {counted}")
    started = time.perf_counter()
    study.launch(*options, PATH=path, CLIPA_POLL_SECONDS=str(poll))
    seconds = time.perf_counter() - started
    print(f"{name:<28}{seconds:8.2f} s{len(counted.read_text()):8d}", flush=True)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    if hindrance := find_hindrance():
        sys.exit(hindrance)
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as base:
        folder = Path(base)
        cluster = Cluster(folder / "s")
        cluster.start()
        try:
            study = make_study(
                folder / "study", pack_once(folder / "packs"), cluster, write_text(range(runs))
            )
            print(f"{f'{runs:,} runs':<28}{'':>10}{'squeue':>8}")
            measure(study, "--plan", ["--plan"], 30, folder)
            measure(study, "launch", [], 30, folder)
            assert len(study.queued()) == runs
            measure(study, "launch, nothing to submit", [], 30, folder)
            measure(study, "--status, asking", ["--status"], 0, folder)
            measure(study, "--status, soon after", ["--status"], 3600, folder)
            measure(study, "--status --json", ["--status", "--json"], 0, folder)
            measure(study, "--cancel", ["--cancel"], 30, folder)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
