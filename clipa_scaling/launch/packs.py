"""Packing what a sweep needs before its runs start, each data set in a process of its own."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence

from clipa_scaling import rundir
from clipa_scaling.sweepfile import PackRequest
from clipa_scaling.yamlfile import SweepError

BAD_DATA, STOPPED = 2, 130  # exit codes of train/pack.py


class PackError(RuntimeError):
    """A packer that ended for another reason than its data."""


def make_packs(requests: Sequence[PackRequest], workers: int) -> bool:
    """Make every pack that is not made yet; False when stopped by Ctrl-C.

    Raises SweepError where the data is at fault, with the line of the sweep file that names it,
    and PackError where a packer died.
    """
    for request in requests:
        request.folder.mkdir(parents=True, exist_ok=True)
        asked = dataclasses.asdict(request)
        asked = {name: asked[name] for name in asked if name not in ("folder", "place")}
        rundir.write_json(request.folder / "request.json", asked)
        code, said = run_packer(request, workers)
        if code == STOPPED:
            return False
        if code == BAD_DATA:
            raise SweepError(f"{request.place}: {said}")
        if code:
            raise PackError(f"packing {request.source.where}: exit code {code}: {said}")
    return True


def run_packer(request: PackRequest, workers: int) -> tuple[int, str]:
    """Exit code and last line of errors of one packer; its progress goes where ours goes."""
    command = [sys.executable, "-m", "clipa_scaling.train.pack", str(request.folder)]
    with subprocess.Popen(
        [*command, "--workers", str(workers)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _, errors = process.communicate()
        except KeyboardInterrupt:  # a terminal sends it to the packer too, `kill` only to us
            process.terminate()
            process.communicate()
            return STOPPED, ""
    lines = [line for line in errors.splitlines() if line.strip()]
    return process.returncode, lines[-1] if lines else "it said nothing"
