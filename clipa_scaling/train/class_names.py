"""The words that prompts take for classes, from what a data set calls them."""

from __future__ import annotations

from typing import Any

from clipa_scaling.class_labels import are_ids, are_indices, check_labels


def name_classes(names: list[str]) -> list[str]:
    """The words for prompts: the classes' own names, or open_clip's of ImageNet-1k's classes.

    Those are meant by WordNet ids (ImageNet-1k and Sketch have all, -A and -R 200 each), and by
    exactly 0 to 999, the indices of -V2's folders. DataError for what is no word: see check_labels.
    """
    check_labels(names)
    if are_ids(names):
        return name_ids(names)
    if are_indices(names):
        known = imagenet_names()
        return [known[int(name)] for name in names]
    return names


def name_ids(ids: list[str]) -> list[str]:
    """open_clip's class names of WordNet ids."""
    from timm.data.imagenet_info import ImageNetInfo  # brings torch; most data sets have words

    info: Any = ImageNetInfo()
    place = {wordnet: index for index, wordnet in enumerate(info.label_names())}
    known = imagenet_names()
    return [known[place[wordnet]] for wordnet in ids]


def imagenet_names() -> list[str]:
    """open_clip's 1,000 names, in the order of the WordNet ids."""
    import open_clip  # brings torch, which a pack of words does without

    return list(open_clip.IMAGENET_CLASSNAMES)
