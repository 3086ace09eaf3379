"""An evaluation as a run of its own: its name, its spec from its parent's, and its parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from clipa_scaling.models import load_model
from clipa_scaling.spec import EVALUATOR, EvalSet, RunSpec

COMMON = "common"  # the only protocol of retrieval, whose captions are nobody's prompts
TRAINING, FULL = "training", "full"


@dataclass(frozen=True)
class Asked:
    """Evaluation sets, whose prompts, at which sizes, and the full size in px."""

    evals: tuple[EvalSet, ...]
    protocols: tuple[Any, ...]
    eval_sizes: tuple[Any, ...]
    full_px: int

    def evaluations(self) -> dict[str, tuple[EvalSet, str, str]]:
        """Set, protocol and size of each evaluation, by its name."""
        return {
            name_evaluation(item.benchmark, protocol, size, self.full_px): (item, protocol, size)
            for item in self.evals
            for protocol in protocols_of(item, self.protocols)
            for size in self.eval_sizes
        }


class Part(NamedTuple):
    """What an evaluation run measures in one go: a set under some protocols at some sizes."""

    item: EvalSet
    protocols: tuple[Any, ...]
    sizes: tuple[Any, ...]


def name_evaluation(
    benchmark: str, protocol: str, size: str, full_px: int, version: int = EVALUATOR
) -> str:
    """BENCHMARK/PROTOCOL/SIZE/vEVALUATOR; SIZE is `training`, or the full size in px."""
    return f"{benchmark}/{protocol}/{full_px if size == FULL else TRAINING}/v{version}"


def protocols_of(item: EvalSet, protocols: tuple[str, ...]) -> tuple[str, ...]:
    return protocols if item.task == "classify" else (COMMON,)


def asked_of(spec: RunSpec) -> Asked:
    """What a run measures by itself."""
    return Asked(spec.evals, spec.protocols, spec.measured_sizes, spec.full_px)


def full_tokens(spec: RunSpec, full_px: int) -> int:
    """Patches of a picture at full size."""
    side: int = full_px // load_model(spec.model).patch
    return side * side


def name_row(row: Mapping[str, Any], spec: RunSpec, full_px: int) -> str:
    """The evaluation that a row of the evals table is of.

    One at another full size has no name, nor one without its `evaluation`: nobody knows what its
    classes were called. Rows that say neither size nor evaluator are of the training size and
    version 1.
    """
    if not row.get("evaluation"):
        return ""
    size = row.get("size") or TRAINING
    if size == FULL and row["eval_image_tokens"] != full_tokens(spec, full_px):
        return ""
    version = int(row.get("evaluator") or 1)
    return name_evaluation(row["fingerprint"], row["protocol"], size, full_px, version)


def plan_evaluation(
    parent: str, spec: RunSpec, asked: Asked, names: Collection[str], stage: str
) -> RunSpec:
    """The spec of a run that measures its parent's last checkpoint: nothing else is its own.

    spec: the parent's. names: of the evaluations that it is to make, all of them asked for.
    """
    chosen = [what for name, what in asked.evaluations().items() if name in names]
    assert len(chosen) == len(names), "every evaluation is asked for"
    items, protocols, sizes = (set(column) for column in zip(*chosen, strict=True))
    listed = dict.fromkeys([*asked.protocols, COMMON])  # retrieval's own, whatever is asked for
    return replace(
        spec,
        kind="evaluate",
        parent=parent,
        stage=stage,
        evaluations=tuple(sorted(names)),
        evals=tuple(item for item in asked.evals if item in items),
        protocols=tuple(name for name in listed if name in protocols),
        eval_sizes=tuple(size for size in asked.eval_sizes if size in sizes),
        full_px=asked.full_px,
        gpus=1,  # in training too one device evaluates
        keep_samples=(),
    )


def parts_of(spec: RunSpec) -> Iterator[Part]:
    """An evaluation run's parts, set by set; sizes that share their protocols go together."""
    for item in spec.evals:
        by_protocols: dict[tuple[Any, ...], list[Any]] = {}
        for size in spec.eval_sizes:
            protocols = tuple(
                protocol
                for protocol in protocols_of(item, spec.protocols)
                if name_evaluation(item.benchmark, protocol, size, spec.full_px) in spec.evaluations
            )
            by_protocols.setdefault(protocols, []).append(size)
        yield from (
            Part(item, names, tuple(sizes)) for names, sizes in by_protocols.items() if names
        )


def parts_are_whole(spec: RunSpec) -> bool:
    """Whether the parts are what the run was planned for; not so under another evaluator."""
    names = {
        name_evaluation(part.item.benchmark, protocol, size, spec.full_px)
        for part in parts_of(spec)
        for protocol in part.protocols
        for size in part.sizes
    }
    return bool(names) and names == set(spec.evaluations)
