"""Gradients of the global batch from those of its slices."""

from __future__ import annotations

import torch

from clipa_scaling.train.world import World

ALIGNED = 4  # float32 values in 16 bytes, which the fused optimizer reads at once


class Gradients:
    """A model's gradients; with several ranks they are views of one buffer, reduced as a whole.

    One reduction of one fixed layout adds in one order, so a resumed run gets the same bits; the
    buckets of DistributedDataParallel are laid out anew after the first step. It costs the overlap
    with the backward pass.
    """

    def __init__(self, model: torch.nn.Module, world: World):
        self.world = world
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.norm_before: torch.Tensor | None = None
        self.buffer: torch.Tensor | None = None
        if world.size > 1:
            self.buffer = self.lay_out()

    def lay_out(self) -> torch.Tensor:
        """One buffer, each parameter's gradient a view into it."""
        starts = [0]
        for parameter in self.parameters:
            starts.append(starts[-1] + -(-parameter.numel() // ALIGNED) * ALIGNED)
        buffer = torch.zeros(starts[-1], device=self.parameters[0].device)
        for parameter, start in zip(self.parameters, starts, strict=False):
            parameter.grad = buffer[start : start + parameter.numel()].view_as(parameter)
        return buffer

    def clear(self) -> None:
        if self.buffer is not None:
            self.buffer.zero_()
        else:
            for parameter in self.parameters:
                parameter.grad = None

    def average(self) -> None:
        """The mean over the ranks: with local losses whose mean is the loss, its gradient."""
        if self.buffer is not None:
            self.world.average(self.buffer)

    def clip(self, largest: float) -> None:
        """Shrink the full gradient to a norm of at most `largest`, on the device; 0 leaves it."""
        if largest:
            self.norm_before = torch.nn.utils.clip_grad_norm_(self.parameters, largest)

    def norm(self) -> float:
        """Of the full gradient, before any clipping; it waits for the device."""
        if self.norm_before is not None:
            return float(self.norm_before)
        squares = [p.grad.square().sum() for p in self.parameters if p.grad is not None]
        return float(torch.stack(squares).sum().sqrt())
