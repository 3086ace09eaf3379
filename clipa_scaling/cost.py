"""A run's parameters, FLOPs, memory, GPU-hours and dollars, in closed form; no model is built."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from clipa_scaling.counts import count_model, text_flops
from clipa_scaling.memory import estimate_memory, fit_micro_batch
from clipa_scaling.models import Model

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
    is what gradient checkpointing and micro-batches add (a forward each), else 0. gpu_hours sums
    over devices (core-hours on cpu-core: an hour of one thread) and dollars is NaN without a price;
    utilisation is the share of the peak they rest on, or amount to where priced_by is `measured`.
    priced_by: that, `given utilisation`, or `assumed utilisation`, the device's default. doubt:
    what a measured rate lacks, or empty. threads: of a process; gpu_hours counts each on CPUs.
    memory_bytes is an estimate for one device (see estimate_memory), checkpoint_bytes the weights
    and both moments.
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
    priced_by: str
    doubt: str = ""
    threads: int = 1

    @property
    def utilisation_assumed(self) -> bool:
        return self.priced_by == "assumed utilisation"


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
    if gpus < 1 or min(micro_batch, samples) < 0:
        given = f"{micro_batch=} {gpus=} {samples=}"
        raise ValueError(f"price: {given} is below its least; allowed: at least 0, 1 and 0")


def repeated_flops(
    whole: float, texts: float, micro_batch: int, own: int, texts_per_sample: float
) -> float:
    """FLOPs a sample of the second forward of each tower whose inputs come in slices."""
    images = whole - texts if micro_batch < own else 0.0
    return images + (texts if micro_batch < texts_per_sample * own else 0.0)


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
    learned_position: bool = True,
    logit_bias: bool = False,
    texts_per_sample: float = 1.0,
) -> Cost:
    """What a training run takes; ValueError for an unknown device and counts that cannot be.

    image_tokens, position_tokens: patches seen and in the position table, CLS not counted.
    micro_batch: pairs a device holds at once; 0: what should fit it, on CPUs all. batch_size: pairs
    in one loss; default micro_batch x gpus. utilisation: default the device's. texts_per_sample:
    1, but for pictures that meet class prompts, and NaN where unknown.
    """
    lengths = (image_tokens, position_tokens, text_tokens, vocab_size)
    counts = count_model(model, *lengths, ln_pre, learned_position, logit_bias, texts_per_sample)
    speed, share = find_speed(device, precision, utilisation)
    check_amounts(samples, micro_batch, gpus)
    tokens = (image_tokens, text_tokens)
    pairs = micro_batch * gpus if batch_size is None else batch_size
    own = -(-pairs // gpus)
    if micro_batch == 0 and device.startswith("cpu"):
        micro_batch = own
    elif micro_batch == 0:
        memory = float(DEVICES[device].memory_bytes)
        micro_batch = fit_micro_batch(
            model, counts, tokens, own, pairs, precision, grad_checkpointing, memory
        )
    forward = samples * counts.flops_per_sample
    texts = texts_per_sample * text_flops(model.size.text, model.size.embed_dim, text_tokens)
    twice = repeated_flops(counts.flops_per_sample, texts, micro_batch, own, texts_per_sample)
    recompute = grad_checkpointing * forward + samples * twice
    hours = (3 * forward + recompute) / speed / 3600
    return Cost(
        **counts._asdict(),
        train_flops=3 * forward,
        recompute_flops=recompute,
        memory_bytes=estimate_memory(
            model, counts, tokens, micro_batch, pairs, precision, grad_checkpointing, own
        ),
        checkpoint_bytes=12 * counts.total_params,
        gpu_hours=hours,
        dollars=math.nan if dollars_per_gpu_hour is None else hours * dollars_per_gpu_hour,
        utilisation=share,
        priced_by="assumed utilisation" if utilisation is None else "given utilisation",
    )


def at_measured_rate(
    cost: Cost,
    gpu_hours: float,
    dollars_per_gpu_hour: float | None,
    threads: int = 1,
    doubt: str = "",
) -> Cost:
    """The cost where the device hours were measured, whatever utilisation was taken before."""
    price = math.nan if dollars_per_gpu_hour is None else dollars_per_gpu_hour
    return replace(
        cost,
        gpu_hours=gpu_hours,
        dollars=gpu_hours * price,
        utilisation=cost.utilisation * cost.gpu_hours / gpu_hours,
        priced_by="measured",
        doubt=doubt,
        threads=threads,
    )
