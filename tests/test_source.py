"""A data set by name: which files a pattern stands for, and a fingerprint that follows the data."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from make_data import ROOT

from clipa_scaling.source import (
    SCENES_VERSION,
    DataError,
    Source,
    expand_braces,
    fingerprint,
    list_pictures,
    list_shards,
)


def touch(folder: Path, *names: str) -> Path:
    for size, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return folder


def shards(where: Path | str) -> Source:
    return Source("shards", str(where))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x.tar", ["x.tar"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{0..2}", ["0", "1", "2"]),
        ("{00..100..}", None),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{3..1}", None),
        ("{abc}", None),
        ("{0..1", None),
        ("{a,{0..1}}", ["a", "0", "a", "1"]),
    ],
)
def test_braces(pattern: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(DataError, match=r"allowed: a rising range|without its partner"):
            expand_braces(pattern)
    else:
        assert expand_braces(pattern) == names


def test_every_way_to_name_shards(tmp_path: Path) -> None:
    touch(tmp_path, "00000.tar", "00001.tar", "b.tgz", "c.tar.gz", "notes.txt", ".hidden.tar")
    for pattern, names in {
        "{00000..00001}.tar": ["00000.tar", "00001.tar"],
        "0000{0,1}.tar": ["00000.tar", "00001.tar"],
        "*.tar": ["00000.tar", "00001.tar"],
        "{*.tgz,0*.tar}": ["00000.tar", "00001.tar", "b.tgz"],
        "00001.tar": ["00001.tar"],
        "{00001,00001}.tar": ["00001.tar"],
        "": ["00000.tar", "00001.tar", "b.tgz", "c.tar.gz"],
    }.items():
        assert [path.name for path in list_shards(f"{tmp_path}/{pattern}")] == names, pattern


def test_a_real_name_may_look_like_a_glob(tmp_path: Path) -> None:
    touch(tmp_path, "set[1].tar", "set1.tar")
    assert [path.name for path in list_shards(f"{tmp_path}/set[1].tar")] == ["set[1].tar"]


def test_missing_shards_are_counted_and_the_first_named(tmp_path: Path) -> None:
    touch(tmp_path, "00000.tar", "00002.tar")
    pattern = f"{tmp_path}/{{00000..00003}}.tar"
    with pytest.raises(DataError) as caught:
        list_shards(pattern)
    assert str(caught.value) == (
        f"{pattern}: 2 of 4 shards exist, the first missing is {tmp_path}/00001.tar; "
        "correct the pattern or bring the missing shards"
    )


@pytest.mark.parametrize("pattern", ["none/*.tar", "none.tar", "empty"])
def test_nothing_there_is_an_error(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="0 of 1 shards exist"):
        list_shards(f"{tmp_path}/{pattern}")


def test_fingerprint_follows_the_data_and_not_its_place(tmp_path: Path) -> None:
    here = touch(tmp_path / "here", "a.tar", "b.tar")
    base = fingerprint(shards(here), 64)
    there = shutil.copytree(here, tmp_path / "there")
    assert len(base) == 16 and int(base, 16) >= 0
    same = [shards(there), shards(f"{here}/{{b,a}}.tar"), shards(f"{here}/?.tar")]
    assert {fingerprint(source, 64) for source in same} == {base}
    other = [
        fingerprint(shards(here), 65),
        fingerprint(shards(here / "a.tar"), 64),
        fingerprint(replace(shards(here), caption="c"), 64),
        fingerprint(replace(shards(here), label="c"), 64),
        fingerprint(replace(shards(here), id="mine"), 64),
    ]
    (there / "a.tar").write_bytes(b"longer")
    other.append(fingerprint(shards(there), 64))
    (there / "a.tar").rename(there / "c.tar")
    other.append(fingerprint(shards(there), 64))
    assert len({base, *other}) == 1 + len(other)


def test_shards_are_ordered_as_the_fingerprint_orders_them(tmp_path: Path) -> None:
    """Else one fingerprint could stand for two orders, and so for two streams of samples."""
    touch(tmp_path, "y/0.tar", "x/1.tar", "x/0.tar")
    forward = list_shards(f"{tmp_path}/{{x,y}}/*.tar")
    assert forward == list_shards(f"{tmp_path}/{{y,x}}/*.tar")
    assert [path.name for path in forward] == ["0.tar", "0.tar", "1.tar"]
    touch(tmp_path, "moved/y/0.tar", "moved/x/1.tar", "moved/x/0.tar")
    (tmp_path / "moved/x").rename(tmp_path / "moved/z")
    moved = list_shards(f"{tmp_path}/moved/{{y,z}}/*.tar")
    assert [path.stat().st_size for path in moved] == [path.stat().st_size for path in forward]


def test_a_declared_id_needs_no_files() -> None:
    source = replace(shards("/nowhere/{0..9}.tar"), id="laion400m-2021")
    assert fingerprint(source, 64) == fingerprint(replace(source, where="/elsewhere"), 64)
    assert fingerprint(source, 64) != fingerprint(replace(source, id="laion400m"), 64)


def test_scenes_are_named_by_version_seed_and_pairs() -> None:
    scenes = Source("scenes", "scenes", pairs=8, seed=3)
    frozen = f'["scenes", [{SCENES_VERSION}, 3, 8], null, null, 48]'
    assert fingerprint(scenes, 48) == hashlib.sha256(frozen.encode()).hexdigest()[:16]
    others = [replace(scenes, pairs=9), replace(scenes, seed=4)]
    assert len({fingerprint(source, 48) for source in [scenes, *others]}) == 3


def test_scenes_version_is_the_generators() -> None:
    scenes = pytest.importorskip("clipa_scaling.train.scenes", reason="no generator here")
    assert scenes.VERSION == SCENES_VERSION


def test_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.JPEG", "cat/2.png", "cat/1.webp", "cat/.x.png", "cat/a.txt", "top.png")
    touch(tmp_path, ".cache/1.png", "cat/deep/9.png")
    names = [name for name, _ in list_pictures(str(tmp_path))]
    assert names == ["cat/1.webp", "cat/2.png", "dog/1.JPEG"]
    base = fingerprint(Source("folder", str(tmp_path)), 64)
    (tmp_path / "cat/2.png").rename(tmp_path / "dog/2.png")
    assert fingerprint(Source("folder", str(tmp_path)), 64) != base


def test_an_empty_or_missing_class_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither shards nor pictures; allowed: "):
        list_pictures(str(tmp_path))
    with pytest.raises(DataError, match="no such folder; correct the path"):
        list_pictures(str(tmp_path / "none"))


def test_naming_data_imports_nothing_heavy() -> None:
    code = (
        "import sys, clipa_scaling.source\n"
        "print(sorted({'torch', 'cv2', 'PIL', 'open_clip', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
