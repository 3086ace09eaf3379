"""What one run is: RunSpec, its rules, its identity.

python -m clipa_scaling.spec lists the fields that a sweep file may set.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, Literal

import msgspec

from clipa_scaling import schema
from clipa_scaling.models import load_model

Kind = Literal["pretrain", "decay", "finetune", "evaluate"]
EvalSize = Literal["training", "full"]
SHORTEST_TEXT = 3  # start, one word, end
LONGEST_TEXT = 77  # what a pack holds of each caption (CLIP, arXiv:2103.00020, section 2.4)
LARGEST = 2**53  # of integers: what a float holds exactly
EVALUATOR = 1  # version of how evaluations are made; a change that can move a number raises it


class SpecError(ValueError):
    """A field whose value breaks a rule; `field` names it, so that a caller can say where."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.field = name


@dataclass(frozen=True)
class EvalSet:
    """A packed evaluation set and what to do with it; `pack` is its folder."""

    name: str
    task: Literal["classify", "retrieve"]
    pack: str
    fingerprint: str
    prompts: tuple[str, ...] = ("a photo of a {}",)

    @property
    def benchmark(self) -> str:
        """16 hex digits that name what is measured: pictures, task and prompts."""
        measured = [self.fingerprint, self.task, self.prompts]
        return hashlib.sha256(json.dumps(measured).encode()).hexdigest()[:16]


def beside(default: Any, meaning: str) -> Any:
    """A field that does not determine the weights, hence no part of a run's identity."""
    return field(default=default, metadata={"identity": False, "meaning": meaning})


def later(default: Any) -> Any:
    """A field added later; under its default the ids of older runs stay what they were."""
    return field(default=default, metadata={"legacy": default})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One stage of one configuration, fully resolved; durations are in samples.

    Defaults are CLIPA's pretraining recipe (arXiv:2305.07017, Appendix A, Table 5) where it names
    a value, and stock CLIP for what it builds. A field added later must carry the metadata
    `legacy`: see `later`.
    """

    model: str
    image_tokens: int
    samples: int
    batch_size: int
    lr: float
    data_fingerprint: str
    kind: Kind = "pretrain"
    parent: str = ""
    text_tokens: int = 32
    image_reduction: Literal["resize", "random", "grid", "block"] = "resize"
    text_reduction: Literal["truncate", "random", "block", "syntax"] = "truncate"
    word_classes: str = later("")
    image_size: int = 0
    tokenizer: Literal["clip", "wordpiece"] = "clip"
    vocab_size: int = 49_408
    image_position: Literal["learned", "sincos"] = later("learned")
    image_pool: Literal["cls", "mean", "mean_with_cls"] = later("cls")
    ln_pre: bool = later(True)
    ln_after_pool: bool = later(False)
    text_causal: bool = later(True)
    text_pool: Literal["eot", "last"] = later("eot")
    text_pad: Literal["seen", "masked"] = later("seen")
    logit_scale_init: float = later(0.0)
    logit_scale_max: float = later(100.0)
    logit_bias_init: float = later(0.0)
    start_fingerprint: str = later("")
    fresh_weights: tuple[str, ...] = later(())
    image_position_change: Literal["interpolate", "recompute", "extend"] = later("interpolate")
    text_position_change: Literal["interpolate", "extend"] = later("interpolate")
    objective: Literal["contrastive", "siglip", "classify"] = later("contrastive")
    class_prompts: tuple[str, ...] = later(())
    evaluations: tuple[str, ...] = later(())
    pixels: Literal["packed"] = "packed"
    store_px: int
    shuffle_shards: int = 64
    crop_min_area: float = 0.4
    color_jitter: float = later(0.0)
    color_jitter_share: float = later(0.8)
    grayscale_share: float = later(0.0)
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    warmup_samples: int = 0
    decay_samples: int = later(0)
    decay_shape: Literal["linear", "sqrt"] = later("sqrt")
    weight_decay: float = 0.2
    weight_decay_on: Literal["matrices", "kernels"] = later("matrices")
    grad_clip: float = later(0.0)
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 0

    stage: str = beside("pretrain", "the stage's name in the sweep file")
    gpus: int = beside(1, "devices of one run")
    image_start: str = beside(
        "", "image tower's first weights: open_clip:MODEL/TAG, folder or file"
    )
    text_start: str = beside("", "the text tower's, likewise; from one source: the scale's too")
    micro_batch: int = beside(0, "pairs a device holds at once; 0: what its memory should hold")
    grad_checkpointing: bool = beside(False, "recompute activations: less memory, one more forward")
    compile: bool = beside(False, "torch.compile the transformers; pays on a GPU")
    stop_diverged: bool = beside(True, "stop a run whose loss spikes or stays at chance")
    eval_every_samples: int = beside(0, "evaluate every so many samples; 0 is at the end only")
    checkpoint_every_samples: int = beside(0, "save every so many samples; 0 is every 5 minutes")
    log_every_samples: int = beside(0, "a row of metrics every so many; 0 is 40 rows a run")
    eval_batch: int = beside(256, "pictures or texts encoded at once in evaluation")
    tensorboard: bool = beside(False, "write TensorBoard event files too")
    wandb: str = beside("", "W&B project, or entity/project, to log to; empty is none")
    protocols: tuple[Literal["common", "paper"], ...] = beside(("common",), "whose prompts")
    eval_sizes: tuple[EvalSize, ...] = beside(("training",), "at the training size, at full size")
    full_px: int = beside(224, "the full size of evaluation pictures")
    tuned: tuple[str, ...] = beside((), "fields whose values tuning chose")
    pack: str = beside("", "folder of the packed training data")
    classes: int = beside(0, "classes of the training data, for objective: classify")
    keep_samples: tuple[int, ...] = beside((), "checkpoints that decay stages branch off from")
    evals: tuple[EvalSet, ...] = beside((), "packed evaluation sets")

    @property
    def position_tokens(self) -> int:
        """Patches in the position table: the full grid under masks, `image_tokens` under resize."""
        return (self.image_size // load_model(self.model).patch) ** 2

    @property
    def eval_image_tokens(self) -> int:
        """Evaluation uses no mask: the full grid for masks, the training count for resize."""
        return self.position_tokens

    @property
    def full_image_tokens(self) -> int:
        """Patches of a picture of full size."""
        return (self.full_px // load_model(self.model).patch) ** 2

    @property
    def measured_sizes(self) -> tuple[EvalSize, ...]:
        """The sizes to evaluate at; where the full one is the training size, that alone."""
        both = {"training", "full"} <= {*self.eval_sizes}
        return ("training",) if both and self.full_px == self.image_size else self.eval_sizes

    @property
    def steps(self) -> int:
        return self.samples // self.batch_size

    @property
    def texts_per_sample(self) -> float:
        """Texts encoded for each picture: all classes once a step, for `classify`; NaN: unknown."""
        if self.objective != "classify":
            return 1.0
        return self.classes / self.batch_size if self.classes else math.nan

    @property
    def trained_samples(self) -> int:
        """The run's own: a decay branch takes over what its parent has trained."""
        return self.decay_samples if self.kind == "decay" else self.samples


