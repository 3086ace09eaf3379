"""Zero-shot, retrieval and held-out contrastive loss, with per-example correctness."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from clipa_scaling.correct import pack_clusters
from clipa_scaling.source import DataError
from clipa_scaling.spec import EVALUATOR, EvalSet
from clipa_scaling.train.class_names import name_classes
from clipa_scaling.train.features import Setting, encode_ids, encode_images
from clipa_scaling.train.keyed import make_key, permute
from clipa_scaling.train.loss import contrastive_loss
from clipa_scaling.train.model import make_unit
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.ranks import count_wrong, share_caption, share_per_class, share_right
from clipa_scaling.train.tokenize import PACKED_LENGTH, encode_texts, share_cut

RANKS = (1, 5, 10)
LOSS_BATCH = 256  # pairs; the loss grows with it, so not eval_batch, in which cells may differ
ORDER_KEY = make_key(0, "held-out batches")  # the same batches for every run and seed


class Evaluator:
    """All evaluation sets of a run, opened once; DataError where a pack is another than planned."""

    def __init__(self, sets: tuple[EvalSet, ...], setting: Setting):
        self.setting = setting
        self.sets = [(item, Pack.open(Path(item.pack), item.fingerprint)) for item in sets]
        for item, pack in self.sets:
            if item.task == "classify":
                name_classes(pack.class_names)  # before the training, if it cannot be
            elif read_vocab(pack.vocab) != read_vocab(setting.vocab):
                raise DataError(
                    f"{pack.folder}: set {item.name} is in the ids of another tokenizer than the "
                    "run's; launch the sweep again, which packs it in the run's own"
                )

    def evaluate(self, model: open_clip.CLIP, samples: int) -> list[dict[str, Any]]:
        """Rows of the evals table for a model that has seen `samples`; no masks, text truncated."""
        training = model.training
        model.eval()
        rows: list[dict[str, Any]] = []
        try:
            with torch.no_grad():
                for item, pack in self.sets:
                    base = {"samples": samples, "set": item.name, "fingerprint": item.benchmark}
                    base |= {"evaluator": EVALUATOR, "clusters": ""}
                    measure = classify if item.task == "classify" else retrieve
                    rows += [{**base, **row} for row in measure(model, item, pack, self.setting)]
        finally:
            model.train(training)
        return rows


def read_vocab(path: str) -> bytes:
    """What a vocabulary holds; nothing for CLIP's BPE."""
    return Path(path).read_bytes() if path else b""


def templates(protocol: str, prompts: tuple[str, ...]) -> list[Callable[[str], str]]:
    """`common`: the sweep file's prompts; `paper`: CLIP's 80 (arXiv:2103.00020)."""
    if protocol == "paper":
        return list(open_clip.OPENAI_IMAGENET_TEMPLATES)
    # Not `format`: braces are no placeholders to the sweep file, where `{}` is all it asks for.
    return [partial(prompt.replace, "{}") for prompt in prompts]


def name_evaluation(pack: Pack, task: str, protocol: str, ids: np.ndarray) -> str:
    """16 hex digits of all that decides a measure beside the model: what two of a curve share.

    That is the pictures, the task and protocol, every text as the tokenizer has it, (M, 77) ids
    before any cut, and the evaluator; no lengths, in which cells differ.
    """
    texts = hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
    measured = [EVALUATOR, pack.fingerprint, task, protocol, ids.shape, texts]
    return hashlib.sha256(json.dumps(measured).encode()).hexdigest()[:16]


