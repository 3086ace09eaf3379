"""Cells are submitted once the runs that tune them are over, by --follow and by the next launch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from slurm.launching import Study, write_text

NewStudy = Callable[[str], Study]
DATA = "data: {train: scenes, pairs: 64, store_px: 16"
EVALS = f"{DATA}, evals: {{held_out: {{path: scenes, task: retrieve, pairs: 64, seed: 2}}}}"
TUNE = """\
tune:
  lr: {over: [1e-5, 1e-4, 1e-3], at_samples: 64, per: [], extend: 0, transfer_samples: 0}
"""


def tuned_text(begin: str) -> str:
    text = write_text([0], more=TUNE, begin=begin).replace("samples: 64\n", "samples: 128\n", 1)
    return text.replace(DATA, EVALS)


@pytest.mark.slow
def test_follow_goes_on_from_tuning_to_the_cells(new_study: NewStudy) -> None:
    study = new_study(tuned_text("now+1hour"))
    for _ in range(2):
        study.launch()
        said = json.loads(study.launch("--status", "--json"))["runs"]
        assert Counter(run["state"] for run in said) == {"pending": 3, "blocked": 1}
        assert study.queued_runs() == Counter({"pretrain 0": 3})
    study.launch("--cancel")
    study.write(tuned_text("now"))
    study.launch("--follow")
    submitted = [run for batch in study.batches()[-1:] for run in batch.tasks]
    assert len(submitted) == 1 and "-128-" in submitted[0], "the tuned cell, last and alone"
    assert len(list(study.runs.glob("*/done.json"))) == 4
    assert study.launch().startswith("nothing to do: 4 done.")
