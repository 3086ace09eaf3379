"""Where a run's first weights and stream come from: a parent, a release, or its seed."""

from __future__ import annotations

from dataclasses import dataclass

import open_clip
import torch
from safetensors.torch import load_file

from clipa_scaling.rundir import RunDir, read_json
from clipa_scaling.source import DataError
from clipa_scaling.spec import RunSpec, spec_from_json
from clipa_scaling.train import checkpoint
from clipa_scaling.train.checkpoint import WEIGHTS, Checkpoint
from clipa_scaling.train.ending import Refused
from clipa_scaling.train.fit_weights import PARTS, fit_weights
from clipa_scaling.train.keyed import make_key
from clipa_scaling.train.positions import Weights, treatments
from clipa_scaling.train.released import name_starts, read_start
from clipa_scaling.weights import fingerprint_starts


@dataclass(frozen=True)
class Origin:
    """Weights that a run starts from, and the fresh model's, which fill what they leave open.

    who: what a message calls them.
    """

    spec: RunSpec
    theirs: Weights
    initial: Weights
    who: str
    parts: tuple[str, ...]

    def load(self, model: open_clip.CLIP, image_change: str = "", text_change: str = "") -> None:
        """Give a model these weights, positions treated as the spec says unless told otherwise."""
        fit_weights(
            model,
            self.theirs,
            self.who,
            image_change=image_change or self.spec.image_position_change,
            text_change=text_change or self.spec.text_position_change,
            fresh_weights=self.spec.fresh_weights,
            initial=self.initial,
            parts=self.parts,
        )

    def treatments(self, model: open_clip.CLIP) -> list[tuple[str, str]]:
        """The position treatments that differ; a single one where no length changes."""
        return treatments(model, self.theirs, self.initial)


def find_origin(spec: RunSpec, run: RunDir, model: open_clip.CLIP) -> Origin | None:
    """What a run at its first sample starts from, read; None where its seed makes all weights.

    `model` is fresh. Refused where the parent is not done or released weights are not as planned.
    """
    starts = spec.image_start, spec.text_start
    if not spec.parent and not any(starts):
        return None
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    if spec.parent:
        parent = find_parent(spec, run)
        who = f"{run.path.name}: parent {spec.parent}"
        return Origin(spec, read_parent(run, parent), initial, who, tuple(PARTS))
    check_starts(spec, run)
    who = " and ".join(dict.fromkeys(start for start in starts if start))
    parts = tuple(part for part, start in name_starts(*starts).items() if start)
    return Origin(spec, read_start(model, *starts), initial, who, parts)


def read_parent(child: RunDir, parent: RunDir) -> dict[str, torch.Tensor]:
    """A parent's last weights; Refused where it is not done."""
    folder = parent.last_checkpoint()
    if folder is None or not parent.done.exists():
        raise Refused(
            f"{child.path.name}: parent {parent.path.name} is not done; allowed: a parent with "
            "done.json beside this run; run it first"
        )
    return load_file(folder / WEIGHTS)


def find_parent(spec: RunSpec, run: RunDir) -> RunDir:
    return RunDir(run.path.parent / spec.parent)


def check_starts(spec: RunSpec, run: RunDir) -> None:
    """Refused where files of weights are not those that the run was planned with."""
    starts = [start for start in (spec.image_start, spec.text_start) if start]
    try:
        now = fingerprint_starts(spec.image_start, spec.text_start)
    except DataError as error:
        raise Refused(f"{run.path.name}: {error}") from None
    if now != spec.start_fingerprint:
        raise Refused(
            f"{run.path.name}: {', '.join(starts)} are not the planned {spec.start_fingerprint} "
            f"but {now}; launch again to plan with them as they are"
        )


def find_branch(spec: RunSpec, run: RunDir, device: torch.device) -> Checkpoint:
    """A decay run's first state: its parent's last kept one up to where the decay begins.

    Between the two it trains at the steady rate, exactly as its parent did. Refused without one.
    """
    parent = find_parent(spec, run)
    leaves = spec.samples - spec.decay_samples
    kept = parent.kept_states()
    before = [samples for samples in kept if samples <= leaves]
    if not before or not parent.done.exists():
        listed = ", ".join(map(str, kept)) or "none"
        raise Refused(
            f"{run.path.name}: parent {spec.parent} has no state at sample {leaves} or before; "
            f"it kept: {listed}; allowed: a parent that was planned with this stage and is done; "
            "give it another seed, or remove its folder, and launch again"
        )
    return checkpoint.load(parent, max(before), device)


def stream_key(spec: RunSpec, run: RunDir) -> int:
    """What keys a run's data order, crops and masks: its seed, and for a finetuning its parent.

    So a child does not see its parent's stream again from the start. A decay goes on with it.
    """
    while spec.kind == "decay":
        values = read_json(find_parent(spec, run).spec)
        if values is None:
            raise Refused(
                f"{run.path.name}: parent {spec.parent} has no folder; allowed: a parent that is "
                "done; run it first"
            )
        spec = spec_from_json(values)
    return make_key(spec.seed, "stream", spec.parent) if spec.parent else spec.seed