def encode_classes(
    model: open_clip.CLIP, ids: np.ndarray, classes: int, setting: Setting
) -> torch.Tensor:
    """(C, E): a class is the mean of its prompts' unit features, renormalised."""
    text_CPE = encode_ids(model, ids, setting).view(classes, len(ids) // classes, -1)
    return make_unit(text_CPE.mean(dim=1))


def classify(
    model: open_clip.CLIP, item: EvalSet, pack: Pack, setting: Setting
) -> Iterator[dict[str, Any]]:
    """Top-1, top-5 and mean per-class accuracy at each size, under each protocol."""
    images = {size: encode_images(model, pack, setting, size) for size in setting.sizes}
    classes = len(pack.class_names)
    label_N = torch.from_numpy(pack.labels).to(setting.device)
    class_1C = torch.arange(classes, device=setting.device)[None]
    for protocol in setting.protocols:
        fills = templates(protocol, item.prompts)
        ids = encode_texts(
            [fill(name) for name in name_classes(pack.class_names) for fill in fills], setting.vocab
        )
        class_CE = encode_classes(model, ids, classes, setting)
        base = {
            "protocol": protocol,
            "evaluation": name_evaluation(pack, item.task, protocol, ids),
            "n": pack.count,
            "truncated": share_cut(ids, setting.text_tokens),
        }
        for size, (image_NE, image_tokens) in images.items():
            wrong_N = count_wrong(
                image_NE, class_CE, lambda rows: label_N[rows, None] == class_1C, setting
            )
            here = {**base, "size": size, "eval_image_tokens": image_tokens}
            yield {**here, "name": "accuracy", **share_right(wrong_N, 1, classes)}
            yield {**here, "name": "accuracy_top5", **share_right(wrong_N, 5, classes)}
            yield {
                **here,
                "name": "accuracy_per_class",
                **share_per_class(wrong_N, label_N, classes),
            }


def retrieve(
    model: open_clip.CLIP, item: EvalSet, pack: Pack, setting: Setting
) -> Iterator[dict[str, Any]]:
    """R@1, 5, 10 in both directions and held-out loss, at each size.

    Captions are nobody's prompts: whatever the protocols, there is one row each, under `common`.
    """
    images = {size: encode_images(model, pack, setting, size) for size in setting.sizes}
    ids = pack.texts(PACKED_LENGTH)
    text_ME = encode_ids(model, ids, setting)
    base = {
        "protocol": "common",
        "evaluation": name_evaluation(pack, item.task, "common", ids),
        "truncated": share_cut(ids, setting.text_tokens),
    }
    for size, (image_NE, image_tokens) in images.items():
        here = {**base, "size": size, "eval_image_tokens": image_tokens}
        for row in recalls(image_NE, text_ME, ids, pack.owner, setting):
            yield {**here, **row}
        loss, count = held_out_loss(image_NE, text_ME, pack.owner, model.logit_scale.exp())
        yield {**here, "name": "loss", "value": loss, "n": count, "correct": ""}


def recalls(
    image_NE: torch.Tensor,
    text_ME: torch.Tensor,
    ids: np.ndarray,
    owner_M: np.ndarray,
    setting: Setting,
) -> Iterator[dict[str, Any]]:
    """R@1, 5, 10 in both directions; captions with equal ids, (M, 77), all count as right."""
    same_M = np.unique(ids.astype(np.uint16), axis=0, return_inverse=True)[1].reshape(-1)
    picture_M, text_M, caption_M = (
        torch.from_numpy(array).to(setting.device)
        for array in (owner_M, np.arange(len(ids)), same_M)
    )
    of_pictures = pack_clusters(np.bincount(owner_M))
    sides = {
        "image_to_text": (image_NE, picture_M, text_ME, text_M, ""),
        "text_to_image": (text_ME, text_M, image_NE, picture_M, of_pictures),
    }
    for direction, (query_QE, query_M, other_RE, other_M, clusters) in sides.items():
        share = partial(share_caption, query_M, other_M, caption_M, len(other_RE))
        wrong_Q = count_wrong(query_QE, other_RE, share, setting)
        for k in RANKS:
            row = {"name": f"{direction}_r{k}", "n": len(wrong_Q), "clusters": clusters}
            yield {**row, **share_right(wrong_Q, k, len(other_RE))}


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
