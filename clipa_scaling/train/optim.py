"""AdamW, the learning rate as a function of samples, and the temperature's clamp."""

from __future__ import annotations

import math

import torch

# Weights that a module holds itself, not in a layer of its own.
BARE_KERNELS = ("in_proj_weight", "proj", "text_projection")


def make_optimizer(
    model: torch.nn.Module,
    weight_decay: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay_on: str = "matrices",
) -> torch.optim.AdamW:
    """Fused AdamW of the weights that are trained.

    Decayed are `matrices`: all of two axes or more, tables too; or `kernels`: the weights of
    linear layers, convolutions and attention alone, what the papers' code names `kernel`. Gains,
    biases and the temperature never are.
    """
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if weight_decay_on == "kernels":
        names = name_kernels(model)
    else:
        names = {n for n, p in named if p.ndim >= 2}
    groups = [
        {"params": [p for n, p in named if n in names], "weight_decay": weight_decay},
        {"params": [p for n, p in named if n not in names], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2), eps=epsilon, fused=True)


def name_kernels(model: torch.nn.Module) -> set[str]:
    """Weights that multiply activations: no table, class token, gain or bias."""
    layers = (torch.nn.Linear, torch.nn.Conv2d)
    names = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, layers)}
    bare = {n for n, _ in model.named_parameters() if n.rsplit(".", 1)[-1] in BARE_KERNELS}
    return names | bare


def learning_rate(
    schedule: str,
    peak: float,
    seen: int,
    batch_size: int,
    warmup: int,
    total: int,
    decay_samples: int = 0,
    decay_shape: str = "sqrt",
) -> float:
    """The rate of the step after `seen` of `total` samples; after a linear warm-up by `schedule`.

    cosine: half a wave to zero. constant: the peak. wsd: the peak, then over the last decay_samples
    (0: a fifth of the total) to zero, by 1 - share or 1 - sqrt(share) of the decay that is done
    (arXiv:2405.18392, section 3). A run that branches off into a decay has the rates of the wsd run
    of its own total. All rates are those at a step's beginning, so zero itself is never used.
    """
    if seen < warmup:
        return peak * min(1.0, (seen + batch_size) / warmup)
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        done = (seen - warmup) / max(1, total - warmup)
        return peak * 0.5 * (1.0 + math.cos(math.pi * done))
    assert schedule == "wsd" and decay_shape in ("linear", "sqrt"), "the spec's rule"
    decay = decay_samples or total // 5
    share = max(0.0, (seen - (total - decay)) / max(1, decay))
    return peak * (1.0 - (math.sqrt(share) if decay_shape == "sqrt" else share))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clamp_temperature(logit_scale: torch.nn.Parameter, largest: float = 100.0) -> None:
    """Keep the logit scale, stored as its logarithm, within [1, largest]; 0 leaves it alone.

    CLIP clips at 100 (arXiv:2103.00020, section 2.5).
    """
    if largest:
        with torch.no_grad():
            logit_scale.clamp_(0.0, math.log(largest))
