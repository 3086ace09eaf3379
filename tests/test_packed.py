"""Reading a pack: what comes out is what a direct decode of the data gives, in any order."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from make_data import (
    SHARED,
    encode,
    make_picture,
    pack_here,
    run_pack,
    write_request,
    write_shards,
    write_tar,
)
from open_clip.tokenizer import SimpleTokenizer

from clipa_scaling.source import Source
from clipa_scaling.train.pack import pack
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.shards import decode_picture, read_shard
from clipa_scaling.train.tokenize import cut_ids, encode_texts

PX = 24
TOKENIZE = SimpleTokenizer()
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, not here")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 30 pairs with two captions each; the second holds no pair."""
    folder = tmp_path_factory.mktemp("data")
    write_shards(folder, 4, 30)
    write_tar(folder / "00001.tar", [("1.txt.gz", b""), ("folder/", None)])
    return folder


@pytest.fixture(scope="module")
def opened(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    source = Source("shards", str(data), caption="captions")
    folder = write_request(tmp_path_factory.mktemp("packs"), source, PX)
    done = run_pack(folder)
    assert done.returncode == 0, done.stderr
    return Pack.open(folder)


NUMBERS = [*range(30), *range(60, 120)]  # of the pictures that are in the shards


def test_sizes(opened: Pack) -> None:
    assert (opened.count, opened.px, opened.class_names) == (90, PX, [])
    assert opened.part_sizes.tolist() == [30, 0, 30, 30]


def test_gather_equals_direct_decoding(opened: Pack, data: Path) -> None:
    pictures = {
        int(key): decode_picture(members["png"], PX)
        for path in sorted(data.glob("*.tar"))
        for key, members in read_shard(path)
        if "png" in members
    }
    rng = np.random.default_rng(0)
    index = np.concatenate([rng.permutation(90), [3, 3, 89, 0, 30]])
    got, ids = opened.gather(index, 77)
    numbers = [NUMBERS[i] for i in index]
    assert np.array_equal(got, np.stack([pictures[number] for number in numbers]))
    first = [f"picture {number} of many" for number in numbers]
    assert ids.dtype == np.int64 and np.array_equal(ids, encode_texts(first))
    assert np.array_equal(opened.gather(index, 4)[1], cut_ids(encode_texts(first), 4))
    assert np.array_equal(opened.pictures(25, 65), opened.gather(np.arange(25, 65), 4)[0])
    assert opened.gather(index[:0], 8)[0].shape == (0, PX, PX, 3)


def test_all_captions_and_their_owners(opened: Pack) -> None:
    texts = [t for n in NUMBERS for t in (f"picture {n} of many", f"a {n % 7} thing")]
    assert np.array_equal(opened.texts(6), cut_ids(encode_texts(texts), 6))
    assert np.array_equal(opened.owner, np.repeat(np.arange(90), 2))


def test_what_a_pack_cannot_give_is_refused(opened: Pack) -> None:
    for index in ([90], [-1]):
        with pytest.raises(AssertionError, match="out of the pack"):
            opened.gather(np.array(index), 8)
    with pytest.raises(AssertionError, match="holds no labels"):
        _ = opened.labels


def test_few_files_are_held_open(opened: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipa_scaling.train.packed.OPEN_FILES", 2)
    narrow = Pack.open(opened.folder)
    index = np.random.default_rng(1).permutation(90)
    for got, want in zip(narrow.gather(index, 9), opened.gather(index, 9), strict=True):
        assert np.array_equal(got, want)
    assert narrow._array.cache_info().currsize == 2


def test_class_folders_give_labels(tmp_path: Path) -> None:
    want = []
    for number, name in enumerate(["zebra", "ant", "zebra", "moth"]):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        data = encode(make_picture(30, 40, number), "JPEG")
        (tmp_path / "set" / name / f"{number}.jpg").write_bytes(data)
        want.append((name, number, decode_picture(data, PX)))
    folder = write_request(tmp_path / "pack", Source("folder", f"{tmp_path}/set"), PX, "labels")
    pack(folder, 1)
    opened = Pack.open(folder)
    assert opened.class_names == ["ant", "moth", "zebra"]
    assert opened.labels.tolist() == [0, 1, 2, 2]
    want.sort(key=lambda item: item[:2])
    assert np.array_equal(opened.pictures(0, 4), np.stack([picture for *_, picture in want]))
    with pytest.raises(AssertionError, match="holds no captions"):
        opened.gather(np.arange(2), 8)


def test_scenes_are_packed_as_they_are_drawn(tmp_path: Path) -> None:
    scenes = pytest.importorskip("clipa_scaling.train.scenes", reason="no generator here")
    source = Source("scenes", "scenes", pairs=300, seed=4)
    pictures, captions, labels = scenes.make_scenes(4, 0, 300, 16)
    words = pack_here(tmp_path / "words", source, 16, "captions")
    assert np.array_equal(words.pictures(0, 300), pictures)
    assert np.array_equal(words.texts(77), TOKENIZE(list(captions)).numpy())
    classes = pack_here(tmp_path / "classes", source, 16, "labels")
    assert np.array_equal(classes.pictures(0, 300), pictures)
    names = [scenes.CLASS_NAMES[label] for label in labels]
    assert [classes.class_names[label] for label in classes.labels] == names


def captions_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        names = [name for name in tar.getnames() if name.endswith(".txt")]
        return [tar.extractfile(name).read().decode() for name in names]  # type: ignore[union-attr]


@needs_data
def test_the_emoji_shards(tmp_path: Path) -> None:
    shards = sorted((SHARED / "emoji").glob("*.tar"))
    opened = pack_here(tmp_path / "emoji", Source("shards", str(SHARED / "emoji")), 64)
    assert opened.part_sizes.tolist() == [1_183, 1_055, 2_500, 2_500, 2_500, 1_638]
    assert opened.count == 11_376
    texts = [text for path in shards for text in captions_in(path)]
    assert np.array_equal(opened.texts(77), TOKENIZE(texts).numpy())
    [(_, members), *_] = read_shard(shards[1])
    assert np.array_equal(opened.pictures(1_183, 1_184)[0], decode_picture(members["png"], 64))


@needs_data
def test_the_photographs_with_five_captions(tmp_path: Path) -> None:
    path = SHARED / "coco_mini" / "coco-00000.tar"
    opened = pack_here(tmp_path / "coco", Source("shards", str(path), caption="captions"), 64)
    assert np.array_equal(opened.owner, np.repeat(np.arange(51), 5))
    want = np.stack([decode_picture(members["jpg"], 64) for _, members in read_shard(path)])
    got, ids = opened.gather(np.arange(51)[::-1], 16)
    assert np.array_equal(got[::-1], want)
    assert np.array_equal(ids[::-1], TOKENIZE(captions_in(path), 16).numpy())


@needs_data
def test_the_webdataset_samples(tmp_path: Path) -> None:
    """One shard of pictures and labels, one of nothing but gzipped texts: read, counted, empty."""
    folder = SHARED / "webdataset_samples"
    opened = pack_here(tmp_path / "both", Source("shards", str(folder)), 16, "labels")
    assert opened.part_sizes.tolist() == [0, 90]
    samples = read_shard(folder / "sample.tgz")
    want = [members["cls"].decode() for _, members in samples]
    assert [opened.class_names[label] for label in opened.labels] == want
    alone = Source("shards", str(folder / "compressed.tar"))
    done = run_pack(write_request(tmp_path / "alone", alone, 16))
    assert done.returncode == 2
    assert "not one usable pair among 3 samples (compressed/0001: has no jpg" in done.stderr
