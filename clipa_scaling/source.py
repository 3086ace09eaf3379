"""A data set by name: which files it is, and its fingerprint. Opens none of them."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

SCENES_VERSION = 2  # of the generated data set; a change of one pixel or word is a new version
SCENES_CLASSES = 256  # of their main objects: textures x colours x shapes
SHARD_ENDINGS = (".tar", ".tgz", ".tar.gz")
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
FOLDER_LABELS, IMAGENET_LABELS = "folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json"
SPLIT = "test"  # of Karpathy's annotation files: what CLIP and its successors are judged on
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")


class DataError(ValueError):
    """Data that is not there or not as declared; one line that ends with the way out."""


@dataclass(frozen=True)
class Source:
    """A data set by name.

    kind: `shards` (WebDataset tars), `folder` (one folder per class), `objectnet`, `annotations`
    (a JSON file of captions) or `scenes` (generated).
    where: the pattern or path, absolute; `scenes` for scenes.
    caption: the json field with one caption or a list; None is the txt member, else json `caption`.
    label: the json field with the class name; None is the cls member. Folders are named for theirs.
    pairs, seed: how many scenes, from which seed.
    id: a declared `data.id`, used in place of file names and sizes.
    images: the folder of the pictures that annotations name.
    """

    kind: str
    where: str
    caption: str | None = None
    label: str | None = None
    pairs: int = 0
    seed: int = 0
    id: str | None = None
    images: str | None = None

    @property
    def has_files(self) -> bool:
        """Whether its pictures are files of their own; see `list_files`."""
        return self.kind in ("folder", "objectnet", "annotations")


class PictureFile(NamedTuple):
    """A picture below the folder `picture_root`, its bytes, and what the data set says of it."""

    name: str
    size: int
    label: str = ""
    captions: tuple[str, ...] = ()


def fingerprint(source: Source, store_px: int) -> str:
    """16 hex digits that name the data and the stored size, wherever the data lies.

    From names, sizes and the captions of annotation files, not contents: hashing terabytes at every
    plan is not an option. DataError where files are missing, unless an id is declared.
    """
    files: Any
    if source.kind == "scenes":
        files = [SCENES_VERSION, source.seed, source.pairs]
    elif source.id is not None:
        files = source.id
    elif source.kind == "folder":
        files = list_pictures(source.where)
    elif source.kind == "objectnet":
        files = [(name, size, label) for name, size, label, _ in list_files(source)]
    elif source.kind == "annotations":
        # The captions are read anyway. Pictures may lie one folder deeper, or not.
        listed = list_files(source)
        files = [(Path(file.name).name, file.size, file.captions) for file in listed]
    else:
        files = [(path.name, size) for path, size in measure_shards(source.where)]
    # Whether a declared set is shards or folders is known only where it is.
    declared = "declared" if source.kind in ("shards", "folder") else f"declared {source.kind}"
    kind = declared if source.id is not None else source.kind
    identity = [kind, files, source.caption, source.label, store_px]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def list_shards(pattern: str) -> tuple[Path, ...]:
    """The shards of a pattern, by name; DataError when any is missing.

    A pattern is a file, a folder of shards, or has ranges {00000..00003}, lists {a,b} and globs.
    """
    return tuple(path for path, _ in measure_shards(pattern))


def measure_shards(pattern: str) -> list[tuple[Path, int]]:
    """The shards of a pattern with their sizes in bytes, ordered as the fingerprint orders them."""
    sizes: dict[Path, int] = {}
    missing: list[str] = []
    for name in expand_braces(pattern):
        found = find_shards(name)
        if not found:
            missing.append(name)
        for path in found:
            try:
                sizes[path] = path.stat().st_size
            except FileNotFoundError:
                missing.append(str(path))
    if missing:
        total = len(sizes) + len(missing)
        raise DataError(
            f"{pattern}: {len(sizes)} of {total} shards exist, the first missing is {missing[0]}; "
            "correct the pattern or bring the missing shards"
        )
    # Name and size before folder: then no two orders of the same shards share one fingerprint.
    return sorted(sizes.items(), key=lambda item: (item[0].name, item[1], item[0]))


def find_shards(name: str) -> list[Path]:
    """The shards one brace-free name stands for: a folder's, a glob's, or the file of that name."""
    path = Path(name)
    if path.is_dir():
        found = [item for item in path.iterdir() if item.name.endswith(SHARD_ENDINGS)]
        return [item for item in found if not item.name.startswith(".")]
    if any(mark in name for mark in "*?[") and not path.exists():
        return [Path(hit) for hit in glob.glob(name)]
    return [path]


def expand_braces(pattern: str) -> list[str]:
    """Every name a pattern's ranges {08..11} and lists {a,b} stand for, leftmost slowest."""
    group = BRACES.search(pattern)
    if group is None:
        if "{" in pattern or "}" in pattern:
            raise DataError(f"{pattern}: has a brace without its partner; close it or take it out")
        return [pattern]
    before, after = pattern[: group.start()], pattern[group.end() :]
    words = expand_group(group[1], pattern)
    return [name for word in words for name in expand_braces(before + word + after)]


def expand_group(body: str, pattern: str) -> list[str]:
    limits = RANGE.fullmatch(body)
    if limits is not None:
        first, last = limits[1], limits[2]
        if int(first) <= int(last):
            width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
            return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    elif "," in body:
        return body.split(",")
    raise DataError(
        f"{pattern}: {{{body}}} names no shards; allowed: a rising range {{00000..00003}} or "
        "a list {a,b}"
    )


