"""What training takes of a device's memory, and the micro-batch that fits; estimates."""

from __future__ import annotations

from clipa_scaling.counts import Counts, stage_sides
from clipa_scaling.models import ConvNet, Model, Tower

FILLED = 0.8  # of a device's memory, assumed: what the estimate leaves out needs the rest


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


def conv_bytes(net: ConvNet, image_tokens: int, precision: str, grad_checkpointing: bool) -> float:
    """Bytes one image leaves for the backward pass in a ConvNeXt.

    A layer keeps the inputs of its two norms' sides, MLP and scale: 8 + 4 x ratio bytes a position
    and width in bf16, fp32 twice that; a reduction keeps what its norm and its convolution see.
    """
    areas = [side**2 for side in stage_sides(image_tokens)]
    stages = list(zip(areas, net.depths, net.widths, strict=True))
    each = 8 + 4 * net.mlp_ratio
    edges = sum(4 * area * width for area, width in zip(areas, net.widths, strict=True))
    if grad_checkpointing:
        inputs = sum(2 * area * depth * width for area, depth, width in stages)
        kept = edges + inputs + max(each * area * width for area, _, width in stages)
    else:
        kept = edges + sum(each * area * depth * width for area, depth, width in stages)
    return kept * (2 if precision == "fp32" else 1)


def image_bytes(
    image: Tower | ConvNet, image_tokens: int, precision: str, grad_checkpointing: bool
) -> float:
    """Bytes one image leaves for the backward pass, a ViT's CLS in."""
    if isinstance(image, ConvNet):
        return conv_bytes(image, image_tokens, precision, grad_checkpointing)
    return activation_bytes(image, image_tokens + 1, precision, grad_checkpointing)


def estimate_memory(
    model: Model,
    counts: Counts,
    tokens: tuple[int, int],
    micro_batch: int,
    batch_size: int,
    precision: str,
    grad_checkpointing: bool,
    loss_rows: int | None = None,
) -> float:
    """Bytes on one device at so many (image, text) tokens; an estimate: state, activations, loss.

    State: 16 a parameter (fp32 weight, gradient, two moments), and 2 more for autocast's bf16 copy
    of those outside the tables. Loss: logits and log-softmax of loss_rows x batch_size in fp32,
    both directions; the rows are a device's share of the batch, or micro_batch where that is all of
    it (None). Left out: pixels, patch embedding, gathered features, communication buffers,
    workspaces, fragmentation, the driver's context.
    """
    state = 16 * counts.total_params
    if precision == "bf16":
        state += 2 * counts.nonembedding_params
    image_tokens, text_tokens = tokens
    pair = image_bytes(model.size.image, image_tokens, precision, grad_checkpointing)
    pair += activation_bytes(model.size.text, text_tokens, precision, grad_checkpointing)
    rows = micro_batch if loss_rows is None else loss_rows
    return state + micro_batch * pair + 16.0 * rows * batch_size


def fit_micro_batch(
    model: Model,
    counts: Counts,
    tokens: tuple[int, int],
    share: int,
    batch_size: int,
    precision: str,
    grad_checkpointing: bool,
    memory_bytes: float,
) -> int:
    """The most pairs at once, a divisor of a device's share of the batch, that should fit.

    Fit: the estimate is at most FILLED of the device's memory. 1 where none does, which may still
    work, since what is filled leaves room; price the run to see its estimate.
    """
    for micro_batch in range(share, 1, -1):
        if share % micro_batch == 0:
            needed = estimate_memory(
                model,
                counts,
                tokens,
                micro_batch,
                batch_size,
                precision,
                grad_checkpointing,
                loss_rows=share,
            )
            if needed <= FILLED * memory_bytes:
                return micro_batch
    return 1
