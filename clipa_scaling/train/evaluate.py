"""Zero-shot, retrieval and held-out contrastive loss, with per-example correctness."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from clipa_scaling.spec import EvalSet
from clipa_scaling.train.features import Setting, encode_ids, encode_images
from clipa_scaling.train.keyed import make_key, permute
from clipa_scaling.train.loss import contrastive_loss
from clipa_scaling.train.model import make_unit
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.ranks import count_wrong, share_caption, share_right
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

    def evaluate(self, model: open_clip.CLIP, samples: int) -> list[dict[str, Any]]:
        """Rows of the evals table for a model that has seen `samples`; no masks, text truncated."""
        training = model.training
        model.eval()
        rows: list[dict[str, Any]] = []
        try:
            with torch.no_grad():
                for item, pack in self.sets:
                    base = {"samples": samples, "set": item.name, "fingerprint": item.benchmark}
                    measure = classify if item.task == "classify" else retrieve
                    rows += [{**base, **row} for row in measure(model, item, pack, self.setting)]
        finally:
            model.train(training)
        return rows


def templates(protocol: str, prompts: tuple[str, ...]) -> list[Callable[[str], str]]:
    """`common`: the sweep file's prompts; `paper`: CLIP's 80 (arXiv:2103.00020)."""
    if protocol == "paper":
        return list(open_clip.OPENAI_IMAGENET_TEMPLATES)
    # Not `format`: braces are no placeholders to the sweep file, where `{}` is all it asks for.
    return [partial(prompt.replace, "{}") for prompt in prompts]


def name_classes(names: list[str]) -> list[str]:
    """The words for prompts: the classes' own names, or open_clip's for ImageNet's 1,000 ids.

    ValueError for other sets of WordNet ids, which are no words.
    """
    if not all(re.fullmatch(r"n\d{8}", name) for name in names):
        return names
    if len(names) != len(open_clip.IMAGENET_CLASSNAMES):
        raise ValueError(
            f"classes: {len(names)} WordNet ids such as {names[0]} are no words; allowed: all "
            "1,000 of ImageNet-1k, or class names; rename the folders, or name a field with label"
        )
    return list(open_clip.IMAGENET_CLASSNAMES)  # in the order of the ids


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
        ids = encode_texts(
            [fill(name) for name in name_classes(pack.class_names) for fill in fills], setting.vocab
        )
        class_CE = encode_classes(model, ids, classes, setting)
        wrong_N = count_wrong(image_NE, class_CE, lambda rows: label_N1[rows] == class_1C, setting)
        base = {
            "protocol": protocol,
            "n": pack.count,
            "eval_image_tokens": image_tokens,
            "truncated": share_cut(ids, setting.text_tokens),
        }
        yield {**base, "name": "accuracy", **share_right(wrong_N, 1, classes)}
        yield {**base, "name": "accuracy_top5", **share_right(wrong_N, 5, classes)}


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
        "truncated": share_cut(ids, setting.text_tokens),
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
