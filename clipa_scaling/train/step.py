"""One optimizer step: batch, features, loss, gradient, update, for every objective."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch

from clipa_scaling.counts import count_model
from clipa_scaling.memory import fit_micro_batch
from clipa_scaling.models import load_model
from clipa_scaling.spec import RunSpec
from clipa_scaling.train import optim
from clipa_scaling.train.augment import Augment
from clipa_scaling.train.data import Batch, Batches
from clipa_scaling.train.gradients import Gradients
from clipa_scaling.train.labelled import LabelledBatches
from clipa_scaling.train.loss import (
    chance_loss,
    local_classify,
    local_contrastive,
    local_siglip,
)
from clipa_scaling.train.model import encode_image, encode_text, layers_of, make_unit
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.pictures import show
from clipa_scaling.train.slices import Encoded, SlicedFeatures
from clipa_scaling.train.tokens import keep_patches
from clipa_scaling.train.world import World

NO_LIMIT = sys.maxsize


class Taken(NamedTuple):
    """What a step leaves to be logged; the loss is this rank's, still on the device."""

    batch: Batch
    loss: torch.Tensor
    lr: float
    image_tokens: int
    text_tokens: int


class Step:
    """What turns a model's weights into the next ones; its only state is the optimizer's.

    All that is random is keyed by `seed`. No value is read back from the device. pack: the training
    data, by default the spec's.
    """

    def __init__(
        self,
        spec: RunSpec,
        model: open_clip.CLIP,
        world: World,
        seed: int,
        pack: Pack | None = None,
    ):
        self.spec, self.model, self.world, self.seed = spec, model, world, seed
        self.device = world.device
        self.optimizer = optim.make_optimizer(
            model, spec.weight_decay, spec.beta1, spec.beta2, spec.epsilon, spec.weight_decay_on
        )
        self.gradients = Gradients(model, world)
        self.batches = open_batches(spec, world, seed, pack)
        self.augment = Augment(
            seed, spec.color_jitter, spec.color_jitter_share, spec.grayscale_share
        )
        self.micro_batch = spec.micro_batch or choose_micro_batch(spec, world)
        classes = len(self.batches.pack.class_names)
        self.chance = chance_loss(spec.objective, spec.batch_size, classes)
        if spec.compile:
            compile_training(model)

    def take(self, position: int) -> Taken:
        """One step on the global batch that starts after `position` samples."""
        spec = self.spec
        batch = self.batches.at(position)
        lr = optim.learning_rate(
            spec.schedule,
            spec.lr,
            position,
            spec.batch_size,
            spec.warmup_samples,
            spec.samples,
            spec.decay_samples,
            spec.decay_shape,
        )
        optim.set_lr(self.optimizer, lr)
        loss, image_tokens, text_tokens = self.differentiate(batch)
        self.gradients.average()
        self.gradients.clip(spec.grad_clip)
        self.optimizer.step()
        optim.clamp_temperature(self.model.logit_scale, spec.logit_scale_max)
        return Taken(batch, loss, lr, image_tokens, text_tokens)

    def differentiate(self, batch: Batch) -> tuple[torch.Tensor, int, int]:
        """This rank's loss, its gradient left with the weights, and both towers' token counts."""
        image = SlicedFeatures(
            lambda rows: self.encode_image(batch, rows), len(batch.sample_B), self.micro_batch
        )
        text = SlicedFeatures(
            lambda rows: self.encode_text(batch, rows), len(batch.text_BT), self.micro_batch
        )
        loss = self.compare(image.features_BE, text.features_BE, batch)
        self.gradients.clear()
        loss.backward()
        image.backward()
        text.backward()
        return loss, image.tokens, text.tokens

    def compare(self, image_bE: torch.Tensor, text_cE: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The objective's local loss."""
        scale = self.model.logit_scale.exp()
        if self.spec.objective == "siglip":
            return local_siglip(image_bE, text_cE, scale, self.model.logit_bias, self.world)
        if self.spec.objective == "classify":
            assert batch.label_B is not None, "batches are labelled"
            label_b, classes = self.world.send(batch.label_B), len(self.batches.pack.class_names)
            return local_classify(image_bE, text_cE, scale, label_b, classes, self.world)
        return local_contrastive(image_bE, text_cE, scale, self.world)

    # Autocast anew for each slice: what it remembers of weights it cast without a graph would
    # otherwise serve the slices that need one.

    def encode_image(self, batch: Batch, rows: slice) -> Encoded:
        """Features of some of the batch's pictures, patches reduced before they are embedded."""
        spec = self.spec
        sample_B = self.world.send(batch.sample_B[rows])
        box_B4 = None if batch.box_B4 is None else self.world.send(batch.box_B4[rows])
        picture_BHWC = self.world.send(batch.picture_BHWC[rows])
        image_BCHW = show(picture_BHWC, box_B4, sample_B, spec.image_size, self.augment)
        kept_BK = None
        if spec.image_reduction != "resize":
            side = spec.image_size // load_model(spec.model).patch
            kept_BK = keep_patches(
                spec.image_reduction, self.seed, sample_B, side, spec.image_tokens
            )
        with self.autocast():
            image_BE, tokens = encode_image(self.model, image_BCHW, kept_BK)
            return Encoded(make_unit(image_BE), tokens)

    def encode_text(self, batch: Batch, rows: slice) -> Encoded:
        """Features of some of the batch's texts."""
        text_BT = self.world.send(batch.text_BT[rows])
        with self.autocast():
            text_BE, tokens = encode_text(self.model, text_BT)
            return Encoded(make_unit(text_BE), tokens)

    def autocast(self) -> torch.autocast:
        enabled = self.spec.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def open_batches(
    spec: RunSpec, world: World, seed: int, pack: Pack | None = None
) -> Batches | LabelledBatches:
    """The run's stream of batches, pairs or labelled pictures."""
    pack = pack or Pack.open(Path(spec.pack), spec.data_fingerprint)
    shared: dict[str, Any] = {
        "batch_size": spec.batch_size,
        "image_size": spec.image_size,
        "text_tokens": spec.text_tokens,
        "crop_min_area": spec.crop_min_area,
        "seed": seed,
        "window": spec.shuffle_shards,
        "rank": world.rank,
        "size": world.size,
        "on_device": world.device.type == "cuda",
    }
    if spec.objective == "classify":
        if spec.classes != len(pack.class_names):
            print(
                f"{spec.pack}: has {len(pack.class_names)} classes; priced for {spec.classes}",
                flush=True,
            )
        return LabelledBatches(pack, spec.class_prompts, **shared)
    return Batches(
        pack, text_reduction=spec.text_reduction, word_classes=spec.word_classes, **shared
    )


def choose_micro_batch(spec: RunSpec, world: World) -> int:
    """Inputs of a tower at once: on a GPU what its memory should hold, else all."""
    if world.device.type != "cuda":
        return NO_LIMIT
    model = load_model(spec.model)
    tokens = spec.image_tokens, spec.text_tokens
    return fit_micro_batch(
        model,
        count_model(
            model,
            tokens[0],
            spec.position_tokens,
            tokens[1],
            spec.vocab_size,
            spec.ln_pre,
            spec.image_position == "learned",
            spec.objective == "siglip",
        ),
        tokens,
        spec.batch_size // world.size,
        spec.batch_size,
        spec.precision,
        spec.grad_checkpointing,
        torch.cuda.get_device_properties(world.device).total_memory,
    )


def compile_training(model: open_clip.CLIP) -> None:
    """Compile both towers' layers in place, for training alone; weights keep their names.

    Their `forward`, not the modules: hooks stay outside, and evaluation, whose batches differ in
    size, stays eager instead of compiling for each of them.
    """
    for layers in layers_of(model):
        layers.forward = choose_forward(layers)


def choose_forward(module: torch.nn.Module) -> Callable[..., torch.Tensor]:
    eager = module.forward
    compiled = torch.compile(eager, dynamic=False)

    def forward(*inputs: Any, **options: Any) -> torch.Tensor:
        run = compiled if module.training else eager
        result: torch.Tensor = run(*inputs, **options)
        return result

    return forward
