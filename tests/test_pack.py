"""Packing: the same pack after any kill, losses counted and limited, every mistake one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from make_data import (
    ROOT,
    encode,
    make_picture,
    pack_command,
    run_pack,
    write_request,
    write_shards,
    write_tar,
)
from rich.console import Console

from clipa_scaling.rundir import read_json, write_json
from clipa_scaling.source import DataError, Source
from clipa_scaling.train import progress
from clipa_scaling.train.pack import pack
from clipa_scaling.train.packed import Pack
from clipa_scaling.train.part import PixelWriter
from clipa_scaling.train.pieces import load_request

SHARDS, PAIRS, PX = 6, 60, 32


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source("shards", write_shards(tmp_path_factory.mktemp("data"), SHARDS, PAIRS))


@pytest.fixture(scope="module")
def clean(source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a pack that nothing disturbed."""
    folder = write_request(tmp_path_factory.mktemp("packs") / "clean", source, PX, "labels")
    pack(folder, 1)
    return read_files(folder)


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def is_running(pid: int) -> bool:
    """False for a process that is gone or only waits to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_files_of_a_pack(clean: dict[str, bytes]) -> None:
    whats = ("ids.npy", "json", "owner.npy", "pixels.npy")
    parts = {f"{number:05d}.{what}" for number in range(SHARDS) for what in whats}
    assert set(clean) == parts | {"pack.json", "request.json"}


def test_a_finished_pack_is_left_alone(source: Source, tmp_path: Path) -> None:
    folder = write_request(tmp_path / "pack", source, PX, "labels")
    pack(folder, 2)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    gone = replace(source, where=source.where.replace("{", "gone{"))
    request = {**read_json(folder / "request.json"), "source": vars(gone)}
    write_json(folder / "request.json", request)
    before["request.json"] = (folder / "request.json").stat().st_mtime_ns
    pack(folder, 2)  # needs no shards any more
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("what", ["pixels.npy", "ids.npy", "owner.npy", "json"])
def test_a_lost_file_is_made_again(
    source: Source, clean: dict[str, bytes], tmp_path: Path, what: str
) -> None:
    folder = write_request(tmp_path / "pack", source, PX, "labels")
    for name, content in clean.items():
        (folder / name).write_bytes(content)
    (folder / f"00002.{what}").unlink()
    pack(folder, 2)
    assert read_files(folder) == clean


def test_a_part_of_other_data_is_made_again(
    source: Source, clean: dict[str, bytes], tmp_path: Path
) -> None:
    folder = write_request(tmp_path / "pack", source, PX, "labels")
    for name in ("00001.ids.npy", "00001.owner.npy", "00001.pixels.npy"):
        (folder / name).write_bytes(b"other data's")
    write_json(folder / "00001.json", {"fingerprint": "f" * 16})
    pack(folder, 2)
    assert read_files(folder) == clean


def test_kill_at_any_moment_then_again_gives_the_same_pack(
    source: Source, clean: dict[str, bytes], tmp_path: Path
) -> None:
    folder = write_request(tmp_path / "pack", source, PX, "labels")
    struck, workers = 0, set()
    for files in (2, 6, 10, 13, 18, 22):
        packer = subprocess.Popen(pack_command(folder), cwd=ROOT, stderr=subprocess.DEVNULL)
        while packer.poll() is None and len(os.listdir(folder)) < files:
            time.sleep(0.001)
        names = " ".join(os.listdir(folder))
        packer.send_signal(signal.SIGKILL)
        struck += packer.wait() == -signal.SIGKILL
        workers |= {int(pid) for pid in re.findall(r"npy\.(\d+)\.", names)}
    assert struck >= 3 and workers
    assert not (folder / "pack.json").exists() or struck == 6
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers), "workers outlive a killed packer"
    assert run_pack(folder).returncode == 0
    assert read_files(folder) == clean, "the same bytes, and no remains"


def test_two_packers_at_once(source: Source, clean: dict[str, bytes], tmp_path: Path) -> None:
    folder = write_request(tmp_path / "pack", source, PX, "labels")
    packers = [
        subprocess.Popen(pack_command(folder), cwd=ROOT, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [packer.wait(60) for packer in packers] == [0, 0]
    assert read_files(folder) == clean


def test_a_writer_whose_file_was_cleared_away_defers_to_the_finished_one(tmp_path: Path) -> None:
    path = tmp_path / "00000.pixels.npy"
    path.write_bytes(b"the other's, finished")
    with PixelWriter(path, 4) as pixels:
        pixels.temporary.unlink()
    assert path.read_bytes() == b"the other's, finished"
    with pytest.raises(FileNotFoundError), PixelWriter(tmp_path / "x.npy", 4) as pixels:
        pixels.temporary.unlink()


def write_damaged(folder: Path, pairs: int, broken: int) -> Source:
    """One shard whose first `broken` pictures are none, with one sample that has no picture."""
    members: list[tuple[str, bytes | None]] = [("about.json", b"{}")]
    for number in range(pairs):
        data = b"broken" if number < broken else encode(make_picture(8, 8, number))
        members += [(f"{number:03d}.png", data), (f"{number:03d}.cls", b"0")]
    return Source("shards", str(write_tar(folder / "d.tar", members)))


def test_lost_pairs_are_counted_and_listed(tmp_path: Path) -> None:
    source = write_damaged(tmp_path, 100, 1)
    folder = write_request(tmp_path / "pack", source, 8, "labels", max_unreadable=0.01)
    pack(folder, 1)
    head = read_json(folder / "pack.json")
    assert (head["pairs"], head["parts"]) == (99, [99])
    assert head["unreadable"] == {
        "count": 1,
        "first": [["000", "picture is no JPEG, PNG or WebP"]],
    }
    assert head["no_picture"]["count"] == 1
    assert Pack.open(folder).labels.tolist() == [0] * 99


def test_too_many_lost_pairs_are_an_error_with_the_way_out(tmp_path: Path) -> None:
    source = write_damaged(tmp_path, 100, 4)
    folder = write_request(tmp_path / "pack", source, 8, "labels", max_unreadable=0.03)
    done = run_pack(folder, 1)
    cause = "picture is no JPEG, PNG or WebP"
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"{source.where}: 4.00% of 100 pairs are unreadable, above max_unreadable=3.00% "
        f"(000: {cause}; 001: {cause}; 002: {cause}); repair them or raise data.max_unreadable"
    )
    assert not (folder / "pack.json").exists()
    write_json(
        folder / "request.json", {**read_json(folder / "request.json"), "max_unreadable": 0.04}
    )
    pack(folder, 1)
    assert Pack.open(folder).count == 96
    write_json(
        folder / "request.json", {**read_json(folder / "request.json"), "max_unreadable": 0.03}
    )
    with pytest.raises(DataError, match="above max_unreadable=3.00%"):
        pack(folder, 1)  # finished, but not under this limit


def test_nothing_usable_is_an_error_and_found_early(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipa_scaling.train.pack.HOPELESS", PAIRS)
    folder = write_request(tmp_path / "pack", replace(source, label="nmae"), PX, "labels")
    with pytest.raises(DataError) as caught:
        pack(folder, 1)
    assert "not one usable pair among" in str(caught.value)
    assert "000000: json has no field 'nmae'; 000001: " in str(caught.value)
    assert len(list(folder.glob("*.pixels.npy"))) < SHARDS


def test_a_torn_shard_is_one_line_and_keeps_the_other_parts(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "data", 3, 20)
    whole = (tmp_path / "data/00001.tar").read_bytes()
    (tmp_path / "data/00001.tar").write_bytes(whole[: len(whole) // 2])
    folder = write_request(tmp_path / "pack", Source("shards", pattern), PX, "labels")
    done = run_pack(folder, 1)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if "parts" not in line]
    assert line.startswith(f"{tmp_path}/data/00001.tar: torn or unreadable shard (")
    assert (folder / "00000.json").exists() and not (folder / "00001.json").exists()


def test_changed_data_is_not_packed_under_the_planned_name(tmp_path: Path) -> None:
    pattern = write_shards(tmp_path / "data", 2, 5)
    folder = write_request(tmp_path / "pack", Source("shards", pattern), PX, "labels")
    write_tar(tmp_path / "data/00001.tar", [("1.png", encode(make_picture(9, 9, 1)))])
    with pytest.raises(DataError, match="data changed since; launch again to plan"):
        pack(folder, 1)
    (tmp_path / "data/00001.tar").unlink()
    with pytest.raises(DataError, match="1 of 2 shards exist"):
        pack(folder, 1)


def test_mistakes_in_what_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no request\.json; launch the sweep"):
        load_request(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").write_bytes(encode(make_picture(9, 9, 1)))
    folder = write_request(tmp_path / "pack", Source("folder", str(tmp_path)), 8, "captions")
    with pytest.raises(DataError, match="class folders hold no captions; use shards"):
        pack(folder, 1)
    with pytest.raises(DataError, match=r"pack: is not packed; run python -m clipa_scaling\."):
        Pack.open(folder)


def test_progress_on_a_terminal_and_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.show_progress("demo", 3, 1) as advance:
        advance(1_000)
        advance(500)
    [line] = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"demo: 3/3 parts, 1,500 pairs, [\d,]+ pairs/s", line)
    monkeypatch.setattr(progress, "Console", lambda: Console(force_terminal=True, width=99))
    with progress.show_progress("demo", 2, 0) as advance:
        advance(7)
        advance(5)
    shown = capsys.readouterr().out
    assert "demo" in shown and "2/2" in shown and "12 pairs" in shown