DERIVED = (
    "data_fingerprint", "parent", "stage", "store_px", "kind", "pack", "evals", "protocols",
    "word_classes", "start_fingerprint", "class_prompts", "classes", "keep_samples",
    "evaluations", "eval_sizes", "full_px", "tuned",
)  # fmt: skip


@cache
def field_types() -> dict[str, Any]:
    """Every field's type, by name."""
    return typing.get_type_hints(RunSpec)


def settable_fields() -> list[str]:
    """The fields a sweep file may set; the others follow from its data, stages and evaluation."""
    return [name for name in field_types() if name not in DERIVED]


def check_type(name: str, value: Any) -> Any:
    """The value as the field's type, `4e9` as an integer; SpecError says what is allowed."""
    hint = field_types()[name]
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        converted = msgspec.convert(value, hint)
    except msgspec.ValidationError:
        allowed = typing.get_args(hint)
        wanted = ", ".join(map(str, allowed)) if allowed else f"a value of type {hint.__name__}"
        raise SpecError(name, f"{name}={value!r} is not allowed; allowed: {wanted}") from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise SpecError(name, f"{name}={value!r} is not finite; allowed: a finite number")
    if isinstance(converted, int) and converted > LARGEST:
        raise SpecError(name, f"{name} is too large; allowed: up to {LARGEST:,}")
    return converted


def nearest(word: str, known: Iterable[str]) -> str:
    """How an error message ends: the nearest known word, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"nearest: {close[0]}" if close else f"allowed: {', '.join(known)}"


def identity(spec: RunSpec) -> dict[str, Any]:
    """What determines the weights: every field but those beside, legacy values left out."""
    legacy = legacy_values()
    return {
        name: value
        for name in legacy
        if (value := getattr(spec, name)) != legacy[name] or legacy[name] is MISSING
    }


@cache
def legacy_values() -> dict[str, Any]:
    """The identity's fields, each with the value under which it is left out, or MISSING."""
    return {
        item.name: item.metadata.get("legacy", MISSING)
        for item in fields(RunSpec)
        if item.metadata.get("identity", True)
    }


def run_id(spec: RunSpec) -> str:
    """A readable slug and ten hex digits of the hash of the run's identity."""
    text = json.dumps(identity(spec), sort_keys=True)
    digits = hashlib.sha256(text.encode()).hexdigest()[:10]
    model = spec.model.replace("/", "-")
    sizes = f"i{spec.image_tokens}-t{spec.text_tokens}-{short_count(spec.samples)}"
    return f"{spec.kind}-{model}-{sizes}-s{spec.seed}-{digits}"


def short_count(count: int) -> str:
    """A count in three digits: 2.56B, 48K."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= 0.9995 * size:  # what three digits would round to the unit
            return f"{count / size:.3g}{unit}"
    return str(count)


def spec_to_json(spec: RunSpec) -> dict[str, Any]:
    """The spec as plain JSON values."""
    return dict(msgspec.to_builtins(spec))


def spec_from_json(value: Mapping[str, Any]) -> RunSpec:
    """The spec that `spec_to_json` wrote; an unknown or missing field raises."""
    unknown = set(value) - {item.name for item in fields(RunSpec)}
    if unknown:
        raise ValueError(f"spec.json: unknown fields {sorted(unknown)}; written by another version")
    return msgspec.convert(value, RunSpec)


def list_fields() -> str:
    """The fields that a sweep file may set, a line each: name, default, meaning."""
    lines = []
    for item in fields(RunSpec):
        if item.name in settable_fields():
            default = "required" if item.default is MISSING else f"{item.default}"
            meaning = item.metadata.get("meaning") or schema.SPEC[item.name].meaning
            lines.append(f"{item.name:<26}{default:<10}{meaning}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(list_fields())
