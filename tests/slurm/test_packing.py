"""Packing is a job too: an array over the parts, before the runs that need them."""

from __future__ import annotations

from collections.abc import Callable

from make_data import encode, make_picture, write_shards, write_tar

from clipa_scaling import rundir
from slurm.launching import Study, write_text

NewStudy = Callable[[str], Study]


def write_sharded(where: str) -> str:
    """A sweep file of one run on shards, packed by three jobs."""
    text = write_text([0], slurm="pack_tasks: 3", begin="now")
    return text.replace(
        "{train: scenes, pairs: 64, store_px: 16}", f'{{train: "{where}", store_px: 16}}'
    )


def test_shares_of_a_packing_make_one_pack_and_then_the_run_starts(new_study: NewStudy) -> None:
    study = new_study(write_text([0]))
    study.write(write_sharded(write_shards(study.sweep.parent / "data", shards=5, pairs=20)))
    said = study.launch("--follow")
    assert "submitted packing as array" in said and said.count("submitted") == 2
    packing, runs = study.batches()
    assert packing.tasks == ("share 0", "share 1", "share 2") and runs.after == (packing.job,)
    [folder] = packing.packs
    head = rundir.read_json(study.runs / ".packs" / folder.rpartition("/")[2] / "pack.json")
    assert head["parts"] == [20] * 5, "every part once, whoever made it"
    assert study.states() == {"done": 1}


def test_bad_data_is_told_once_and_no_run_starts(new_study: NewStudy) -> None:
    study = new_study(write_text([0]))
    data = study.sweep.parent / "data"
    data.mkdir()
    picture = encode(make_picture(32, 32, 0))
    write_tar(data / "00000.tar", [("0.png", picture[:40]), ("0.txt", b"a torn picture")])
    study.write(write_sharded(f"{data}/00000.tar"))
    said = study.launch("--follow", code=1)
    told = [line for line in said.splitlines() if line.startswith("packing failed: ")]
    assert len(told) == 1 and "not one usable pair" in told[0] and "study.yaml" not in told[0]
    [run] = study.status().values()
    assert run["state"] == "cancelled" and run["reason"] == told[0]
    assert not list(study.runs.glob("pretrain-*/attempts"))
    write_shards(data, shards=1, pairs=64)
    assert study.launch("--follow").count("submitted") == 2
    assert study.states() == {"done": 1}
