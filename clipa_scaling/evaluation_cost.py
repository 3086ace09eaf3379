"""What an evaluation takes: one forward per picture and prompt, counted before it is packed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from clipa_scaling.cost import Cost
from clipa_scaling.counts import image_flops, text_flops
from clipa_scaling.evaluation import FULL, asked_of, full_tokens, parts_of
from clipa_scaling.models import load_model
from clipa_scaling.packrequest import PackRequest
from clipa_scaling.rundir import read_json
from clipa_scaling.source import SCENES_CLASSES, list_pictures
from clipa_scaling.spec import EvalSet, RunSpec

PAPER_PROMPTS = 80  # a class, of protocol paper (CLIP, arXiv:2103.00020, section 3.1.4)

TREATMENTS = (
    4  # at most, of both towers' positions, that a child is measured under before it begins
)


class SetSizes:
    """How many pictures and texts evaluation sets have; NaN for shards before they are packed."""

    def __init__(self, requests: Iterable[PackRequest]):
        self.requests = {str(request.folder): request for request in requests}
        self.known: dict[str, tuple[float, float]] = {}

    def pictures(self, item: EvalSet) -> float:
        return self.count(item)[0]

    def texts(self, item: EvalSet, protocol: str) -> float:
        """Each class under each prompt, or each caption; those that a cut makes equal in full."""
        prompts = PAPER_PROMPTS if protocol == "paper" else len(item.prompts)
        return self.count(item)[1] * (prompts if item.task == "classify" else 1)

    def count(self, item: EvalSet) -> tuple[float, float]:
        """Pictures, and classes or captions."""
        if item.pack not in self.known:
            self.known[item.pack] = self.look(item)
        return self.known[item.pack]

    def look(self, item: EvalSet) -> tuple[float, float]:
        classes = item.task == "classify"
        head, request = read_json(Path(item.pack) / "pack.json"), self.requests.get(item.pack)
        if head is not None:
            return head["pairs"], len(head["class_names"]) if classes else head["captions"]
        if request is not None and request.source.kind == "scenes":
            pairs = request.source.pairs
            return pairs, SCENES_CLASSES if classes else pairs
        if request is not None and request.source.kind == "folder":
            names = [name.partition("/")[0] for name, _ in list_pictures(request.source.where)]
            return len(names), len(set(names))
        return math.nan, math.nan


def evaluation_flops(spec: RunSpec, sizes: SetSizes) -> float:
    """FLOPs of an evaluation run: each part encodes its pictures once a size, and its texts."""
    model, total = load_model(spec.model), 0.0
    text = text_flops(model.size.text, model.size.embed_dim, spec.text_tokens)
    for part in parts_of(spec):
        for size in part.sizes:
            tokens = full_tokens(spec, spec.full_px) if size == FULL else spec.eval_image_tokens
            image = image_flops(model.size.image, model.patch, model.size.embed_dim, tokens)
            total += sizes.pictures(part.item) * image
        total += text * sum(sizes.texts(part.item, protocol) for protocol in part.protocols)
    return total


def evaluation_hours(spec: RunSpec, training: Cost, sizes: SetSizes) -> float:
    """Wall hours of all evaluations that a training run makes itself: one device, forward only.

    At the speed that the training is priced at. Sets of unknown size count nothing; 0 of an
    evaluation run, whose price is of evaluation.
    """
    if spec.kind == "evaluate" or not spec.evals:
        return 0.0
    names = tuple(asked_of(spec).evaluations())
    whole = replace(spec, evaluations=names, eval_sizes=spec.measured_sizes)
    each = [evaluation_flops(replace(whole, evals=(item,)), sizes) for item in spec.evals]
    flops = count_evaluations(spec) * sum(value for value in each if not math.isnan(value))
    trained = training.train_flops + training.recompute_flops
    return flops / trained * training.gpu_hours / training.threads


def count_evaluations(spec: RunSpec) -> int:
    """At most: those every so many samples, the last among them, and a child's before its first."""
    every = spec.eval_every_samples or spec.trained_samples
    return -(-spec.trained_samples // every) + TREATMENTS * (spec.kind == "finetune")


def price_evaluation(spec: RunSpec, training: Cost, sizes: SetSizes) -> Cost:
    """The cost of an evaluation run, given what its parent's fields would cost in training.

    At the FLOP/s that the training is priced at. Reading and resizing pictures is not counted, and
    memory, which is below training's, not estimated. No FLOPs are training's and nothing is kept.
    """
    trained = training.train_flops + training.recompute_flops
    share = evaluation_flops(spec, sizes) / trained
    return replace(
        training,
        train_flops=0.0,
        recompute_flops=0.0,
        memory_bytes=math.nan,
        checkpoint_bytes=0,
        gpu_hours=training.gpu_hours * share,
        dollars=training.dollars * share,
    )
