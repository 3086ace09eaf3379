"""Zero-shot, retrieval and held-out contrastive loss, with per-example correctness."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from clipa_scaling.spec import EvalSet
from clipa_scaling.train.data import normalise, resize_all
from clipa_scaling.train.keyed import make_key, permute
from clipa_scaling.train.loss import contrastive_loss
from clipa_scaling.train.model import token_counter
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.tokenize import (
    PACKED_LENGTH,
    cut_ids,
    encode_texts,
    text_lengths,
)

RANKS = (1, 5, 10)
ORDER_KEY = make_key(0, "held-out batches")  # the same batches for every run and seed


class StopRequested(Exception):
    """The run was asked to stop in the middle of an evaluation."""


@dataclass(frozen=True)
class Setting:
    """How a model is evaluated: sizes, batch and a check whether to stop, made between batches."""

    image_size: int
    text_tokens: int
    batch: int
    protocols: tuple[str, ...]
    device: torch.device
    autocast: bool
    should_stop: Callable[[], bool]


class Evaluator:
    """All evaluation sets of a run, opened once."""

    def __init__(self, sets: tuple[EvalSet, ...], setting: Setting):
        self.setting = setting
        self.sets = [(item, Pack.open(Path(item.pack))) for item in sets]

    def evaluate(self, model: open_clip.CLIP, samples: int) -> list[dict[str, Any]]:
        """Rows of the evals table for a model that has seen `samples`; no masks, text truncated."""
        training = model.training
        model.eval()
        rows: list[dict[str, Any]] = []
        try:
            with torch.no_grad():
                for item, pack in self.sets:
                    base = {"samples": samples, "set": item.name, "fingerprint": item.fingerprint}
                    measure = classify if item.task == "classify" else retrieve
                    rows += [{**base, **row} for row in measure(model, item, pack, self.setting)]
        finally:
            model.train(training)
        return rows


def encode_images(model: open_clip.CLIP, pack: Pack, setting: Setting) -> tuple[torch.Tensor, int]:
    """(n, E) unit features of every picture, and the token count read off the tensor."""
    features = []
    with token_counter(model.visual.transformer) as lengths:
        for start in range(0, pack.count, setting.batch):
            if setting.should_stop():
                raise StopRequested
            pictures = resize_all(
                pack.pictures(start, min(start + setting.batch, pack.count)), setting.image_size
            )
            image = normalise(pictures).to(setting.device)
            with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.autocast):
                features.append(model.encode_image(image, normalize=True).float())
    return torch.cat(features), lengths[-1] - 1


def encode_ids(model: open_clip.CLIP, ids: np.ndarray, setting: Setting) -> torch.Tensor:
    """(M, E) unit features of packed ids, truncated to the model's text length."""
    text = torch.from_numpy(cut_ids(ids, setting.text_tokens))
    features = []
    for part in text.split(setting.batch):
        if setting.should_stop():
            raise StopRequested
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.autocast):
            features.append(model.encode_text(part.to(setting.device), normalize=True).float())
    return torch.cat(features)


def templates(protocol: str, item: EvalSet) -> list[Callable[[str], str]]:
    """`common`: the sweep file's prompts; `paper`: CLIP's 80 (arXiv:2103.00020)."""
    if protocol == "paper":
        return list(open_clip.OPENAI_IMAGENET_TEMPLATES)
    return [prompt.format for prompt in item.prompts]


def classify(
    model: open_clip.CLIP, item: EvalSet, pack: Pack, setting: Setting
) -> Iterator[dict[str, Any]]:
    """Top-1 and top-5 accuracy; a class is the mean of its prompts' unit features, renormalised."""
    image_NE, image_tokens = encode_images(model, pack, setting)
    labels_N = torch.from_numpy(pack.labels.astype(np.int64)).to(setting.device)
    for protocol in setting.protocols:
        prompts = templates(protocol, item)
        ids = encode_texts([fill(name) for name in pack.class_names for fill in prompts])
        text = encode_ids(model, ids, setting).view(len(pack.class_names), len(prompts), -1)
        class_CE = torch.nn.functional.normalize(text.mean(dim=1), dim=-1)
        score_NC = image_NE @ class_CE.T
        own_N1 = score_NC.gather(1, labels_N[:, None])
        # Ties count against the model, so a collapsed one scores zero rather than all.
        rank_N = (score_NC >= own_N1).sum(dim=1) - 1
        base = {
            "protocol": protocol,
            "n": pack.count,
            "eval_image_tokens": image_tokens,
            "truncated": float((text_lengths(ids) > setting.text_tokens).mean()),
        }
        yield {**base, "name": "accuracy", **right(rank_N < 1)}
        yield {**base, "name": "accuracy_top5", **right(rank_N < 5)}


