"""The recipes' twins for two cores: a small cut of each, all run in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from make_data import ROOT

from clipa_scaling.collect import load_tables
from clipa_scaling.yamlfile import load_document

# What is left of a twin's axes: a cell or two; and of its last stages'.
CUTS: dict[str, dict[str, list[Any]]] = {
    "tiny_reductions": {
        "model": ["T32/8"],
        "image_tokens": [4, 18, 9],
        "image_reduction": ["random", "grid", "block"],
    },
    "tiny_text_tokens": {"model": ["T32/8"], "text_reduction": ["syntax"], "text_tokens": [8]},
    "tiny_limited": {
        "model": ["T64/8"],
        "image_tokens": [9],
        "text_tokens": [8],
    },
    "tiny_finetune_masking": {"model": ["T32/8"]},
    "tiny_finetune_batch": {},
    "tiny_convnext": {"model": ["ConvNeXt-A/16"], "image_tokens": [4]},
    "tiny_clipa_v2": {"model": ["T64/8"], "image_tokens": [9]},
    "tiny_law": {"model": ["T32/8"], "image_tokens": [4]},
}
STAGE_CUTS: dict[str, dict[str, list[Any]]] = {
    "tiny_finetune_masking": {"image_reduction": ["random"], "image_tokens": [36, 18]},
    "tiny_finetune_batch": {"batch_size": [64, 16], "lr": [5e-4, 1.25e-4]},
    "tiny_law": {"samples": [160, 320]},
}
# Stage, model, tokens seen of the image and of the text, samples: from the tensors of training.
SEEN = {
    "tiny_reductions": [
        *[("finetune", "T32/8", 36, 16, 64)] * 3,
        *[("pretrain", "T32/8", tokens, 16, 128) for tokens in (4, 9, 18)],
    ],
    "tiny_text_tokens": [("finetune", "T32/8", 36, 24, 64), ("pretrain", "T32/8", 9, 8, 128)],
    "tiny_limited": [
        ("finetune", "T64/8", 36, 16, 64),
        ("pretrain", "T64/8", 9, 8, 128),
    ],
    "tiny_finetune_masking": [
        ("finetune", "T32/8", 18, 16, 64),
        ("finetune", "T32/8", 36, 16, 64),
        ("pretrain", "T32/8", 9, 16, 128),
    ],
    "tiny_finetune_batch": [
        *[("finetune", "T64/8", 36, 16, 64)] * 2,
        ("pretrain", "T64/8", 4, 16, 128),
    ],
    "tiny_convnext": [
        ("finetune", "ConvNeXt-A/16", 16, 16, 64),
        ("pretrain", "ConvNeXt-A/16", 4, 16, 128),
    ],
    "tiny_clipa_v2": [
        ("ft48", "T64/8", 21, 16, 64),
        ("ft64", "T64/8", 38, 16, 64),
        ("pretrain", "T64/8", 9, 8, 128),
    ],
    "tiny_law": [
        ("decay", "T32/8", 4, 16, 160),
        ("decay", "T32/8", 4, 16, 320),
        ("pretrain", "T32/8", 4, 16, 256),
    ],
}
RUN = """\
import sys
from clipa_scaling.sweep import main
places = ["--cluster", "inline", "--runs", "runs", "--results", "results"]
sys.exit(max(main([name, *places]) for name in sys.argv[1:]))
"""


def cut(name: str) -> str:
    """A twin with few and short runs, all else as it is; JSON is YAML too."""
    values = json.loads(json.dumps(load_document(ROOT / f"sweeps/{name}.yaml").values))
    evals = values["data"]["evals"]
    evals["scenes"]["prompts"] = evals["scenes"]["prompts"][:1]
    for data in (values["data"], *evals.values()):
        data["pairs"] = 320
    values["seeds"] = [0]
    samples = 256 if name == "tiny_law" else 128
    values["fixed"] |= {"samples": samples, "warmup_samples": 0, "batch_size": 32}
    for key, listed in CUTS[name].items():
        assert all(value in values["axes"][key] for value in listed), "still a part of the twin"
        values["axes"][key] = listed
    for stage in values["stages"].values():
        if stage["kind"] == "finetune":
            stage["set"] |= {"samples": 64, "warmup_samples": 0}
        stage.get("axes", {}).update(STAGE_CUTS.get(name, {}))
    return json.dumps(values)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the results of all cuts."""
    folder = tmp_path_factory.mktemp("twins")
    names = [f"{name}.yaml" for name in CUTS]
    for name in names:
        (folder / name).write_text(cut(name.removesuffix(".yaml")))
    done = subprocess.run(
        [sys.executable, "-c", RUN, *names], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_of_each_twin_runs_to_its_end_on_the_tokens_declared(name: str, twins: Path) -> None:
    tables = load_tables(twins / "results" / name)
    runs = tables["runs"]
    assert (runs["state"] == "done").all()
    columns = ["stage", "model", "image_tokens_seen", "text_tokens_seen", "samples"]
    assert sorted(runs[columns].itertuples(index=False, name=None)) == SEEN[name]
    last = tables["evals"].groupby(["run", "name"])["samples"].max().unstack()
    samples = runs.set_index("run")["samples"]
    assert last["accuracy"].equals(last["text_to_image_r1"])
    assert (last["accuracy"] == samples.reindex(last.index)).all(), "evaluated at the end"
    check_chain(name, runs, tables["evals"])


def check_chain(name: str, runs: pd.DataFrame, evals: pd.DataFrame) -> None:
    """Each child began from its parent."""
    by_run = runs.set_index("run")
    children = by_run[by_run["stage"] != "pretrain"]
    assert len(children) > 0 and by_run.loc[children["parent"], "state"].eq("done").all()
    above = {"ft64": "ft48"}
    for stage, parent in zip(children["stage"], children["parent"], strict=True):
        assert by_run.loc[str(parent), "stage"] == above.get(str(stage), "pretrain")
    begun = set(evals.loc[evals["samples"] == 0, "run"])
    if name == "tiny_law":
        each = by_run["flops_per_sample"].iloc[0]
        branches = children.sort_values("samples")["train_flops"]
        assert branches.tolist() == [3 * each * 32, 3 * each * 64], "their last fifth alone"
    else:
        lengths = by_run[["eval_image_tokens", "text_tokens"]]
        before = lengths.loc[children["parent"]].set_axis(children.index)
        changed = (before != lengths.loc[children.index]).any(axis=1)
        has_table = ~children["model"].str.startswith("ConvNeXt")
        assert begun == set(children.index[changed & has_table]), (
            "zero-shot first, where a length changes"
        )
        assert changed.all() or name == "tiny_reductions", "masks have every position's weights"
