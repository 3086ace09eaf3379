"""The field's evaluation sets as their authors lay them out, each made of a few tiny pictures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
from make_data import ROOT, encode, make_picture, pack_here
from small_sweep import SMALL, write_small

from clipa_scaling.source import DataError, Source, find_layout, fingerprint
from clipa_scaling.sweepfile import load_sweep
from clipa_scaling.train.class_names import name_classes
from clipa_scaling.train.tokenize import encode_texts
from clipa_scaling.yamlfile import SweepError

PX = 16
TENCH, TABBY, BANANA = "n01440764", "n02123045", "n07753592"  # ImageNet-1k's 0, 281 and 954


def write_folders(root: Path, *names: str) -> Source:
    """Class folders of two pictures each."""
    for seed, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(2):
            picture = encode(make_picture(20, 18, 2 * seed + number), "JPEG")
            (root / name / f"{number}.JPEG").write_bytes(picture)
    kind, where = find_layout(root)
    return Source(kind, str(where))


def test_a_part_of_imagenets_ids_has_imagenets_names(tmp_path: Path) -> None:
    source = write_folders(tmp_path / "imagenet-a", BANANA, TENCH, TABBY)
    pack = pack_here(tmp_path / "pack", source, PX, "labels")
    assert pack.class_names == [TENCH, TABBY, BANANA]
    assert name_classes(pack.class_names) == ["tench", "tabby cat", "banana"]
    assert pack.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_an_id_outside_imagenet_is_refused_before_a_picture_is_read(tmp_path: Path) -> None:
    source = write_folders(tmp_path / "data", TENCH, "n00000001")
    for path in (tmp_path / "data").glob("*/*"):
        path.write_bytes(b"none")
    with pytest.raises(DataError, match="1 of 2 WordNet ids, such as n00000001, are not among"):
        pack_here(tmp_path / "pack", source, PX, "labels")


def test_folders_0_to_999_are_indices_and_fewer_are_names() -> None:
    names = sorted(map(str, range(1_000)))
    words = dict(zip(names, name_classes(names), strict=True))
    assert [words[str(index)] for index in range(1_000)] == list(open_clip.IMAGENET_CLASSNAMES)
    assert (words["0"], words["10"], words["999"]) == ("tench", "brambling", "toilet paper")
    assert name_classes(list("0123456789")) == list("0123456789")  # MNIST's
    padded = sorted(f"{number:03d}" for number in range(1_000))
    assert name_classes(padded) == list(open_clip.IMAGENET_CLASSNAMES)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (list(map(str, range(999))), "999 numbers, such as 998, are no words and not ImageNet-1k"),
        (list(map(str, range(1, 1_001))), "1000 numbers, such as 999, are no words"),
        (["0", *(f"{n:03d}" for n in range(999))], "1000 numbers"),
        (["a cat", TENCH], "1 of 2 are WordNet ids, such as n01440764, and others, such as a cat"),
    ],
)
def test_names_that_are_no_words_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        name_classes(names)


def test_classes_that_no_prompt_can_take_are_refused_by_the_plan_without_torch(
    tmp_path: Path,
) -> None:
    write_folders(tmp_path / "data", TENCH, "n00000001")
    for entry in ("labelled: {path: data}", "evals: {x: {path: data, task: classify}}"):
        other = entry if "evals" in entry else f"{entry}\n  evals: {{}}"
        text = re.sub(r"  evals:\n(    .*\n)+", f"  {other}\n", SMALL)
        with pytest.raises(SweepError, match=r"small.yaml:\d+: data.*path: classes: 1 of 2 W"):
            load_sweep(write_small(tmp_path, text), tmp_path / "packs")
    code = "import sys; from clipa_scaling.class_labels import imagenet_ids as ids; "
    code += "assert len(set(ids())) == 1000 and not {'timm', 'torch'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_declared_id_does_not_make_two_layouts_one() -> None:
    kinds = ("shards", "folder", "objectnet", "annotations")
    digits = [fingerprint(Source(kind, "x", id="mine"), PX) for kind in kinds]
    assert digits[0] == digits[1] and len(set(digits)) == 3


@pytest.mark.parametrize("content", ["[]", "7", '{"a": 1}', '{"a": ["b"]}'])
def test_mappings_that_are_none_are_one_line(tmp_path: Path, content: str) -> None:
    root = write_objectnet(tmp_path / "objectnet-1.0")
    (root / "mappings" / "objectnet_to_imagenet_1k.json").write_text(content)
    with pytest.raises(DataError, match="holds no mapping of words to words"):
        fingerprint(Source("objectnet", str(root)), PX)


@pytest.mark.parametrize(
    "content",
    [
        [], 7, ["images"], {"images": [[]]}, {"images": 7}, {"images": [{"split": "test"}]},
        {"images": [{"split": "test", "sentences": [{"raw": 1}], "filename": "x"}]},
        {"images": [{"split": "test", "sentences": [], "filename": 7}]},
        {"images": [{"id": 1, "file_name": 7}], "annotations": []},
        {"images": [], "annotations": 7},
    ],
)  # fmt: skip
def test_annotations_that_are_none_are_one_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="is no annotation file"):
        fingerprint(Source("annotations", str(path), images=str(tmp_path)), PX)


def test_another_caption_of_the_same_length_is_another_set(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path)
    source = Source("annotations", str(path), images=str(tmp_path / "pictures"))
    before = fingerprint(source, PX)
    path.write_text(path.read_text().replace("caption 0 of 0", "caption 9 of 0"))
    assert fingerprint(source, PX) != before


def write_objectnet(root: Path) -> Path:
    """Two classes that ImageNet has and one that it lacks; blue pictures in a red frame of 2 px."""
    picture = np.full((24, 34, 3), (0, 0, 200), np.uint8)
    picture[:2] = picture[-2:] = picture[:, :2] = picture[:, -2:] = (255, 0, 0)
    folders = {"alarm_clock": "Alarm clock", "tie": "Tie", "air_freshener": "Air freshener"}
    for folder in folders:
        (root / "images" / folder).mkdir(parents=True)
        (root / "images" / folder / "1.png").write_bytes(encode(picture))
    mappings = {
        "folder_to_objectnet_label": folders,
        "objectnet_to_imagenet_1k": {"Alarm clock": "analog clock; digital clock", "Tie": "tie"},
    }
    (root / "mappings").mkdir()
    for name, content in mappings.items():
        (root / "mappings" / f"{name}.json").write_text(json.dumps(content))
    return root


def test_of_objectnet_imagenets_classes_under_its_labels_without_the_frame(tmp_path: Path) -> None:
    root = write_objectnet(tmp_path / "objectnet-1.0")
    assert find_layout(root) == find_layout(root / "images") == ("objectnet", root)
    source = Source("objectnet", str(root))
    pack = pack_here(tmp_path / "pack", source, PX, "labels")
    assert name_classes(pack.class_names) == ["Alarm clock", "Tie"]
    assert pack.labels.tolist() == [0, 1]
    assert (pack.pictures(0, 2) == (0, 0, 200)).all()
    moved = root.rename(tmp_path / "elsewhere")
    assert fingerprint(Source("objectnet", str(moved)), PX) == pack.fingerprint
    (moved / "images" / "tie" / "2.png").write_bytes(encode(make_picture(9, 9, 0)))
    assert fingerprint(Source("objectnet", str(moved)), PX) != pack.fingerprint


SAID = [[f"caption {k} of {n}" for k in range(5 + (n == 1))] for n in range(3)]


def write_karpathy(root: Path, filepath: str = "") -> Path:
    """Three pictures of the test split with five or six captions, among others."""
    images = []
    for number, split in enumerate(("test", "train", "test", "val", "test")):
        name = f"picture_{number}.jpg"
        captions = SAID[number // 2] if split == "test" else ["not this"]
        entry = {"filename": name, "split": split, "sentences": [{"raw": c} for c in captions]}
        images.append(entry | ({"filepath": filepath} if filepath else {}))
        if split == "test":  # the others are not needed
            (root / "pictures" / filepath).mkdir(parents=True, exist_ok=True)
            picture = encode(make_picture(20, 16, number), "JPEG")
            (root / "pictures" / filepath / name).write_bytes(picture)
    path = root / "dataset.json"
    path.write_text(json.dumps({"images": images, "dataset": "made"}))
    return path


def check_captions(folder: Path, source: Source) -> str:
    """The three pictures with all their captions, in order; the fingerprint."""
    pack = pack_here(folder, source, PX, "captions")
    assert pack.owner.tolist() == [n for n, own in enumerate(SAID) for _ in own]
    assert np.array_equal(pack.texts(77), encode_texts([c for own in SAID for c in own]))
    return pack.fingerprint


@pytest.mark.parametrize("filepath", ["", "val2014"])
def test_karpathys_test_split_with_all_captions(tmp_path: Path, filepath: str) -> None:
    path, pictures = write_karpathy(tmp_path, filepath), tmp_path / "pictures"
    assert find_layout(path) == ("annotations", path)
    found = set()
    for number, place in enumerate((pictures, pictures / filepath)):
        source = Source("annotations", str(path), images=str(place))
        found.add(check_captions(tmp_path / f"pack{number}", source))
    assert len(found) == 1, "wherever the pictures lie"


def test_cocos_own_captions(tmp_path: Path) -> None:
    write_karpathy(tmp_path)
    names = [f"picture_{number}.jpg" for number in (0, 2, 4)]
    images = [{"id": 70 - n, "file_name": name} for n, name in enumerate(names)]
    said = [
        {"image_id": 70 - n, "caption": SAID[n][k]}
        for k in range(6)
        for n in (2, 0, 1)
        if k < len(SAID[n])
    ]
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps({"images": images, "annotations": said}))
    source = Source("annotations", str(path), images=str(tmp_path / "pictures"))
    before = check_captions(tmp_path / "pack", source)
    path.write_text(json.dumps({"images": images, "annotations": said[:-1]}))
    assert fingerprint(source, PX) != before
    (tmp_path / "pictures" / names[1]).unlink()
    with pytest.raises(DataError, match=r"names .*picture_2.jpg, which cannot be found"):
        fingerprint(source, PX)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ('{"images": [{"id": 1}], "annotations": [{"image_id": 1}]}', "'caption' is not there"),
        ('{"images": [{"split": "test"}]}', "is no annotation file ('sentences' is not there)"),
        ("[]", "is no annotation file"),
        ('{"images": [{"split": "train", "sentences": []}]}', "has no picture of split test"),
    ],
)
def test_what_is_no_annotation_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    source = Source("annotations", str(tmp_path / "a.json"), images=str(tmp_path))
    with pytest.raises(DataError) as caught:
        fingerprint(source, PX)
    assert said in str(caught.value) and "\n" not in str(caught.value)


SWEEP = """\
name: sets
data:
  train: scenes
  pairs: 100
  store_px: 16
  evals:
    one: {EVAL}
