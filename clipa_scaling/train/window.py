"""What is summed between two logged rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from clipa_scaling.train.data import Batch
from clipa_scaling.train.ending import Diverged
from clipa_scaling.train.world import World


@dataclass
class Window:
    """Sums since the last logged row; part of a checkpoint, so that a resume logs the same.

    Of the global batch: the ranks' slices are equally large, so means of their means.
    """

    loss: torch.Tensor | float = 0.0
    steps: int = 0
    text_real: torch.Tensor | float = 0.0
    text_truncated: torch.Tensor | float = 0.0
    upsampled: torch.Tensor | float = 0.0

    def add(self, loss: torch.Tensor, batch: Batch, world: World) -> None:
        """One step, averaged over the ranks at once: sums of another order give other bits."""
        counts = torch.tensor(
            [batch.text_real, batch.text_truncated, batch.upsampled], dtype=torch.float64
        )
        step = torch.cat([loss.detach().double()[None], world.send(counts)])
        world.average(step)
        self.steps += 1
        self.loss += step[0]
        self.text_real += step[1]
        self.text_truncated += step[2]
        self.upsampled += step[3]

    def means(self) -> dict[str, float]:
        """The columns of the metrics table; it waits for the device."""
        return {
            "loss": float(self.loss) / self.steps,
            "text_tokens_real": float(self.text_real) / self.steps,
            "text_truncated": float(self.text_truncated) / self.steps,
            "upsampled_crops": float(self.upsampled) / self.steps,
        }

    def check_finite(self, samples: int, grad_norm: float = 0.0) -> None:
        """Raise Diverged where the loss, or a gradient norm, is no number."""
        loss = float(self.loss) / max(1, self.steps)
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise Diverged(
                f"loss={loss}, gradient norm={grad_norm} within the {self.steps} steps before "
                f"sample {samples}; lower lr, or lengthen warmup_samples"
            )
