"""The file of `--evaluate`: evaluation sets and how to measure them, for runs of another file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clipa_scaling.evaluation import Asked
from clipa_scaling.packrequest import PackRequest
from clipa_scaling.spec import RunSpec
from clipa_scaling.sweepfile import Sweep, read_evaluation
from clipa_scaling.yamlfile import SweepError, load_document

KEYS = ("evals", "evaluate")


Spoken = Callable[[RunSpec], Asked]  # what is asked for, in the ids of a run's tokenizer


def load_asked(sweep: Sweep, path: Path | None) -> tuple[Asked, Spoken, list[PackRequest]]:
    """What is asked for of a sweep's runs, by a file of its own or the sweep's, and packs for it.

    Captions are packed in the ids of each tokenizer: what is asked for of a run is in its own.
    A block that the file does not have is the sweep's. Raises SweepError for any mistake in it, for
    sets that are not there, and where there are none at all.
    """
    asked, block, missing = sweep.asked, sweep.block, sweep.missing
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
            missing = block.missing
    if not asked.evals:
        raise SweepError(f"{path or sweep.path}: has no evaluation sets; add data.evals or evals")
    if missing and any(item.fingerprint == "missing" for item in asked.evals):
        raise SweepError(missing)
    packs = list(block.requests)

    def speak(spec: RunSpec) -> Asked:
        if spec.tokenizer != "wordpiece":
            return asked
        given = block.wordpiece.fields({"pack": "", "evals": asked.evals}, block.requests)
        if block.wordpiece.fault:
            raise SweepError(f"{sweep.path}: data.vocab: {block.wordpiece.fault}")
        packs.extend(pack for pack in block.wordpiece.renamed.values() if pack not in packs)
        return replace(asked, evals=given["evals"])

    return asked, speak, packs
