"""A run's parameters, FLOPs, memory, GPU-hours and dollars, in closed form; no model is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from clipa_scaling.models import Model, Tower

GB = 10**9  # decimal, as data sheets print it; cards report up to 7 % more, taken as their overhead
PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True)
class Device:
    """What a run is priced on: peaks in FLOP/s (dense, no sparsity), memory in bytes.

    peak_flops: bf16 with fp32 sums, NaN where the device has none; fp32_flops: true fp32, no TF32.
    utilisation: share of the peak that training reaches, recomputation counted; always an
    assumption, taken only where the caller gives none, and then marked in Cost.
    """

    name: str
    peak_flops: float
    fp32_flops: float
    memory_bytes: int
    utilisation: float
    source: str


# Assumed for every GPU. The hours of six published CLIPA runs on A100 (arXiv:2305.07017, Table 1;
# arXiv:2306.15658, Table 4), all taken as gradient checkpointed, give 0.24 to 0.37.
GPU_UTILISATION = 0.3
# Measured on one AVX-512 core of an AMD EPYC: fp32 matrices 1.15e11 FLOP/s, training T32 to T128
# 0.45e11 to 0.87e11. Declared for any core; bf16 is assumed no faster, since few cores have it.
CPU_FLOPS, CPU_UTILISATION = 1e11, 0.5


def make_gpu(name: str, bf16: float, fp32: float, source: str) -> Device:
    """A GPU of a data sheet, peaks in TFLOP/s; its name ends in its memory, such as 80gb."""
    memory = int(name.rpartition("-")[2].removesuffix("gb")) * GB
    return Device(name, bf16 * 1e12, fp32 * 1e12, memory, GPU_UTILISATION, source)


ALL_DEVICES = (
    make_gpu("a100-40gb", 312.0, 19.5, "NVIDIA A100 data sheet"),
    make_gpu("a100-80gb", 312.0, 19.5, "NVIDIA A100 data sheet"),
    make_gpu("h100-80gb", 989.4, 66.9, "NVIDIA H100 data sheet, SXM5"),
    make_gpu("h200-141gb", 989.4, 66.9, "NVIDIA H200 data sheet, SXM5"),
    make_gpu("v100-32gb", math.nan, 15.7, "NVIDIA V100 data sheet, SXM2; no bf16"),
    make_gpu("l40s-48gb", 362.05, 91.6, "NVIDIA L40S data sheet"),
    make_gpu("rtx4090-24gb", 165.2, 82.6, "NVIDIA Ada architecture white paper"),
    Device("cpu-core", CPU_FLOPS, CPU_FLOPS, 4 * GB, CPU_UTILISATION, "this package: declared"),
)
DEVICES: dict[str, Device] = {device.name: device for device in ALL_DEVICES}


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Parameters count every tensor the optimiser could see; total_params has the logit scale too,
    nonembedding_params is total_params less token embeddings and both position tables.
    flops_per_sample: one forward of both towers; train_flops = 3 x samples x that; recompute_flops
    is what gradient checkpointing adds (one more forward), else 0. gpu_hours sums over devices
    (core-hours on cpu-core) and dollars is NaN without a price; utilisation is the share of the
    peak they rest on, utilisation_assumed whether it was the device's default. memory_bytes is an
    estimate for one device (see estimate_memory), checkpoint_bytes the weights and both moments.
    """

    image_params: int
    text_params: int
    total_params: int
    nonembedding_params: int
    flops_per_sample: float
    train_flops: float
    recompute_flops: float
    memory_bytes: float
    checkpoint_bytes: int
    gpu_hours: float
    dollars: float
    utilisation: float
    utilisation_assumed: bool


def block_flops(tower: Tower, tokens: int) -> float:
    """FLOPs of all layers on so many tokens: projections and MLP, then scores and their sums."""
    projections = 2 * tokens * (4 * tower.width**2 + 2 * tower.width * tower.mlp_width)
    attention = 4 * tokens**2 * tower.width
    return float(tower.layers * (projections + attention))


