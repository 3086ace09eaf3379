"""TensorBoard and W&B show every row of a run once, whatever interrupts it, and never end it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from make_data import ROOT
from small_sweep import SMALL, kill_tree, wait_until, write_small

from clipa_scaling.extras import MissingPackage, check_loggers, is_installed
from clipa_scaling.plan import make_plan
from clipa_scaling.rundir import (
    DONE,
    FAILED,
    STOPPED,
    RunDir,
    make_run,
    read_json,
    read_jsonl,
    read_state,
)
from clipa_scaling.spec import RunSpec, spec_to_json
from clipa_scaling.sweepfile import load_sweep

pytestmark = pytest.mark.slow

LOGGED = SMALL.replace("  lr: 1e-3", "  lr: 1e-3\n  tensorboard: true\n  wandb: team/demo")
OFFLINE = {"WANDB_MODE": "offline"}
# Nobody answers there; the key has the form of one.
UNREACHABLE = {
    "WANDB_MODE": "online",
    "WANDB_BASE_URL": "http://127.0.0.1:9",
    "WANDB_API_KEY": "0" * 40,
    "WANDB_INIT_TIMEOUT": "1",
}
TRAIN = ["-m", "clipa_scaling.train.loop"]
BLOCKED = ["-c", "import sys; sys.modules['wandb'] = None; from clipa_scaling.train import loop; "]
BLOCKED[-1] += "sys.exit(loop.main())"

UNREPEATED = {"samples", "samples_per_second", "attempt"}  # the axis, and what attempts differ in
Steps = dict[str, list[tuple[int, float]]]  # (samples, value) of every name


def make_runs(folder: Path, small_study: Path) -> list[RunDir]:
    """The runs of a sweep file that asks for both loggers, on packs that are there."""
    runs = small_study.parent / "runs"
    plan = make_plan(load_sweep(write_small(folder, LOGGED), runs / ".packs"), runs)
    made = [RunDir(folder / "runs" / row.planned.id) for row in plan.rows]
    for run, row in zip(made, plan.rows, strict=True):
        make_run(run, spec_to_json(row.planned.spec))
    return made


def start(run: RunDir, environment: dict[str, str], program: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program, str(run.path)],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_rows(run: RunDir, process: subprocess.Popen[str], rows: int) -> None:
    assert wait_until(lambda: len(read_jsonl(run.metrics)) >= rows, process), "ended too soon"


def end(process: subprocess.Popen[str], code: int) -> None:
    said, _ = process.communicate(timeout=120)
    assert (process.returncode, said) == (code, "")


def log(run: RunDir, attempt: int) -> str:
    return (run.attempts / str(attempt) / "log").read_text()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, small_study: Path) -> RunDir:
    """A run stopped by SIGTERM, killed in its second attempt, finished in its third."""
    [run, _] = make_runs(tmp_path_factory.mktemp("logged"), small_study)
    first = start(run, UNREACHABLE, TRAIN)
    wait_for_rows(run, first, 3)
    first.send_signal(signal.SIGTERM)
    end(first, STOPPED)
    second = start(run, OFFLINE, TRAIN)
    wait_for_rows(run, second, 7)
    kill_tree(second)
    end(start(run, OFFLINE, TRAIN), DONE)
    return run


def expected(run: RunDir) -> Steps:
    """What the run's folder says."""
    found: Steps = {}
    for row in read_jsonl(run.metrics):
        for name in row.keys() - UNREPEATED:
            found.setdefault(name, []).append((row["samples"], row[name]))
    for row in read_json(run.evals)["rows"]:
        name = f"{row['set']}/{row['protocol']}/{row['name']}"
        found.setdefault(name, []).append((row["samples"], row["value"]))
    return found


def read_tensorboard(run: RunDir) -> Steps:
    """What TensorBoard itself reads from the event files, all in all."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    names = {*events.Tags()["scalars"]} - UNREPEATED
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in names}


def test_tensorboard_shows_every_row_once(interrupted: RunDir) -> None:
    files = sorted(path.name for path in (interrupted.path / "tensorboard").iterdir())
    assert files == [f"events.out.tfevents.000000000{attempt}" for attempt in (1, 2, 3)]
    shown, wanted = read_tensorboard(interrupted), expected(interrupted)
    assert shown.keys() == wanted.keys()
    for name, steps in wanted.items():
        assert [at for at, _ in shown[name]] == [at for at, _ in steps], name
        values = [value for _, value in steps]
        assert [value for _, value in shown[name]] == pytest.approx(values), name


def read_wandb(path: Path) -> Iterator[Any]:
    """The records of W&B's file: LevelDB's log format, in blocks of 32 KiB, after seven bytes."""
    protocol: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")  # has no types

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32_768 - at % 32_768 < 7:  # no room for a header: the block ends with zeros
            at += 32_768 - at % 32_768
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield protocol.Record.FromString(whole)
            whole = b""


def read_wandb_steps(run: RunDir) -> Steps:
    """The rows of all offline runs in a run's folder, all in all."""
    found: Steps = {}
    for path in sorted(run.path.glob("wandb/offline-run-*/*.wandb")):
        for record in read_wandb(path):
            values = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            assert values.get("_step") == values.get("samples")
            for name in values.keys() - UNREPEATED:
                if not name.startswith("_"):
                    found.setdefault(name, []).append((values["samples"], values[name]))
    return found


