"""A private Slurm to try things on: tools/try_slurm.py start [--accounting] | status | stop"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from slurm.cluster import Cluster, find_hindrance  # noqa: E402

# A link to where it lives: the path of a clone can be too long for sockets.
PLACE = ROOT / "runs" / ".slurm"

NEXT = """\
Slurm runs: two nodes of 2 CPUs and 2 GPUs that are counted but not there. In a shell, type

  export SLURM_CONF={conf}

and then, for example,

  sinfo                       # partitions: low, short (10 minutes at most), high (preempts low)
  srun -N2 hostname
  sbatch --array=0-3 --wrap 'sleep 20'
  squeue -r
  make slurm-stop             # ends it, with its jobs; logs until then: {logs}
"""


def start(accounting: bool) -> None:
    """Start it, unless it runs, and say how to use it."""
    if not Cluster(PLACE).is_running():
        if hindrance := find_hindrance(accounting):
            sys.exit(hindrance)
        remove_place()
        PLACE.parent.mkdir(exist_ok=True)
        PLACE.symlink_to(tempfile.mkdtemp(prefix="slurm-"))
        try:
            Cluster(PLACE, accounting).start()
        except RuntimeError as error:
            remove_place()
            sys.exit(str(error))
    status()


def status() -> None:
    cluster = Cluster(PLACE)
    if cluster.is_running():
        conf = cluster.environment["SLURM_CONF"]
        print(NEXT.format(conf=conf, logs=f"{cluster.base}/*.log"), end="")
    else:
        print("no Slurm of this clone runs; make slurm starts one")


def stop() -> None:
    was_running = Cluster(PLACE).is_running()
    Cluster(PLACE).stop()
    remove_place()
    print("ended, with its jobs" if was_running else "no Slurm of this clone runs")


def remove_place() -> None:
    if PLACE.is_symlink():
        shutil.rmtree(PLACE.resolve(), ignore_errors=True)
        PLACE.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["start", "status", "stop"])
    parser.add_argument("--accounting", action="store_true", help="with a database: sacct answers")
    options = parser.parse_args()
    if options.what == "start":
        start(options.accounting)
    else:
        {"status": status, "stop": stop}[options.what]()


if __name__ == "__main__":
    main()