def right(correct_N: torch.Tensor) -> dict[str, Any]:
    """The share that is right, and the bits behind it."""
    bits = correct_N.cpu().numpy()
    packed = base64.b64encode(np.packbits(bits).tobytes()).decode()
    return {"value": float(bits.mean()), "correct": packed}


def unpack_bits(text: str, count: int) -> np.ndarray:
    """(count,) bool: the per-example correctness of a row."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def retrieve(
    model: open_clip.CLIP, item: EvalSet, pack: Pack, setting: Setting
) -> Iterator[dict[str, Any]]:
    """R@1, 5, 10 in both directions, equal captions all counting as right; held-out loss."""
    image_NE, image_tokens = encode_images(model, pack, setting)
    ids = pack.texts(PACKED_LENGTH)
    text_ME = encode_ids(model, ids, setting)
    groups, group_M = np.unique(ids, axis=0, return_inverse=True)
    group_M = group_M.reshape(-1)
    owns_NG = torch.zeros(pack.count, len(groups), dtype=torch.bool, device=setting.device)
    owns_NG[torch.from_numpy(pack.owner.astype(np.int64)), torch.from_numpy(group_M)] = True
    groups_M = torch.from_numpy(group_M).to(setting.device)
    base = {
        "protocol": "common",
        "eval_image_tokens": image_tokens,
        "truncated": float((text_lengths(ids) > setting.text_tokens).mean()),
    }
    to_text = first_right(image_NE, text_ME, lambda rows: owns_NG[rows][:, groups_M], setting)
    to_image = first_right(text_ME, image_NE, lambda rows: owns_NG[:, groups_M[rows]].T, setting)
    for direction, rank in (("image_to_text", to_text), ("text_to_image", to_image)):
        for k in RANKS:
            row = {**base, "name": f"{direction}_r{k}", "n": len(rank)}
            yield {**row, **right(rank < k)}
    loss, count = held_out_loss(model, image_NE, text_ME, pack.owner, setting)
    yield {**base, "name": "loss", "value": loss, "n": count, "correct": ""}


def first_right(
    query_QE: torch.Tensor,
    other_RE: torch.Tensor,
    relevant: Callable[[slice], torch.Tensor],
    setting: Setting,
) -> torch.Tensor:
    """(Q,) how many wrong answers score at least as high as each query's best right one."""
    ranks = []
    for start in range(0, len(query_QE), setting.batch):
        rows = slice(start, start + setting.batch)
        score_qR, right_qR = query_QE[rows] @ other_RE.T, relevant(rows)
        best_q1 = score_qR.masked_fill(~right_qR, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append(((score_qR >= best_q1) & ~right_qR).sum(dim=1))
    return torch.cat(ranks)


def held_out_loss(
    model: open_clip.CLIP,
    image_NE: torch.Tensor,
    text_ME: torch.Tensor,
    owner: np.ndarray,
    setting: Setting,
) -> tuple[float, int]:
    """Mean contrastive loss over batches of one fixed size, comparable across cells, and n."""
    first_N = np.unique(owner, return_index=True)[1]
    batch = min(setting.batch, len(image_NE))
    order = permute(np.arange(len(image_NE)), len(image_NE), ORDER_KEY)
    scale = model.logit_scale.exp()
    losses = []
    for start in range(0, len(order) - batch + 1, batch):
        rows = order[start : start + batch]
        text_BE = text_ME[torch.from_numpy(first_N[rows])]
        losses.append(contrastive_loss(image_NE[torch.from_numpy(rows)], text_BE, scale))
    return float(torch.stack(losses).mean()), len(losses) * batch
