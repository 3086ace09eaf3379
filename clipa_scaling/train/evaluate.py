"""Zero-shot, retrieval and held-out contrastive loss, with per-example correctness."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from clipa_scaling.source import DataError
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
LOSS_BATCH = 256  # pairs; the loss grows with it, so not eval_batch, in which cells may differ
ORDER_KEY = make_key(0, "held-out batches")  # the same batches for every run and seed
STEPS = 2.0**24  # of a cosine from 0 to 1, about float32's own


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

    def go_on(self) -> None:
        """Raises StopRequested."""
        if self.should_stop():
            raise StopRequested


class Evaluator:
    """All evaluation sets of a run, opened once; DataError where a pack is another than planned."""

    def __init__(self, sets: tuple[EvalSet, ...], setting: Setting):
        self.setting = setting
        self.sets = [(item, open_set(item)) for item in sets]

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


def open_set(item: EvalSet) -> Pack:
    pack = Pack.open(Path(item.pack))
    if pack.fingerprint != item.fingerprint:
        raise DataError(
            f"{item.pack}: fingerprint={pack.fingerprint} is not the planned {item.fingerprint} of "
            f"set {item.name}; launch again to plan with it as it is"
        )
    return pack


# Features


def encode_images(model: open_clip.CLIP, pack: Pack, setting: Setting) -> tuple[torch.Tensor, int]:
    """(N, E) unit features of every picture, and the token count read off the tensor."""
    features = []
    with token_counter(model.visual.transformer) as lengths:
        for start in range(0, pack.count, setting.batch):
            setting.go_on()
            stop = min(start + setting.batch, pack.count)
            pictures = resize_all(pack.pictures(start, stop), setting.image_size)
            image = normalise(pictures).to(setting.device)
            with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.autocast):
                image_BE = model.encode_image(image)
            features.append(make_unit(image_BE))
    assert len(set(lengths)) == 1, "every picture makes as many tokens"
    return torch.cat(features), lengths[0] - 1


def encode_ids(model: open_clip.CLIP, ids: np.ndarray, setting: Setting) -> torch.Tensor:
    """(M, E) unit features of packed ids, cut to the model's text length.

    Texts that the cut makes equal are encoded once: batches of other sizes may give other last
    bits, and chance would then decide between texts that the model cannot tell apart.
    """
    unique, place_M = np.unique(cut_ids(ids, setting.text_tokens), axis=0, return_inverse=True)
    features = []
    for part in torch.from_numpy(unique).split(setting.batch):
        setting.go_on()
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=setting.autocast):
            text_BE = model.encode_text(part.to(setting.device))
        features.append(make_unit(text_BE))
    return torch.cat(features)[torch.from_numpy(place_M.reshape(-1)).to(setting.device)]


def make_unit(x_BE: torch.Tensor) -> torch.Tensor:
    """Unit rows in float32; normalised in bf16 they were measured up to 0.3 % off."""
    return torch.nn.functional.normalize(x_BE.float(), dim=-1)


# Classification


def templates(protocol: str, prompts: tuple[str, ...]) -> list[Callable[[str], str]]:
    """`common`: the sweep file's prompts; `paper`: CLIP's 80 (arXiv:2103.00020)."""
    if protocol == "paper":
        return list(open_clip.OPENAI_IMAGENET_TEMPLATES)
    # Not `format`: braces are no placeholders to the sweep file, where `{}` is all it asks for.
    return [partial(prompt.replace, "{}") for prompt in prompts]


def encode_classes(
    model: open_clip.CLIP, ids: np.ndarray, classes: int, setting: Setting
) -> torch.Tensor:
    """(C, E): a class is the mean of its prompts' unit features, renormalised."""
    text_CPE = encode_ids(model, ids, setting).view(classes, len(ids) // classes, -1)
    return make_unit(text_CPE.mean(dim=1))


def classify(
    model: open_clip.CLIP, item: EvalSet, pack: Pack, setting: Setting
) -> Iterator[dict[str, Any]]:
    """Top-1 and top-5 accuracy under each protocol."""
    image_NE, image_tokens = encode_images(model, pack, setting)
    classes = len(pack.class_names)
    label_N1 = torch.from_numpy(pack.labels).to(setting.device)[:, None]
    class_1C = torch.arange(classes, device=setting.device)[None]
    for protocol in setting.protocols:
        fills = templates(protocol, item.prompts)
        ids = encode_texts([fill(name) for name in pack.class_names for fill in fills])
        class_CE = encode_classes(model, ids, classes, setting)
        wrong_N = count_wrong(image_NE, class_CE, lambda rows: label_N1[rows] == class_1C, setting)
        base = {
            "protocol": protocol,
            "n": pack.count,
            "eval_image_tokens": image_tokens,
            "truncated": float((text_lengths(ids) > setting.text_tokens).mean()),
        }
        yield {**base, "name": "accuracy", **share_right(wrong_N, 1, classes)}
        yield {**base, "name": "accuracy_top5", **share_right(wrong_N, 5, classes)}


# Retrieval


def retrieve(
    model: open_clip.CLIP, _: EvalSet, pack: Pack, setting: Setting
) -> Iterator[dict[str, Any]]:
    """R@1, 5, 10 in both directions, equal captions all counting as right; held-out loss.

    Captions are nobody's prompts: whatever the protocols, there is one row each, under `common`.
    """
    image_NE, image_tokens = encode_images(model, pack, setting)
    ids = pack.texts(PACKED_LENGTH)
    text_ME = encode_ids(model, ids, setting)
    same_M = np.unique(ids.astype(np.uint16), axis=0, return_inverse=True)[1].reshape(-1)
    base = {
        "protocol": "common",
        "eval_image_tokens": image_tokens,
        "truncated": float((text_lengths(ids) > setting.text_tokens).mean()),
    }
    picture_M, text_M, caption_M = (
        torch.from_numpy(array).to(setting.device)
        for array in (pack.owner, np.arange(len(ids)), same_M)
    )
    sides = {
        "image_to_text": (image_NE, picture_M, text_ME, text_M),
        "text_to_image": (text_ME, text_M, image_NE, picture_M),
    }
    for direction, (query_QE, query_M, other_RE, other_M) in sides.items():
        share = partial(share_caption, query_M, other_M, caption_M, len(other_RE))
        wrong_Q = count_wrong(query_QE, other_RE, share, setting)
        for k in RANKS:
            row = {**base, "name": f"{direction}_r{k}", "n": len(wrong_Q)}
            yield {**row, **share_right(wrong_Q, k, len(other_RE))}
    loss, count = held_out_loss(image_NE, text_ME, pack.owner, model.logit_scale.exp())
    yield {**base, "name": "loss", "value": loss, "n": count, "correct": ""}


def share_caption(
    query_M: torch.Tensor,
    other_M: torch.Tensor,
    caption_M: torch.Tensor,
    others: int,
    rows: slice,
) -> torch.Tensor:
    """(q, R) bool: which of R others have a caption, to the word, that the queries in `rows` have.

    Caption m is one of query_M[m]'s and one of other_M[m]'s, and equal ones have one caption_M.
    """
    mine = (query_M >= rows.start) & (query_M < rows.stop)
    shape = rows.stop - rows.start, int(caption_M.max()) + 1
    has_qG = torch.zeros(shape, dtype=torch.bool, device=query_M.device)
    has_qG[query_M[mine] - rows.start, caption_M[mine]] = True
    row, m = has_qG[:, caption_M].nonzero(as_tuple=True)
    shared_qR = has_qG.new_zeros(shape[0], others)
    shared_qR[row, other_M[m]] = True
    return shared_qR


def held_out_batches(count: int) -> np.ndarray:
    """(batches, B) pictures, the same for every model; what does not fill a batch is left out.

    A set smaller than LOSS_BATCH is one batch: its loss can be compared between models only.
    """
    size = min(LOSS_BATCH, count)
    order = permute(np.arange(count), count, ORDER_KEY)
    return order[: count // size * size].reshape(-1, size)


def held_out_loss(
    image_NE: torch.Tensor, text_ME: torch.Tensor, owner_M: np.ndarray, scale: torch.Tensor
) -> tuple[float | None, int]:
    """Mean contrastive loss over the held-out batches, each picture with its first caption, and n.

    None where it is no finite number, or of a single pair, whose loss is 0 under any model.
    """
    first_N = np.unique(owner_M, return_index=True)[1]
    assert len(first_N) == len(image_NE), "every picture has a caption"
    batches = held_out_batches(len(image_NE))
    losses = []
    for rows in batches:
        image_B, text_B = (torch.from_numpy(at).to(image_NE.device) for at in (rows, first_N[rows]))
        losses.append(contrastive_loss(image_NE[image_B], text_ME[text_B], scale))
    loss = float(torch.stack(losses).double().mean())
    known = math.isfinite(loss) and batches.shape[1] > 1
    return loss if known else None, batches.size


# Ranks


def count_wrong(
    query_QE: torch.Tensor,
    other_RE: torch.Tensor,
    relevant: Callable[[slice], torch.Tensor],
    setting: Setting,
) -> torch.Tensor:
    """(Q,) how many wrong answers score at least as high as each query's best right one.

    Ties count against the model, so a collapsed one is never right. Cosines are summed in float64
    and compared in STEPS: float32 products of equal rows differ by their place in the matrix.
    """
    other_ER = other_RE.double().T
    counts = []
    for start in range(0, len(query_QE), setting.batch):
        setting.go_on()
        rows = slice(start, min(start + setting.batch, len(query_QE)))
        score_qR = (query_QE[rows].double() @ other_ER * STEPS).round()
        right_qR = relevant(rows)
        best_q1 = score_qR.masked_fill(~right_qR, -torch.inf).amax(dim=1, keepdim=True)
        # Not `>=`, which is false of NaN: a broken model would have no wrong answers.
        counts.append((~(score_qR < best_q1) & ~right_qR).sum(dim=1))
    return torch.cat(counts)


def share_right(wrong_Q: torch.Tensor, k: int, others: int) -> dict[str, Any]:
    """The share of queries with a right answer among the first k, and the bits behind it.

    Unknown, None, where there are no more than k answers: no model can miss.
    """
    if others <= k:
        return {"value": None, "correct": ""}
    bits = (wrong_Q < k).cpu().numpy()
    packed = base64.b64encode(np.packbits(bits).tobytes()).decode()
    return {"value": float(bits.mean()), "correct": packed}


def unpack_bits(text: str, count: int) -> np.ndarray:
    """(count,) bool: the per-example correctness of a row."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)
