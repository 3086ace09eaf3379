"""AdamW, its schedule in samples, and the temperature's clamp."""

from __future__ import annotations

import math

import torch

LARGEST_SCALE = math.log(100.0)  # CLIP clips the logit scale at 100 (arXiv:2103.00020, section 2.5)


def make_optimizer(
    model: torch.nn.Module, weight_decay: float, beta1: float, beta2: float, epsilon: float
) -> torch.optim.AdamW:
    """Fused AdamW; gains, biases and the temperature are not decayed."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for _, p in named if p.ndim < 2]
    decayed = [p for _, p in named if p.ndim >= 2]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), eps=epsilon, fused=True)


def cosine_lr(peak: float, seen: int, batch_size: int, warmup: int, total: int) -> float:
    """The rate of the step after `seen` samples: linear warm-up, then cosine to zero."""
    if seen < warmup:
        return peak * min(1.0, (seen + batch_size) / warmup)
    done = (seen - warmup) / max(1, total - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clamp_temperature(logit_scale: torch.nn.Parameter) -> None:
    """Keep the logit scale within [1, 100]."""
    with torch.no_grad():
        logit_scale.clamp_(0.0, LARGEST_SCALE)