def test_wandb_has_every_row_once_under_the_runs_id(interrupted: RunDir) -> None:
    identity = interrupted.path.name
    files = sorted(interrupted.path.glob("wandb/offline-run-*/*.wandb"))
    assert [path.name for path in files] == [f"run-{identity}.wandb"] * 2, "the killed one is gone"
    for path in files:
        [about] = [record.run for record in read_wandb(path) if record.HasField("run")]
        assert (about.run_id, about.entity, about.project) == (identity, "team", "demo")
        config = {item.key: json.loads(item.value_json) for item in about.config.update}
        assert config["image_tokens"] == 4
    assert read_wandb_steps(interrupted) == expected(interrupted)


STOPPED_IN_AN_EVALUATION = """
import sys
from pathlib import Path
from clipa_scaling.rundir import RunDir, append_jsonl, read_json, write_json
from clipa_scaling.spec import spec_from_json
from clipa_scaling.train.loggers import Loggers
run = RunDir(Path(sys.argv[1]))
spec = spec_from_json(read_json(run.spec))
for attempt in (1, 2):
    loggers = Loggers(spec, run, attempt, 0 if attempt == 1 else 512)
    if attempt == 1:
        for samples in (256, 512):
            append_jsonl(run.metrics, {"samples": samples, "loss": 1.0})
            loggers.row({"samples": samples, "loss": 1.0})
    else:
        row = {"samples": 512, "set": "a", "protocol": "common", "name": "loss", "value": 0.5}
        write_json(run.evals, {"rows": [row]})
        loggers.evals([row])
        loggers.complete()
    loggers.close()
"""


def test_a_stop_within_an_evaluation_loses_nothing(tmp_path: Path, small_study: Path) -> None:
    """W&B takes nothing for samples it has a row of: the row waits for its evaluations."""
    [run, _] = make_runs(tmp_path, small_study)
    end(start(run, OFFLINE, ["-c", STOPPED_IN_AN_EVALUATION]), 0)
    for shown in (read_wandb_steps(run), read_tensorboard(run)):
        assert shown == {"loss": [(256, 1.0), (512, 1.0)], "a/common/loss": [(512, 0.5)]}


def test_no_network_is_a_warning_and_an_offline_run(interrupted: RunDir) -> None:
    [said] = [line for line in log(interrupted, 1).splitlines() if "wandb: " in line]
    assert said.startswith("wandb: CommError: ")
    assert said.endswith(f"to upload: wandb sync {interrupted.path}/wandb/offline-run-*")
    assert "wandb" not in log(interrupted, 3), "where all is well it says nothing"


def test_a_run_outlives_wandb(tmp_path: Path, small_study: Path) -> None:
    [_, run] = make_runs(tmp_path, small_study)
    process = start(run, OFFLINE, TRAIN)
    wait_for_rows(run, process, 1)
    children = psutil.Process(process.pid).children()
    [core] = [child for child in children if "wandb-core" in child.name()]
    core.kill()
    end(process, DONE)
    assert "the run goes on without it; metrics.jsonl has every row" in log(run, 1)


def test_a_missing_package_fails_the_run_with_one_line(tmp_path: Path, small_study: Path) -> None:
    [run, _] = make_runs(tmp_path, small_study)
    end(start(run, OFFLINE, BLOCKED), FAILED)
    assert read_state(run).reason == (
        "MissingPackage: wandb is asked for and not installed; "
        "pip install 'clipa_scaling[loggers]', or remove wandb from the sweep file"
    )
    assert read_jsonl(run.metrics) == []


def test_a_missing_package_is_known_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, small_study: Path, tmp_path: Path
) -> None:
    sweep = write_small(tmp_path, LOGGED)
    runs = small_study.parent / "runs"
    specs: list[RunSpec] = [
        row.planned.spec for row in make_plan(load_sweep(sweep, runs / ".packs"), runs).rows
    ]
    check_loggers(specs)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingPackage, match=r"^tensorboard is asked for and not installed; pip"):
        check_loggers(specs)


def test_a_folder_is_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "left_by_a_logger").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert is_installed("pytest") and not is_installed("left_by_a_logger")


def test_nothing_is_imported_that_is_not_asked_for() -> None:
    program = "import sys; import clipa_scaling.train.loggers, clipa_scaling.extras; "
    program += "print({'torch', 'tensorboard', 'wandb'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n"
