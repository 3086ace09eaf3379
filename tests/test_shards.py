"""Samples out of tars and folders: what is read, what is skipped and why, what is an error."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from make_data import SHARED, encode, make_picture, write_tar
from PIL import Image

from clipa_scaling.source import DataError, PictureFile, Source
from clipa_scaling.train.shards import (
    Example,
    Needs,
    Skipped,
    Unreadable,
    decode_picture,
    make_example,
    read_files,
    read_shard,
)

PNG = encode(make_picture(20, 16, 0))
SHARDS = Source("shards", "nowhere")


def example(
    members: dict[str, bytes], source: Source = SHARDS, needs: Needs = "captions"
) -> Example | Skipped:
    return make_example("k", members, source, 16, needs)


def reason(*args: object, **options: object) -> str:
    item = example(*args, **options)  # type: ignore[arg-type]
    assert isinstance(item, Skipped) and item.key == "k"
    return item.reason


def test_samples_are_grouped_as_webdataset_does(tmp_path: Path) -> None:
    members = [
        ("set/", None),
        ("set/1.png", PNG),
        ("set/1.txt", b"one"),
        ("set/1.depth.npy", b"unknown"),
        ("set/1.JSON", b"{}"),
        ("set/.DS_Store", b"hidden"),
        ("set/noending", b"?"),
        ("v1.0/2.txt", b"other folder, same name as none"),
        ("./3.txt.gz", gzip.compress(b"three")),
        ("4.cls", b"end of a shard"),
        ("4.cls", b"and the same key again"),
    ]
    path = write_tar(tmp_path / "x.tar", members)
    assert [(key, sorted(found)) for key, found in read_shard(path)] == [
        ("set/1", ["json", "png", "txt"]),
        ("v1.0/2", ["txt"]),
        ("./3", ["txt.gz"]),
        ("4", ["cls"]),
        ("4", ["cls"]),
    ]


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tgz", "w:gz"), ("gz.tar", "w:gz")])
def test_plain_and_gzipped_tars(tmp_path: Path, name: str, mode: str) -> None:
    """By content: a gzipped tar may be called .tar."""
    long = "d" * 90 + "/" + "n" * 90  # longer than a plain header holds
    path = write_tar(tmp_path / name, [("1.png", PNG), (f"{long}.txt", b"\xc3\xa9" * 2000)], mode)
    assert list(read_shard(path)) == [("1", {"png": PNG}), (long, {"txt": b"\xc3\xa9" * 2000})]


def test_a_tar_torn_anywhere_is_an_error(tmp_path: Path) -> None:
    members = [(f"{number}.png", encode(make_picture(9, 9, number))) for number in range(3)]
    whole = write_tar(tmp_path / "x.tar", members).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    assert len(list(read_shard(tmp_path / "x.tar"))) == 3
    torn = tmp_path / "torn.tar"
    for size in sorted({*range(0, end + 512, 128), 1, 511, 513, end, end + 511}):
        if size < end + 512:
            torn.write_bytes(whole[:size])
            with pytest.raises(DataError) as caught:
                list(read_shard(torn))
            assert str(caught.value).startswith(f"{torn}: torn or unreadable shard (")
            assert str(caught.value).endswith("; copy it again or take it out of the data")
            assert "\n" not in str(caught.value)


def test_a_broken_header_does_not_end_a_tar_quietly(tmp_path: Path) -> None:
    whole = bytearray(
        write_tar(tmp_path / "x.tar", [("1.txt", b"a"), ("2.txt", b"b")]).read_bytes()
    )
    whole[1024 + 10] ^= 0xFF
    (tmp_path / "x.tar").write_bytes(whole)
    with pytest.raises(DataError, match="torn or unreadable"):
        list(read_shard(tmp_path / "x.tar"))


def test_a_torn_or_false_gzip_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(50_000)
    whole = write_tar(tmp_path / "x.tgz", [("1.png", noise), ("2.png", noise)], "w:gz").read_bytes()
    torn = tmp_path / "torn.tgz"
    for share in (0.01, 0.3, 0.6, 0.9):
        torn.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match="torn.tgz: torn or unreadable shard"):
            list(read_shard(torn))
    for content in (b"\x1f\x8bnot gzip at all", b"no tar " * 200, whole[:500] + whole[700:]):
        torn.write_bytes(content)
        with pytest.raises(DataError, match="torn.tgz: torn or unreadable shard"):
            list(read_shard(torn))
    with pytest.raises(DataError, match="No such file"):
        list(read_shard(tmp_path / "none.tar"))


@pytest.mark.parametrize(
    ("members", "field", "captions"),
    [
        ({"txt": b"a dog"}, None, ("a dog",)),
        ({"txt": "chó".encode(), "json": b'{"caption": "no"}'}, None, ("chó",)),
        ({"txt.gz": gzip.compress(b"packed")}, None, ("packed",)),
        ({"json": b'{"caption": "from json"}'}, None, ("from json",)),
        ({"txt": b"short", "json": b'{"long": "a long one"}'}, "long", ("a long one",)),
        ({"json": b'{"c": ["one", " ", "two"]}'}, "c", ("one", "two")),
        ({"json.gz": gzip.compress(b'{"c": ["one"]}')}, "c", ("one",)),
    ],
)
def test_captions(members: dict[str, bytes], field: str | None, captions: tuple[str, ...]) -> None:
    item = example({"png": PNG, **members}, Source("shards", "", caption=field))
    assert isinstance(item, Example)
    assert item.captions == captions and item.label is None


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({}, "has neither a txt nor a json member"),
        ({"txt": b" \n"}, "caption is empty"),
        ({"txt": b"\xff\xfe"}, "txt is not UTF-8"),
        ({"txt.gz": b"no gzip"}, "txt.gz: Not a gzipped file"),
        ({"txt.gz": gzip.compress(b"x" * 99)[:-9]}, "txt.gz: "),
        ({"json": b"{"}, "json: "),
        ({"json": b"[" * 100_000}, "json: "),
        ({"json": b"[1]"}, "json has no field 'caption'"),
        ({"json": b'{"caption": null}'}, "json has no field 'caption'"),
        ({"json": b'{"caption": []}'}, "caption is empty"),
        ({"json": b'{"caption": 5}'}, "caption is 5, neither a string nor a list of strings"),
        ({"json": b'{"caption": ["a", 5]}'}, "caption is ['a', 5], neither"),
    ],
)
def test_a_pair_without_caption_is_skipped_with_its_reason(
    members: dict[str, bytes], why: str
) -> None:
    assert reason({"png": PNG, **members}).startswith(why)


def test_labels_need_no_captions() -> None:
    for members, source, label in [
        ({"cls": b"7\n"}, SHARDS, "7"),
        ({"cls": b"7", "json": b'{"name": "dog"}'}, Source("shards", "", label="name"), "dog"),
        ({"json": b'{"name": 12}'}, Source("shards", "", label="name"), "12"),
    ]:
        item = example({"png": PNG, **members}, source, needs="labels")
        assert isinstance(item, Example)
        assert (item.label, item.captions) == (label, ())
    assert reason({"png": PNG, "cls": b" "}, needs="labels") == "label is ' ', no class name"
    assert reason({"png": PNG}, needs="labels") == "has no cls member"
    assert "label is ['a']" in reason(
        {"png": PNG, "json": b'{"l": ["a"]}'}, Source("shards", "", label="l"), "labels"
    )


def test_a_sample_without_picture_is_no_lost_pair() -> None:
    item = example({"txt": b"only words"})
    assert isinstance(item, Skipped) and not item.has_picture
    item = example({"png": b"no picture", "txt": b"words"})
    assert isinstance(item, Skipped) and item.has_picture
    assert item.reason == "picture is no JPEG, PNG or WebP"


def test_class_folders_are_samples_with_their_class(tmp_path: Path) -> None:
    (tmp_path / "a dog").mkdir()
    (tmp_path / "a dog" / "1.x.PNG").write_bytes(PNG)
    [(key, members)] = read_files(tmp_path, [PictureFile("a dog/1.x.PNG", 1, "a dog")])
    item = make_example(key, members, Source("folder", str(tmp_path)), 16, "labels")
    assert isinstance(item, Example)
    assert (item.key, item.label) == ("a dog/1.x.PNG", "a dog")
    with pytest.raises(DataError, match="a dog/2.png: cannot be read"):
        list(read_files(tmp_path, [PictureFile("a dog/2.png", 1, "a dog")]))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_at_its_size_is_kept_bit_for_bit(kind: str) -> None:
    for width, height in ((32, 32), (33, 32), (32, 57)):
        picture = make_picture(width, height, 1)
        left, top = (width - 32) // 2, (height - 32) // 2
        data = encode(picture, kind, lossless=True)
        assert np.array_equal(decode_picture(data, 32), picture[top : top + 32, left : left + 32])


def test_pictures_become_centred_antialiased_squares() -> None:
    """Stripes one pixel wide turn grey when shrunk, and a wide picture loses its sides alone."""
    stripes = np.zeros((200, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    stripes[:, :90] = stripes[:, 310:] = (255, 0, 0)
    small = decode_picture(encode(stripes), 20).astype(int)
    assert small.shape == (20, 20, 3)
    assert abs(small[:, 1:-1] - 128).max() < 12
    large = decode_picture(encode(make_picture(16, 20, 2)), 64)
    assert large.shape == (64, 64, 3) and large.dtype == np.uint8


@pytest.mark.parametrize("px", [24, 50, 64, 150])
def test_scaled_jpeg_decoding_stays_near_the_full_one(px: int) -> None:
    picture = make_picture(640, 480, 3)
    data = encode(picture, "JPEG", quality=95)
    full = Image.open(io.BytesIO(data)).convert("RGB").crop((80, 0, 560, 480))
    want = np.asarray(full.resize((px, px), Image.Resampling.BICUBIC)).astype(int)
    assert abs(decode_picture(data, px) - want).mean() < 1.5


def test_every_colour_mode_becomes_rgb() -> None:
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "1"):
        content = io.BytesIO()
        kind = "JPEG" if mode == "CMYK" else "PNG"
        Image.fromarray(make_picture(40, 40, 4)).convert(mode).save(content, kind)
        assert decode_picture(content.getvalue(), 16).shape == (16, 16, 3), mode


def test_broken_pictures_are_unreadable_with_the_same_words_each_time() -> None:
    """Any bytes, any tear: a picture or Unreadable, never another error, and no memory address."""
    rng = np.random.default_rng(5)
    outcomes = set()
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = encode(make_picture(40, 30, 6), kind)
        for _ in range(150):
            data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            data[rng.integers(len(data))] ^= int(rng.integers(1, 256))
            said = []
            for _ in range(2):
                try:
                    said.append(str(decode_picture(bytes(data), 16).sum()))
                except Unreadable as error:
                    said.append(str(error))
            assert said[0] == said[1]
            outcomes.add(said[0].isdigit())
    assert outcomes == {True, False}


def test_formats_that_run_programs_are_not_opened() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    with pytest.raises(Unreadable, match="no JPEG, PNG or WebP"):
        decode_picture(eps, 16)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which is not here")
def test_the_real_shards_are_read() -> None:
    counts = {
        "emoji/train-00000.tar": 2_500,
        "emoji/train-00001.tar": 2_500,
        "emoji/train-00002.tar": 2_500,
        "emoji/train-00003.tar": 1_638,
        "emoji/noto-00000.tar": 1_183,
        "emoji/novel-00000.tar": 1_055,
        "coco_mini/coco-00000.tar": 51,
        "webdataset_samples/sample.tgz": 90,
        "webdataset_samples/compressed.tar": 3,
    }
    assert {name: sum(1 for _ in read_shard(SHARED / name)) for name in counts} == counts
    assert sum(counts[name] for name in counts if name.startswith("emoji")) == 11_376
    [first, *_] = read_shard(SHARED / "webdataset_samples/compressed.tar")
    assert first[0] == "compressed/0001" and list(first[1]) == ["txt.gz"]
    with tarfile.open(SHARED / "coco_mini/coco-00000.tar") as tar:
        names = [name for name in tar.getnames() if name.endswith(".json")]
        texts = [json.load(tar.extractfile(name))["captions"] for name in names]  # type: ignore[arg-type]
    source = Source("shards", "", caption="captions")
    for (key, members), captions in zip(
        read_shard(SHARED / "coco_mini/coco-00000.tar"), texts, strict=True
    ):
        item = make_example(key, members, source, 64, "captions")
        assert isinstance(item, Example) and item.captions == tuple(captions)
        assert len(item.captions) == 5
