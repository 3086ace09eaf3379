"""Studies launched on a private Slurm by the real command, and what then is in its queue."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from make_data import ROOT
from small_sweep import command, write_small

from clipa_scaling.launch.batch import Batch, folder_digits, load_batches
from clipa_scaling.launch.packs import make_packs
from clipa_scaling.launch.queue import ENDED
from clipa_scaling.sweepfile import load_sweep
from slurm.cluster import Cluster

NAME = "queue"
POLL_SECONDS = 1
# A run is one step. Jobs do not start unless a test leaves `begin` out.
TEXT = """\
name: {name}
data: {{train: scenes, pairs: 64, store_px: 16}}
fixed:
  model: T32/8
  image_tokens: 4
  samples: 64
  batch_size: 64
  lr: 1e-3
  warmup_samples: 0
  text_tokens: 8
  precision: fp32
seeds: {seeds}
resources: {{gpu: cpu-core, hours: 1}}
slurm: {{gpus_per_node: 2, sbatch: {{begin: {begin}}}{slurm}}}
{more}
"""


def write_text(
    seeds: Sequence[int], slurm: str = "", more: str = "", begin: str = "now+1hour"
) -> str:
    """A sweep file of a run per seed; `slurm` goes into that block, `more` after all."""
    slurm = f", {slurm}" if slurm else ""
    return TEXT.format(name=NAME, seeds=list(seeds), slurm=slurm, more=more, begin=begin)


def pack_once(folder: Path) -> Path:
    """The packs that every study here needs, made without Slurm."""
    sweep = write_small(folder, write_text([0]))
    assert make_packs(load_sweep(sweep, folder).packs, workers=1)
    return folder


@dataclass(frozen=True)
class Study:
    """A sweep file, its folder, and the Slurm that its command sees."""

    sweep: Path
    environment: Mapping[str, str]
    cluster: Cluster

    @property
    def runs(self) -> Path:
        return self.sweep.resolve().parent / "runs"

    def write(self, text: str) -> None:
        self.sweep.write_text(text)

    def launch(self, *options: str, code: int = 0, **extra: str) -> str:
        """What the command prints, its errors too; it must end with the exit code `code`."""
        done = self.start(*options, **extra)
        said, _ = done.communicate(timeout=600)
        assert done.returncode == code, f"exit {done.returncode}: {said}"
        return said

    def start(self, *options: str, **extra: str) -> subprocess.Popen[str]:
        """The command, at work."""
        return self.spawn(command(self.sweep, "--cluster", "slurm", *options), **extra)

    def start_killed(self, point: str, **extra: str) -> subprocess.Popen[str]:
        """The command, which kills itself at a point (see killed_launcher)."""
        arguments = command(self.sweep, "--cluster", "slurm")[3:]
        driver = [sys.executable, "-m", "tests.slurm.killed_launcher", point]
        return self.spawn([*driver, *arguments], **extra)

    def spawn(self, line: Sequence[str], **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            line,
            cwd=ROOT,
            env={**self.environment, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def status(self, *options: str) -> dict[str, dict[str, Any]]:
        """Every run's status by its seed and stage, as `--status --json` has it."""
        said = json.loads(self.launch("--status", "--json", *options))
        return {name_of(run["run"]): run for run in said["runs"]}

    def states(self) -> Counter[str]:
        return Counter(run["state"] for run in self.status().values())

    def batches(self) -> list[Batch]:
        return load_batches(self.runs, NAME)

    def queued(self) -> dict[str, tuple[str, str]]:
        """Job -> state and reason of this study's tasks that the controller still has to do."""
        names = {batch.name for batch in self.batches()}
        lines = self.cluster.run("squeue", "-r", "-t", "all", "-h", "-o", "%i|%j|%T|%r")
        rows = [line.split("|") for line in lines.splitlines()]
        ours = [row for row in rows if row[1] in names]
        mark = f"clipa:{NAME}:{folder_digits(self.runs)}"
        foreign = [row for row in rows if row[1].startswith(mark) and row not in ours]
        alive = [row for row in foreign if row[2] not in ENDED]
        assert not alive, f"jobs of no batch: {alive}"
        return {job: (state, reason) for job, _, state, reason in ours if state not in ENDED}

    def queued_runs(self) -> Counter[str]:
        """How many tasks in the queue each run has, by seed and stage."""
        queued = self.queued()
        return Counter(
            name_of(run)
            for batch in self.batches()
            for job, run in zip(batch.task_jobs(), batch.tasks, strict=True)
            if job in queued and batch.kind == "runs"
        )


def name_of(run: str) -> str:
    """The kind and seed of a run's id, such as `pretrain 3`."""
    kind, seed = run.split("-")[0], run.split("-")[-2]
    return f"{kind} {seed.removeprefix('s')}"


def make_study(folder: Path, packs: Path, cluster: Cluster, text: str) -> Study:
    """A study whose packs are made; its folder is new."""
    sweep = write_small(folder, text)
    shutil.copytree(packs, folder / "runs" / ".packs")
    outer = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    own = {"CLIPA_POLL_SECONDS": str(POLL_SECONDS), "COLUMNS": "200"}
    return Study(sweep, {**outer, **cluster.environment, **own}, cluster)


def assert_all_once(study: Study, names: Sequence[str]) -> None:
    """Every run has one task in the queue, which may start, and all that it needs to."""
    queued = study.queued()
    assert study.queued_runs() == Counter(names)
    assert len(queued) == len(names)
    held = {job: why for job, (_, why) in queued.items() if why.startswith("JobHeld")}
    assert not held
    for batch in study.batches():
        assert batch.state in ("released", "void")
        jobs = batch.task_jobs() if batch.state == "released" else []
        folder = study.runs / ".sweeps" / NAME / "submissions" / batch.id
        for job in set(jobs) & set(queued):
            assert (folder / f"{job}_submitted.pkl").stat().st_size > 0


def wrap_program(folder: Path, name: str, before: str) -> str:
    """A PATH on which the program `name` first does something else, in shell."""
    program = shutil.which(name)
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text(f'#!/bin/sh\n{before}\nexec {program} "$@"\n')
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"
