"""Single steps of a tiny model, alone or as one of several ranks: losses and gradients.

As a program: `step_values.py RANK SIZE FOLDER`, the ranks of a folder's specs, which write there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import open_clip
import torch
import torch.distributed as dist
from make_data import pack_here
from single_run import MASKED, PX, TINY

from clipa_scaling.models import load_model
from clipa_scaling.resolve import resolve
from clipa_scaling.source import Source
from clipa_scaling.spec import RunSpec, spec_from_json, spec_to_json
from clipa_scaling.train.model import build_of, make_model
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.step import Step
from clipa_scaling.train.world import World

OBJECTIVES = ("contrastive", "siglip", "classify")
PROMPTS = ("a photo of a {}", "{}", "one {} in a picture")
COLOURS = {"color_jitter": 0.4, "grayscale_share": 0.3}
ALONE = World(torch.device("cpu"))


class Values(NamedTuple):
    """What steps computed: losses of all, and of the first the gradient by name, clipped if so."""

    losses: list[float]
    gradient: dict[str, torch.Tensor]
    image_tokens: int


def make_pack(folder: Path, needs: str, pairs: int = 150) -> Pack:
    """Scenes, with captions or with labels."""
    return pack_here(folder, Source("scenes", "scenes", pairs=pairs), PX, needs)


def make_spec(pack: Pack, objective: str, **changes: Any) -> RunSpec:
    """A tiny run with masks, crops and changed colours."""
    data = {"data_fingerprint": pack.fingerprint, "pack": str(pack.folder)}
    prompts = {"class_prompts": PROMPTS} if objective == "classify" else {}
    # A temperature and bias under which all parts of the loss matter.
    first = {"logit_scale_init": 1 / 0.07, "logit_bias_init": -3.0 if objective == "siglip" else 0}
    kind = {"objective": objective, **data, **prompts, **first}
    return resolve({**TINY, **MASKED, **COLOURS, **kind, **changes})


def build(spec: RunSpec) -> open_clip.CLIP:
    """The spec's model."""
    size = load_model(spec.model)
    sizes = spec.image_size, spec.text_tokens, spec.vocab_size
    return make_model(size, *sizes, spec.seed, build_of(spec))


def take_steps(spec: RunSpec, world: World = ALONE, steps: int = 1) -> Values:
    """So many steps from the start."""
    model = build(spec)
    step = Step(spec, model, world, spec.seed)
    losses: list[float] = []
    gradient: dict[str, torch.Tensor] = {}
    for number in range(steps):
        taken = step.take(number * spec.batch_size)
        if not number:
            named = model.named_parameters()
            gradient = {name: p.grad.clone() for name, p in named if p.grad is not None}
        mean = taken.loss.detach().clone()
        world.average(mean)
        losses.append(float(mean))
    return Values(losses, gradient, taken.image_tokens)


def difference(one: Values, other: Values) -> float:
    """Of two gradients, the largest of any weight, over the whole gradient's norm."""
    assert one.gradient.keys() == other.gradient.keys()
    whole = torch.stack([g.norm() for g in other.gradient.values()]).norm()
    apart = [(one.gradient[name] - g).norm() / whole for name, g in other.gradient.items()]
    return float(torch.stack(apart).max())


def main(rank: int, size: int, folder: Path) -> None:
    """Every spec of the folder, in order of name."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size
    )
    world = World(torch.device("cpu"), rank, size)
    for path in sorted(folder.glob("*.json")):
        spec = spec_from_json(msgspec.json.decode(path.read_bytes()))
        values = take_steps(spec, world, steps=2)
        torch.save(values._asdict(), folder / f"{path.stem}.{rank}.pt")
    world.leave()


def write_spec(folder: Path, name: str, spec: RunSpec) -> None:
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(spec_to_json(spec)))


def read_values(folder: Path, name: str, rank: int) -> Values:
    return Values(**torch.load(folder / f"{name}.{rank}.pt"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
