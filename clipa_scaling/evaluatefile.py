"""The file of `--evaluate`: evaluation sets and how to measure them, for runs of another file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clipa_scaling.evaluation import Asked
from clipa_scaling.packrequest import PackRequest
from clipa_scaling.sweepfile import Sweep, read_evaluation
from clipa_scaling.yamlfile import SweepError, load_document

KEYS = ("evals", "evaluate")


def load_asked(sweep: Sweep, path: Path | None) -> tuple[Asked, tuple[PackRequest, ...]]:
    """What is asked for of a sweep's runs, by a file of its own or the sweep's, and its packs.

    A block that the file does not have is the sweep's. Raises SweepError for any mistake in it, for
    sets that are not there, and where there are none at all.
    """
    asked, requests, missing = sweep.asked, sweep.block.requests, sweep.missing
    if path is not None:
        document = load_document(path)
        document.check_keys((), document.values, KEYS)
        if not document.values:
            raise document.error((), f"is empty; allowed: {', '.join(KEYS)}")
        if "evaluate" in document.values:
            asked = replace(asked, **read_evaluation(document))
        if "evals" in document.values:
            block = sweep.block.with_evals(document)
            asked = replace(asked, evals=tuple(block.evals))
            requests, missing = block.requests, block.missing
    if not asked.evals:
        raise SweepError(f"{path or sweep.path}: has no evaluation sets; add data.evals or evals")
    if missing and any(item.fingerprint == "missing" for item in asked.evals):
        raise SweepError(missing)
    folders = {item.pack for item in asked.evals}
    return asked, tuple(request for request in requests if str(request.folder) in folders)