def image_flops(tower: Tower, patch: int, embed_dim: int, image_tokens: int) -> float:
    """FLOPs of one image, forward, two per multiply-add, with CLS beside the image tokens.

    Only kept patches are embedded, so masks and smaller images of one count cost the same. Counts
    matrix products as torch's FlopCounterMode does: no norms, activations or softmax.
    """
    embedding = 2 * image_tokens * 3 * patch**2 * tower.width
    return embedding + block_flops(tower, image_tokens + 1) + 2 * tower.width * embed_dim


def text_flops(tower: Tower, embed_dim: int, text_tokens: int) -> float:
    """FLOPs of one text, forward, two per multiply-add; causal attention counted in full."""
    return block_flops(tower, text_tokens) + 2 * tower.width * embed_dim


def block_params(tower: Tower, layer_scale: bool = False) -> int:
    """Parameters of all layers: two norms, attention and MLP with biases, optional layer scale."""
    attention = 4 * tower.width**2 + 4 * tower.width
    mlp = 2 * tower.width * tower.mlp_width + tower.mlp_width + tower.width
    norms = 4 * tower.width
    return tower.layers * (attention + mlp + norms + (2 * tower.width if layer_scale else 0))


def image_params(
    tower: Tower,
    patch: int,
    embed_dim: int,
    position_tokens: int,
    ln_pre: bool = True,
    layer_scale: bool = False,
) -> int:
    """Parameters of open_clip's image tower; the defaults are those of a stock CLIP.

    position_tokens: patches in the position table, the full grid for masks; CLS is added here.
    """
    embedding = 3 * patch**2 * tower.width + tower.width  # no bias; and the CLS token
    position = (position_tokens + 1) * tower.width
    norms = (4 if ln_pre else 2) * tower.width
    head = tower.width * embed_dim
    return embedding + position + norms + block_params(tower, layer_scale) + head


def text_params(tower: Tower, embed_dim: int, text_tokens: int, vocab_size: int) -> int:
    """Parameters of open_clip's text tower with text_tokens positions."""
    tables = (vocab_size + text_tokens) * tower.width
    return tables + block_params(tower) + 2 * tower.width + tower.width * embed_dim


class Counts(NamedTuple):
    """The part of a cost that depends on model and token counts alone."""

    image_params: int
    text_params: int
    total_params: int
    nonembedding_params: int
    flops_per_sample: float


@lru_cache(maxsize=4096)
def count_model(
    model: Model,
    image_tokens: int,
    position_tokens: int,
    text_tokens: int,
    vocab_size: int,
    ln_pre: bool = True,
) -> Counts:
    """Parameters and forward FLOPs of a model at its token counts; ValueError if one cannot be."""
    if min(image_tokens, text_tokens, vocab_size) < 1:
        given = f"{image_tokens=} {text_tokens=} {vocab_size=}"
        raise ValueError(f"price: {given} has a count below 1; allowed: at least 1 each")
    if image_tokens > position_tokens:
        raise ValueError(
            f"price: image_tokens={image_tokens} exceeds the position table; "
            f"allowed: at most position_tokens={position_tokens}"
        )
    size = model.size
    image = image_params(size.image, model.patch, size.embed_dim, position_tokens, ln_pre)
    text = text_params(size.text, size.embed_dim, text_tokens, vocab_size)
    tables = (position_tokens + 1) * size.image.width + (vocab_size + text_tokens) * size.text.width
    flops = image_flops(size.image, model.patch, size.embed_dim, image_tokens)
    flops += text_flops(size.text, size.embed_dim, text_tokens)
    total = image + text + 1  # the logit scale
    return Counts(image, text, total, total - tables, flops)


def activation_bytes(tower: Tower, tokens: int, precision: str, grad_checkpointing: bool) -> float:
    """Bytes one input leaves for the backward pass, after arXiv:2205.05198, Eq. 1.

    A layer keeps 34 bytes a token and width in bf16 at MLP ratio 4 (18 + 4 x ratio), without the
    attention matrix, which fused attention recomputes; fp32 keeps twice that. Checkpointing keeps
    the layers' inputs and one layer.
    """
    layer = (18 + 4 * tower.mlp_ratio) * tokens * tower.width
    inputs = tower.layers * 2 * tokens * tower.width
    kept = inputs + layer if grad_checkpointing else tower.layers * layer
    return kept * (2 if precision == "fp32" else 1)


