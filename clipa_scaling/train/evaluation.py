"""An evaluation run: its parent's last checkpoint, measured set by set; nothing is trained."""

from __future__ import annotations

import signal
import time
from dataclasses import replace

import torch
from safetensors.torch import load_file

from clipa_scaling.evaluation import Part, parts_are_whole, parts_of
from clipa_scaling.models import load_model
from clipa_scaling.rundir import RunDir
from clipa_scaling.spec import EVALUATOR, RunSpec
from clipa_scaling.train.begin import find_parent
from clipa_scaling.train.checkpoint import WEIGHTS
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.evaluate import Evaluator
from clipa_scaling.train.features import StopRequested, setting_of
from clipa_scaling.train.model import build_of, make_model
from clipa_scaling.train.record import Record
from clipa_scaling.train.stopping import StopFlag


class Evaluation:
    """A model as its parent left it, and what of it is to be measured.

    Raises Refused where the parent is not done, or the run was planned for another evaluator.
    """

    def __init__(
        self, spec: RunSpec, run: RunDir, attempt: int, stop: StopFlag, device: torch.device
    ):
        self.spec, self.run, self.stop = spec, run, stop
        if not parts_are_whole(spec):
            raise Refused(
                f"{run.path.name}: evaluations={' '.join(spec.evaluations) or '()'} are not those "
                f"of its sets under evaluator {EVALUATOR}; launch --evaluate again"
            )
        self.record = Record(spec, run, attempt, writes=True)
        # All sets are opened before any is measured: one that is missing is told at once.
        self.parts = [(part, self.open(part, device)) for part in parts_of(spec)]
        self.model = make_model(
            load_model(spec.model),
            spec.image_size,
            spec.text_tokens,
            spec.vocab_size,
            spec.seed,
            build_of(spec),
        ).to(device)
        self.model.load_state_dict(read_checkpoint(spec, run))

    def open(self, part: Part, device: torch.device) -> Evaluator:
        """What the run itself would have measured this part with."""
        spec = replace(
            self.spec, evals=(part.item,), protocols=part.protocols, eval_sizes=part.sizes
        )
        return Evaluator(spec.evals, setting_of(spec, device, self.should_stop))

    def should_stop(self) -> bool:
        """Asked between batches, so a sign of life too."""
        self.record.beat(0)
        return bool(self.stop.number)

    def evaluate(self) -> int | None:
        """Measure what is left, each part written whole; the signal that stopped it, if one did."""
        began, samples = time.monotonic(), self.spec.samples
        self.record.begin(0, keep=samples)
        is_complete = False
        try:
            for part, evaluator in self.parts:
                if not self.is_done(part):
                    self.record.add_evals(evaluator.evaluate(self.model, samples))
            is_complete = True
        except StopRequested:
            number = self.stop.number
            assert number is not None
            self.record.event("stopped", 0, signal=signal.Signals(number).name)
            self.record.state("stopped", 0, "stopped by a signal; the same command resumes it")
            return number
        finally:
            self.record.close(is_complete)
        self.record.done(samples, time.monotonic() - began)
        return None

    def is_done(self, part: Part) -> bool:
        return any(
            row["set"] == part.item.name
            and row["protocol"] == part.protocols[0]
            and row.get("size", part.sizes[0]) == part.sizes[0]
            for row in self.record.evals()
        )


def read_checkpoint(spec: RunSpec, run: RunDir) -> dict[str, torch.Tensor]:
    """The weights that the run measures; Refused where its parent has not left them."""
    parent = find_parent(spec, run)
    folder = parent.checkpoints / str(spec.samples)
    if not (parent.done.exists() and (folder / WEIGHTS).exists()):
        raise Refused(
            f"{run.path.name}: parent {spec.parent} has no finished checkpoint at sample "
            f"{spec.samples}; allowed: a parent that is done, beside this run; run it first"
        )
    return load_file(folder / WEIGHTS)
