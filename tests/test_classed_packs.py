"""The word classes that a pack keeps beside its captions, and the batches that they reduce."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_data import ROOT, pack_command, write_request, write_shards

from clipa_scaling.rundir import read_json, write_json
from clipa_scaling.source import DataError, Source
from clipa_scaling.taggers import classes_mark, name_tagger
from clipa_scaling.train.data import Batches
from clipa_scaling.train.pack import pack
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.reduce import reduce_ids
from clipa_scaling.train.tagging import ADJECTIVE, NOUN, OTHER, VERB, make_tagger
from clipa_scaling.train.tokenize import encode_texts
from clipa_scaling.train.words import WordClasses, decode_words, find_words

TEXTBLOB = name_tagger("shards", "")
SHARDS, PAIRS, PX = 5, 40, 8
SCENES = name_tagger("scenes", "")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    pattern = write_shards(tmp_path_factory.mktemp("data"), SHARDS, PAIRS)
    return Source("shards", pattern, caption="captions")


@pytest.fixture(scope="module")
def bare(source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a pack without word classes."""
    folder = write_request(tmp_path_factory.mktemp("packs") / "bare", source, PX)
    pack(folder, 1)
    return read_files(folder)


@pytest.fixture(scope="module")
def classed(source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a pack that was asked for classes from the start."""
    folder = write_request(
        tmp_path_factory.mktemp("packs") / "classed", source, PX, tagger=TEXTBLOB
    )
    pack(folder, 2)
    return read_files(folder)


def read_files(folder: Path) -> dict[str, bytes]:
    """All but the request, which differs."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "request.json")
    return {name: (folder / name).read_bytes() for name in names}


def lay(folder: Path, files: dict[str, bytes], source: Source, tagger: str = TEXTBLOB) -> Path:
    """A pack's folder with these files, asked for the classes of a tagger."""
    write_request(folder, source, PX, tagger=tagger)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_classes_lie_beside_the_ids_and_change_nothing_else(
    bare: dict[str, bytes], classed: dict[str, bytes]
) -> None:
    added = {f"{number:05d}.classes-{TEXTBLOB}.npy" for number in range(SHARDS)}
    assert {*classed} == {*bare} | added | {classes_mark(TEXTBLOB)}
    assert {name: classed[name] for name in bare} == bare


def test_classes_of_gathered_captions(
    classed: dict[str, bytes], source: Source, tmp_path: Path
) -> None:
    opened = Pack.open(lay(tmp_path / "pack", classed, source))
    index = np.random.default_rng(0).permutation(SHARDS * PAIRS)
    ids = encode_texts([f"picture {number} of many" for number in index])
    wanted = WordClasses(make_tagger(TEXTBLOB)).of(ids)
    got = opened.gather_classes(index, TEXTBLOB)
    assert got.dtype == np.uint8 and np.array_equal(got, wanted)
    opened.check_classes(TEXTBLOB)
    with pytest.raises(DataError, match="has no word classes by 'nltk-3.9'; launch the sweep"):
        opened.check_classes("nltk-3.9")


def test_a_finished_pack_gets_its_classes_without_the_data(
    bare: dict[str, bytes], classed: dict[str, bytes], tmp_path: Path
) -> None:
    gone = Source("shards", str(tmp_path / "gone.tar"), id="gone")
    folder = lay(tmp_path / "pack", bare, gone)
    planned = {**read_json(folder / "request.json")}
    planned["fingerprint"] = json.loads(bare["pack.json"])["fingerprint"]
    write_json(folder / "request.json", planned)
    before = {name: (folder / name).stat().st_mtime_ns for name in bare}
    pack(folder, 2)
    assert read_files(folder) == classed
    assert {name: (folder / name).stat().st_mtime_ns for name in bare} == before
    made = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    pack(folder, 2)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == made


def test_several_taggers_lie_side_by_side(
    classed: dict[str, bytes], source: Source, tmp_path: Path
) -> None:
    folder = lay(tmp_path / "pack", classed, source, tagger=SCENES)
    pack(folder, 1)
    both = read_files(folder)
    assert {name: both[name] for name in classed} == classed
    assert len(both) == len(classed) + SHARDS + 1
    opened, index = Pack.open(folder), np.arange(9)
    differ = opened.gather_classes(index, SCENES) != opened.gather_classes(index, TEXTBLOB)
    assert differ.any()


@pytest.mark.parametrize("lost", [f"00002.classes-{TEXTBLOB}.npy", classes_mark(TEXTBLOB)])
def test_lost_classes_are_made_again(
    source: Source, classed: dict[str, bytes], tmp_path: Path, lost: str
) -> None:
    folder = lay(tmp_path / "pack", classed, source)
    (folder / lost).unlink()
    pack(folder, 2)
    assert read_files(folder) == classed


def test_classes_of_other_captions_do_not_stay(
    source: Source, classed: dict[str, bytes], tmp_path: Path
) -> None:
    folder = lay(tmp_path / "pack", classed, source)
    (folder / "pack.json").unlink()
    write_json(folder / "00001.json", {"fingerprint": "f" * 16})
    (folder / f"00001.classes-{TEXTBLOB}.npy").write_bytes(b"other captions'")
    pack(folder, 2)
    assert read_files(folder) == classed


@pytest.mark.parametrize("is_packed", [True, False])
def test_the_last_of_several_shares_finds_all_classes(
    source: Source,
    bare: dict[str, bytes],
    classed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_packed: bool,
) -> None:
    monkeypatch.setattr("clipa_scaling.train.pack.LATE_SECONDS", 0.0)
    folder = lay(tmp_path / "pack", bare if is_packed else {}, source)
    for share in (2, 0):
        pack(folder, 1, (share, 3))
        assert not (folder / classes_mark(TEXTBLOB)).exists()
        assert (folder / "pack.json").exists() == is_packed
    pack(folder, 1, (1, 3))
    assert read_files(folder) == classed


@pytest.mark.parametrize("is_packed", [True, False])
def test_kill_in_the_middle_then_again_gives_the_same_classes(
    source: Source,
    bare: dict[str, bytes],
    classed: dict[str, bytes],
    tmp_path: Path,
    is_packed: bool,
) -> None:
    folder = lay(tmp_path / "pack", bare if is_packed else {}, source)
    packer = subprocess.Popen(pack_command(folder, 1), cwd=ROOT, stderr=subprocess.DEVNULL)
    while packer.poll() is None and len(list(folder.glob("0*.classes-*.npy"))) < 2:
        time.sleep(0.001)
    packer.send_signal(signal.SIGKILL)
    assert packer.wait() == -signal.SIGKILL
    time.sleep(1)  # for its worker to end too, which may leave half a file
    pack(folder, 1)
    assert read_files(folder) == classed, "the same bytes, and no remains"


def test_a_tagger_that_is_not_here_is_one_line(
    source: Source, bare: dict[str, bytes], tmp_path: Path
) -> None:
    folder = lay(tmp_path / "pack", bare, source, tagger="textblob-0.1")
    with pytest.raises(DataError, match=r"pip install 'textblob==0\.1'"):
        pack(folder, 1)


# In batches


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    source = Source("scenes", "scenes", pairs=64, seed=3)
    folder = write_request(tmp_path_factory.mktemp("scenes"), source, PX, tagger=SCENES)
    pack(folder, 1)
    return Pack.open(folder)


def make_batches(scenes: Pack, reduction: str, tokens: int, **more: Any) -> Batches:
    return Batches(
        scenes,
        batch_size=16,
        image_size=PX,
        text_tokens=tokens,
        crop_min_area=1.0,
        seed=7,
        window=1,
        text_reduction=reduction,
        word_classes=SCENES if reduction == "syntax" else "",
        **more,
    )


@pytest.mark.parametrize("reduction", ["truncate", "random", "block", "syntax"])
def test_batches_hold_reduced_texts_on_any_number_of_ranks(scenes: Pack, reduction: str) -> None:
    batches = make_batches(scenes, reduction, 10)
    batch, index = batches.at(16), batches.order.at(16)
    ids = scenes.gather(index, 77)[1].astype(np.uint16)
    wanted = reduce_ids(
        ids, 10, reduction, 7, np.arange(16, 32), scenes.gather_classes(index, SCENES)
    )
    assert np.array_equal(batch.text_BT.numpy(), wanted)
    lengths = (ids == 49_407).argmax(axis=1) + 1
    assert batch.text_truncated == np.mean(lengths > 10)
    assert batch.text_real == np.mean(np.minimum(lengths, 10))
    halves = [make_batches(scenes, reduction, 10, rank=r, size=2).at(16) for r in (0, 1)]
    assert np.array_equal(np.concatenate([half.text_BT.numpy() for half in halves]), wanted)


def test_syntax_keeps_the_shapes_of_scenes(scenes: Pack) -> None:
    batch = make_batches(scenes, "syntax", 6).at(0)
    for row in batch.text_BT.numpy():
        packed = np.zeros(77, np.uint16)
        packed[:6] = row
        tagged = [make_tagger(SCENES)(word) for word in decode_words(packed)]
        assert tagged.count(NOUN) >= 2 and {*tagged} <= {NOUN, ADJECTIVE}


def test_syntax_without_classes_is_told_before_training(scenes: Pack) -> None:
    with pytest.raises(DataError, match="has no word classes by ''; launch the sweep again"):
        Batches(
            scenes,
            batch_size=16,
            image_size=PX,
            text_tokens=8,
            crop_min_area=1.0,
            seed=0,
            window=1,
            text_reduction="syntax",
        )


def test_real_captions_are_classed_in_a_pack(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "coco_mini" / "coco-00000.tar"
    source = Source("shards", str(path), caption="captions")
    folder = write_request(tmp_path / "coco", source, 16, tagger=TEXTBLOB)
    pack(folder, 1)
    opened = Pack.open(folder)
    ids = np.load(folder / "00000.ids.npy")
    classes = np.load(folder / f"00000.classes-{TEXTBLOB}.npy")
    inside, starts, _ = find_words(ids)
    assert np.array_equal(classes > 0, inside) and len(ids) == 255
    shares = np.bincount(classes[starts], minlength=5) / starts.sum()
    assert 0.25 < shares[NOUN] < 0.4 and 0.05 < shares[ADJECTIVE] < 0.15
    assert 0.05 < shares[VERB] < 0.2 and 0.4 < shares[OTHER] < 0.6
    first = opened.gather_classes(np.arange(51), TEXTBLOB)
    assert np.array_equal(first, classes[::5])
