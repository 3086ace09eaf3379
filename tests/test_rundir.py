"""The run directory: atomic files, torn lines, claims."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clipa_scaling import claim, rundir
from clipa_scaling.rundir import RunDir


def test_write_json_replaces_whole_files_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    rundir.write_json(path, {"a": 1})
    rundir.write_json(path, {"a": 2})
    assert rundir.read_json(path) == {"a": 2}
    assert [item.name for item in tmp_path.iterdir()] == ["value.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        rundir.write_json(path, {"a": float("nan")})
    assert rundir.read_json(path) == {"a": 2}


def test_a_torn_last_line_is_dropped_and_rows_past_a_checkpoint_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for samples in (10, 20, 30):
        rundir.append_jsonl(path, {"samples": samples})
    with open(path, "a") as file:
        file.write('{"samples": 4')
    assert [row["samples"] for row in rundir.read_jsonl(path)] == [10, 20, 30]
    rundir.cut_jsonl(path, 20)
    assert path.read_text() == '{"samples": 10}\n{"samples": 20}\n'


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert run.last_checkpoint() is None
    for name in ("512", "1024", ".2048.77.abcd"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.last_checkpoint() == run.checkpoints / "1024"


def test_a_living_owner_keeps_a_run_and_a_dead_one_loses_it(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from clipa_scaling import claim\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "claim.take('run', here / 'attempts', here / 'state.json', {})\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None and owner.stdout.readline() == "held\n"
    with pytest.raises(claim.HeldError, match=rf"run: held by pid {owner.pid} on .*; wait for it"):
        claim.take("run", tmp_path / "attempts", tmp_path / "state.json", {})
    owner.kill()
    owner.communicate()
    taken = claim.take("run", tmp_path / "attempts", tmp_path / "state.json", {"threads": 1})
    assert taken.name == "2"
    assert json.loads((taken / "env.json").read_text())["claim"]["pid"] == os.getpid()


def test_an_owner_elsewhere_is_believed_until_its_heartbeat_is_old(tmp_path: Path) -> None:
    elsewhere = claim.Claim(host="another-host", pid=1, process_start=0.0)
    beat = tmp_path / "state.json"
    assert claim.is_alive(elsewhere, beat)
    beat.write_text("{}")
    assert claim.is_alive(elsewhere, beat)
    os.utime(beat, (0, 0))
    assert not claim.is_alive(elsewhere, beat)


def test_the_same_job_restarted_takes_its_run_over(tmp_path: Path) -> None:
    attempt = tmp_path / "attempts" / "1"
    attempt.mkdir(parents=True)
    owner = {"host": "another-host", "pid": 1, "process_start": 0.0}
    owner |= {"slurm_job": "77", "slurm_restart": 0}
    (attempt / "env.json").write_text(json.dumps({"claim": owner}))
    mine = claim.Claim("here", 2, 0.0, slurm_job="77", slurm_restart=1)
    claim.check_free("run", attempt, tmp_path / "state.json", mine)
    other = claim.Claim("here", 2, 0.0, slurm_job="78")
    with pytest.raises(claim.HeldError):
        claim.check_free("run", attempt, tmp_path / "state.json", other)


def test_states_are_read_from_the_folder(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert rundir.read_state(run).name == "planned"
    run.attempts.mkdir()
    (run.attempts / "1").mkdir()
    gone = {"host": __import__("socket").gethostname(), "pid": 2**22 - 1, "process_start": 0.0}
    rundir.write_json(run.attempts / "1" / "env.json", {"claim": gone})
    rundir.write_json(run.state, {"state": "running", "samples": 5, "attempt": 1})
    assert rundir.read_state(run).name == "lost"
    rundir.write_json(run.state, {"state": "stopped", "samples": 5, "attempt": 1})
    assert rundir.read_state(run).name == "stopped"
    rundir.write_json(run.done, {"samples": 9, "attempt": 1})
    assert rundir.read_state(run).name == "done"


def test_runs_go_where_they_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPA_RUNS", raising=False)
    assert rundir.find_runs(None) == tmp_path / "runs"
    monkeypatch.setenv("CLIPA_RUNS", str(tmp_path / "scratch"))
    assert rundir.find_runs(None) == tmp_path / "scratch"
    assert rundir.find_runs(str(tmp_path / "other")) == tmp_path / "other"
    (tmp_path / "clone" / "sweeps" / "deep").mkdir(parents=True)
    (tmp_path / "clone" / "pyproject.toml").touch()
    assert rundir.find_project(tmp_path / "clone" / "sweeps" / "deep") == tmp_path / "clone"