def list_pictures(folder: str) -> list[tuple[str, int]]:
    """(`class/file`, bytes) of all pictures one level below a folder, sorted; DataError if none."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: no such folder; correct the path or bring the data")
    pictures = []
    for name in os.listdir(root):
        if name.startswith(".") or not (root / name).is_dir():
            continue
        with os.scandir(root / name) as entries:
            for entry in entries:
                shown = not entry.name.startswith(".")
                if shown and entry.name.lower().endswith(PICTURE_ENDINGS) and entry.is_file():
                    pictures.append((f"{name}/{entry.name}", entry.stat().st_size))
    if not pictures:
        endings = ", ".join(PICTURE_ENDINGS)
        raise DataError(
            f"{folder}: holds neither shards nor pictures; allowed: *.tar, *.tgz, *.tar.gz, or one "
            f"folder per class with {endings} files"
        )
    return sorted(pictures)


def find_layout(path: Path) -> tuple[str, Path]:
    """A data set's `kind` and `where`, from what lies at a path.

    ObjectNet is known by its `mappings` beside `images`; its path may name either's parent or
    `images`. A folder without shards holds one folder per class.
    """
    if path.suffix == ".json":
        return "annotations", path
    for root in (path, path.parent) if path.name == "images" else (path,):
        mappings = root / "mappings"
        if (mappings / FOLDER_LABELS).is_file() and (mappings / IMAGENET_LABELS).is_file():
            return "objectnet", root
    if path.is_dir() and not any(path.glob("*.tar")) and not any(path.glob("*.t*gz")):
        return "folder", path
    return "shards", path


def picture_root(source: Source) -> Path:
    """The folder that the names of `list_files` start from."""
    if source.kind == "objectnet":
        return Path(source.where) / "images"
    return Path(source.where if source.images is None else source.images)


def list_files(source: Source) -> list[PictureFile]:
    """The pictures of class folders, ObjectNet or annotations, in order; DataError if any misses.

    Of ObjectNet the 113 classes that are in ImageNet-1k, with its own labels, as wise-ft and
    CLIP_benchmark take them.
    """
    root = picture_root(source)
    if source.kind == "annotations":
        return [
            PictureFile(name, measure_picture(root / name, source), captions=captions)
            for name, captions in read_annotations(Path(source.where), root)
        ]
    pictures = [(name, size, name.partition("/")[0]) for name, size in list_pictures(str(root))]
    if source.kind == "folder":
        return [PictureFile(*picture) for picture in pictures]
    mappings = Path(source.where) / "mappings"
    label_of, known = (load_mapping(mappings / name) for name in (FOLDER_LABELS, IMAGENET_LABELS))
    labels = {folder: label for folder, label in label_of.items() if label in known}
    found = [PictureFile(name, size, labels[at]) for name, size, at in pictures if at in labels]
    if not found:
        raise DataError(
            f"{root}: has none of the {len(labels)} folders that {mappings} names; "
            "unpack ObjectNet anew, its folders as they are"
        )
    return found


def load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); bring it again") from error


def load_mapping(path: Path) -> dict[str, str]:
    """A JSON file that maps words to words; DataError where it holds anything else."""
    value = load_json(path)
    if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
        raise DataError(f"{path}: holds no mapping of words to words; bring ObjectNet's own again")
    return value


def measure_picture(path: Path, source: Source) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(
            f"{source.where}: names {path}, which cannot be found ({error.strerror}); correct "
            "images, or bring the missing pictures"
        ) from error


def read_annotations(path: Path, root: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(file below `root`, its captions) of the pictures of an annotation file, in its order.

    Karpathy's JSON (arXiv:1412.2306; `images` with `sentences`, of which the split `test`) or
    COCO's own (arXiv:1504.00325; `images`, and `annotations` with captions). All captions count.
    """
    values = load_json(path)
    try:
        if "annotations" in values:
            captions: dict[Any, list[str]] = {image["id"]: [] for image in values["images"]}
            for entry in values["annotations"]:
                captions[entry["image_id"]].append(entry["caption"])
            found = [(im["file_name"], tuple(captions[im["id"]])) for im in values["images"]]
            return check_words(found)
        chosen = [image for image in values["images"] if image["split"] == SPLIT]
        said = [tuple(sentence["raw"] for sentence in image["sentences"]) for image in chosen]
        # COCO's say in which of its folders a picture lies; that folder itself may be given too.
        places = [Path(image.get("filepath", ""), image["filename"]) for image in chosen]
        names = [str(at if (root / at.parent).is_dir() else at.name) for at in places]
        found = check_words(list(zip(names, said, strict=True)))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is no annotation file ({name_fault(error)}); allowed: Karpathy's images "
            "with split and sentences, or COCO's images and annotations with captions"
        ) from error
    if not chosen:
        raise DataError(f"{path}: has no picture of split {SPLIT}; give the whole file")
    return found


def check_words(
    found: list[tuple[str, tuple[str, ...]]],
) -> list[tuple[str, tuple[str, ...]]]:
    """The same; TypeError for names and captions that are no text."""
    for name, captions in found:
        for word in (name, *captions):
            if not isinstance(word, str):
                raise TypeError(f"{word!r} is no text")
    return found


def name_fault(error: Exception) -> str:
    return f"{error} is not there" if isinstance(error, KeyError) else str(error)