fixed: {model: T32/8, image_tokens: 4, samples: 64, batch_size: 32, lr: 1e-3}
axes: {seed: [0]}
"""


def load(folder: Path, entry: str) -> Source:
    """How a sweep file's one set is read."""
    folder.mkdir(exist_ok=True)
    (folder / "s.yaml").write_text(SWEEP.replace("EVAL", entry))
    sweep = load_sweep(folder / "s.yaml", folder / "packs")
    assert sweep.missing is None
    return sweep.packs[-1].source


def test_a_sweep_file_names_a_path_and_its_layout_is_found(tmp_path: Path) -> None:
    write_karpathy(tmp_path)
    write_objectnet(tmp_path / "objectnet")
    write_folders(tmp_path / "v2", "0", "1")
    found = load(tmp_path, "path: dataset.json, images: pictures, task: retrieve")
    assert (found.kind, found.images) == ("annotations", str(tmp_path / "pictures"))
    assert load(tmp_path, "path: objectnet/images, task: classify").kind == "objectnet"
    assert load(tmp_path, "path: v2, task: classify").kind == "folder"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("path: dataset.json, task: retrieve", "with task: retrieve and images: FOLDER"),
        ("path: dataset.json, images: pictures, task: classify", "allowed: task: retrieve"),
        ("path: x.tar, images: pictures, task: retrieve", "are for annotation files"),
        ("path: dataset.json, images: ~nouser/x, task: retrieve", "cannot be looked up"),
        ("path: scenes, pairs: 9, seed: 3, images: x, task: retrieve", "are for annotation files"),
    ],
)
def test_entries_that_do_not_fit_are_one_line(tmp_path: Path, entry: str, said: str) -> None:
    write_karpathy(tmp_path)
    with pytest.raises(SweepError, match=r"s\.yaml:7: data\.evals\.one\.\w+: ") as caught:
        load(tmp_path, entry)
    assert said in str(caught.value)