def estimate_memory(
    model: Model,
    counts: Counts,
    tokens: tuple[int, int],
    micro_batch: int,
    batch_size: int,
    precision: str,
    grad_checkpointing: bool,
) -> float:
    """Bytes on one device at so many (image, text) tokens; an estimate: state, activations, loss.

    State: 16 a parameter (fp32 weight, gradient, two moments), and 2 more for autocast's bf16 copy
    of those outside the tables. Loss: logits and log-softmax of micro_batch x batch_size in fp32,
    both directions. Left out: pixels, patch embedding, gathered features, communication buffers,
    workspaces, fragmentation, the driver's context.
    """
    state = 16 * counts.total_params
    if precision == "bf16":
        state += 2 * counts.nonembedding_params
    image_tokens, text_tokens = tokens
    pair = activation_bytes(model.size.image, image_tokens + 1, precision, grad_checkpointing)
    pair += activation_bytes(model.size.text, text_tokens, precision, grad_checkpointing)
    return state + micro_batch * pair + 16.0 * micro_batch * batch_size


def find_speed(name: str, precision: str, utilisation: float | None) -> tuple[float, float]:
    """FLOP/s a device sustains at a precision, and the share of its peak that this takes."""
    if precision not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise ValueError(f"price: precision={precision!r} is unknown; allowed: {allowed}")
    if name not in DEVICES:
        raise ValueError(f"price: device={name!r} is unknown; allowed: {', '.join(DEVICES)}")
    device = DEVICES[name]
    peak = device.fp32_flops if precision == "fp32" else device.peak_flops
    if math.isnan(peak):
        raise ValueError(f"price: device={name!r} has no {precision}; allowed: precision='fp32'")
    share = device.utilisation if utilisation is None else utilisation
    if not 0 < share <= 1:
        raise ValueError(f"price: utilisation={share} is no share; allowed: above 0, at most 1")
    return peak * share, share


def check_amounts(samples: int, micro_batch: int, gpus: int) -> None:
    """Raise ValueError for amounts that cannot be; no samples at all is legal."""
    if min(micro_batch, gpus) < 1 or samples < 0:
        given = f"{micro_batch=} {gpus=} {samples=}"
        raise ValueError(f"price: {given} is below its least; allowed: at least 1, 1 and 0")


def price(
    model: Model,
    *,
    image_tokens: int,
    position_tokens: int,
    text_tokens: int,
    vocab_size: int,
    samples: int,
    micro_batch: int,
    precision: str,
    grad_checkpointing: bool,
    device: str,
    gpus: int,
    utilisation: float | None = None,
    dollars_per_gpu_hour: float | None = None,
    batch_size: int | None = None,
    ln_pre: bool = True,
) -> Cost:
    """What a training run takes; ValueError for an unknown device and counts that cannot be.

    image_tokens, position_tokens: patches seen and in the position table, CLS not counted.
    micro_batch: pairs one device holds at once. batch_size: pairs in one loss, for its memory;
    default micro_batch x gpus. utilisation: default the device's, an assumption.
    """
    counts = count_model(model, image_tokens, position_tokens, text_tokens, vocab_size, ln_pre)
    speed, share = find_speed(device, precision, utilisation)
    check_amounts(samples, micro_batch, gpus)
    tokens = (image_tokens, text_tokens)
    pairs = micro_batch * gpus if batch_size is None else batch_size
    forward = samples * counts.flops_per_sample
    recompute = forward if grad_checkpointing else 0.0
    hours = (3 * forward + recompute) / speed / 3600
    return Cost(
        **counts._asdict(),
        train_flops=3 * forward,
        recompute_flops=recompute,
        memory_bytes=estimate_memory(
            model, counts, tokens, micro_batch, pairs, precision, grad_checkpointing
        ),
        checkpoint_bytes=12 * counts.total_params,
        gpu_hours=hours,
        dollars=math.nan if dollars_per_gpu_hour is None else hours * dollars_per_gpu_hour,
        utilisation=share,
        utilisation_assumed=utilisation is None,
    )
