"""Packing what a sweep needs before its runs start, in a process of its own."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence

from clipa_scaling import rundir
from clipa_scaling.packrequest import PackRequest
from clipa_scaling.taggers import classes_mark
from clipa_scaling.yamlfile import SweepError

BAD_DATA, STOPPED = 2, 130  # exit codes of train/pack.py


class PackError(RuntimeError):
    """A packer that ended for another reason than its data."""


def make_packs(requests: Sequence[PackRequest], workers: int) -> bool:
    """Make every pack that is not made yet, in one process; False when stopped by Ctrl-C.

    Raises SweepError where the data is at fault, with the line of the sweep file that names it,
    and PackError where the packer died.
    """
    for request in requests:
        write_request(request)
    command = [sys.executable, "-m", "clipa_scaling.train.pack", "--workers", str(workers)]
    code, said = run_packer([*command, *(str(request.folder) for request in requests)])
    if code == BAD_DATA:
        raise SweepError(said)
    if code not in (0, STOPPED):
        raise PackError(f"packing ended with exit code {code}: {said}")
    return code == 0


def write_request(request: PackRequest) -> None:
    """Say in a pack's folder what is to be packed there."""
    request.folder.mkdir(parents=True, exist_ok=True)
    asked = dataclasses.asdict(request)
    del asked["folder"]
    rundir.write_json(request.folder / "request.json", asked)


def is_packed(request: PackRequest) -> bool:
    """Whether a pack says that it is finished; the packer itself also looks at its parts."""
    marks = ["pack.json", *([classes_mark(request.tagger)] if request.tagger else [])]
    return all((request.folder / mark).exists() for mark in marks)


def run_packer(command: Sequence[str]) -> tuple[int, str]:
    """Exit code and last line of errors; its progress goes where ours goes."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, errors = process.communicate()
        except KeyboardInterrupt:  # a terminal sends it to the packer too, `kill` only to us
            process.terminate()
            process.communicate()
            return STOPPED, ""
    lines = [line for line in errors.splitlines() if line.strip()]
    return process.returncode, lines[-1] if lines else "it said nothing"
