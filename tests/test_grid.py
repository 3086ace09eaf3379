"""A sweep file's cells, and what it says of a wrong one."""

from pathlib import Path
from typing import Any

import pytest

from clipa_scaling.grid import Grid
from clipa_scaling.sweepfile import Sweep, load_sweep
from clipa_scaling.yamlfile import SweepError

HEAD = """\
name: test
data: {train: scenes, pairs: 1000, store_px: 32}
fixed: {samples: 1024, batch_size: 64, lr: 1e-3, text_tokens: 16}
"""


def load(tmp_path: Path, text: str) -> Sweep:
    path = tmp_path / "test.yaml"
    path.write_text(text)
    return load_sweep(path, tmp_path / "packs")


def grid(tmp_path: Path, text: str) -> Grid:
    return load(tmp_path, HEAD + text).grid


def cells(grid: Grid, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(run.spec, name) for name in names) for run in grid.runs]


def test_axes_make_the_product_in_the_files_order(tmp_path: Path) -> None:
    made = grid(tmp_path, "axes: {model: [T32/8, T64/8], image_tokens: [4, 9]}\nseeds: [0, 1]\n")
    want = [(m, t, s) for m in ("T32/8", "T64/8") for t in (4, 9) for s in (0, 1)]
    assert cells(made, "model", "image_tokens", "seed") == want


def test_zip_moves_fields_together(tmp_path: Path) -> None:
    made = grid(
        tmp_path,
        "axes: {model: [T32/8, T64/8], image_tokens: [4, 9], lr: [1e-3, 2e-3]}\n"
        "zip: [[model, lr]]\n",
    )
    want = [("T32/8", 4, 1e-3), ("T32/8", 9, 1e-3), ("T64/8", 4, 2e-3), ("T64/8", 9, 2e-3)]
    assert cells(made, "model", "image_tokens", "lr") == want


def test_rules_match_by_value_list_and_range_and_later_ones_win(tmp_path: Path) -> None:
    made = grid(
        tmp_path,
        "axes: {model: [T32/8, T64/8], image_tokens: [4, 9, 16]}\n"
        "rules:\n"
        "  - {when: {image_tokens: {min: 9}}, set: {lr: 2e-3}}\n"
        "  - {when: {model: [T64/8], image_tokens: 16}, set: {lr: 3e-3}}\n",
    )
    assert [lr for (lr,) in cells(made, "lr")] == [1e-3, 2e-3, 2e-3, 1e-3, 2e-3, 3e-3]


def test_excluded_cells_keep_their_reason_and_need_not_be_possible(tmp_path: Path) -> None:
    made = grid(
        tmp_path,
        "axes: {model: [T32/8], image_tokens: [4, 37]}\n"
        "exclude: [{when: {image_tokens: 37}, because: no square}]\n",
    )
    assert len(made.runs) == 1
    assert (made.excluded[0].values["image_tokens"], made.excluded[0].reason) == (37, "no square")


def test_include_adds_cells_outside_the_product(tmp_path: Path) -> None:
    made = grid(
        tmp_path,
        "axes: {model: [T32/8], image_tokens: [4]}\n"
        "include: [{model: T128/8, image_tokens: 16, lr: 5e-4}]\n",
    )
    assert cells(made, "model", "image_tokens", "lr")[1] == ("T128/8", 16, 5e-4)


def test_equal_cells_are_one_run(tmp_path: Path) -> None:
    made = grid(
        tmp_path,
        "axes: {model: [T32/8], image_tokens: [4]}\ninclude: [{model: T32/8, image_tokens: 4}]\n",
    )
    assert len(made.runs) == 1


def test_samples_can_come_from_a_budget_of_flops(tmp_path: Path) -> None:
    text = HEAD.replace("samples: 1024, ", "")
    made = load(
        tmp_path,
        text + "axes: {samples: {train_flops: [1e12]}, model: [T32/8, T64/8], image_tokens: [4]}\n",
    )
    small, large = (run.spec.samples for run in made.grid.runs)
    assert small > large
    from clipa_scaling.plan import price_run

    for run in made.grid.runs:
        assert price_run(run.spec, made).train_flops == pytest.approx(1e12, rel=0.05)


def test_stages_follow_their_parent_with_their_own_axes_and_relative_values(tmp_path: Path) -> None:
    made = grid(
        tmp_path,
        "axes: {model: [T32/8], image_tokens: [64, 16]}\n"
        "exclude: [{when: {image_tokens: 16}, because: short}]\n"
        "stages:\n"
        "  ft:\n"
        "    kind: finetune\n"
        "    parent: pretrain\n"
        "    set: {samples: 512, image_tokens: {parent: 0.5}}\n"
        "    axes: {lr: [1e-4, 2e-4]}\n",
    )
    parent, *children = made.runs
    assert [child.spec.parent for child in children] == [parent.id, parent.id]
    assert cells(made, "stage", "kind", "image_tokens", "image_size", "lr")[1:] == [
        ("ft", "finetune", 36, 48, 1e-4),
        ("ft", "finetune", 36, 48, 2e-4),
    ]
    assert [(cell.stage, cell.reason) for cell in made.excluded] == [
        ("pretrain", "short"),
        ("ft", "its parent is excluded: short"),
    ]


def test_one_pretrain_serves_many_finetunes_and_its_id_is_in_theirs(tmp_path: Path) -> None:
    stage = "stages: {ft: {kind: finetune, parent: pretrain, set: {lr: 1e-4}}}\n"
    first = grid(tmp_path, "axes: {model: [T32/8], image_tokens: [4]}\n" + stage)
    other = grid(tmp_path, "axes: {model: [T32/8], image_tokens: [9]}\n" + stage)
    assert first.runs[1].id != other.runs[1].id
    assert (
        first.runs[0].id == grid(tmp_path, "axes: {model: [T32/8], image_tokens: [4]}\n").runs[0].id
    )


AXES = "axes: {model: [T32/8], image_tokens: [4]}\n"
WRONG = {
    "axes: {model: [T32/8], image_token: [4]}\n": "4: axes.image_token: unknown key; nearest: "
    "image_tokens",
    "axes: {model: [T32/8]}\naxes: {seed: [1]}\n": '5: found duplicate key "axes"',
    "axes: {model: [T32/8], image_tokens: [37]}\n": "4: axes.image_tokens.0: image_tokens=37 is no "
    "square, as resize needs; nearest: 36, 49",
    "axes: {model: [T32/8], image_tokens: []}\n": "4: axes.image_tokens: is empty",
    "axes: {model: [T32/8], image_tokens: 4}\n": "4: axes.image_tokens: got 4; allowed: a list",
    "axes: {model: [T32/8], image_tokens: [four]}\n": "4: axes.image_tokens.0: image_tokens='four'",
    "axes: {model: [T32/8], image_tokens: [4, 4]}\n": "4: axes.image_tokens.1: 4 stands twice",
    "axes: {model: [B-16], image_tokens: [4]}\n": "4: axes.model.0: model='B-16'",
    "axes: {model: [no], image_tokens: [4]}\n": "4: axes.model.0: model='no'",
    AXES + "seeds: []\n": "5: seeds: is empty",
    AXES + "zip: [[model, lr]]\n": "5: zip.0: lr is no axis; allowed: model, image_tokens",
    AXES
    + "rules: [{when: {modle: T32/8}, set: {lr: 1.0}}]\n": "5: rules.0.when.modle: unknown key",
    AXES + "rules: [{when: {model: T32/8}}]\n": "5: rules.0: has no set",
    AXES + "exclude: [{when: {model: T32/8}}]\n": "5: exclude.0: has no because",
    AXES + "stages: {ft: {kind: finetune, parent: pretrian}}\n": "5: stages.ft.parent: no stage "
    "'pretrian' above it; nearest: pretrain",
    AXES + "stages: {ft: {kind: finetuning, parent: pretrain}}\n": "5: stages.ft.kind: "
    "kind='finetuning' is not allowed; allowed: pretrain, decay, finetune, evaluate",
    AXES + "resources: {gpu: a100}\n": "5: resources.gpu: unknown device 'a100'; nearest: a100-",
    AXES + "budget: {gpu_hours: -1}\n": "5: budget.gpu_hours: -1.0 is not positive",
    AXES + "evaluate: {protocol: [papers]}\n": "5: evaluate.protocol.0: 'papers' is no protocol; "
    "nearest: paper",
    AXES + "tuning: {}\n": "5: tuning: unknown key",
    AXES + "include: {model: T32/8}\n": "5: include: got {'model': 'T32/8'}; allowed: a list",
    "axes: [\n": "5: ",
    "fixed: {}\n": '4: found duplicate key "fixed"',
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_one_line_with_file_line_key_and_way_out(tmp_path: Path, text: str) -> None:
    with pytest.raises(SweepError) as caught:
        grid(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'test.yaml'}:{WRONG[text]}"), message
    assert "\n" not in message


def test_yaml_is_read_as_version_1_2(tmp_path: Path) -> None:
    made = grid(tmp_path, "axes: {model: [T32/8], image_tokens: [4]}\nrules: []\n")
    assert made.runs[0].spec.lr == 1e-3
    with pytest.raises(SweepError, match="'no' is no protocol"):
        grid(tmp_path, AXES + "evaluate: {protocol: [no]}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", ":1: holds no mapping"),
        ("name: x\n", ":1: has no data"),
        (
            "name: a/b\ndata: {train: scenes, store_px: 32}\n",
            ":1: name: 'a/b' makes no folder name",
        ),
        ("name: x\ndata: {train: scenes, store_px: 32}\n", ":2: data.pairs: scenes need pairs"),
        ("name: x\ndata: {train: scenes, pairs: 9}\n", ":2: data: has no store_px"),
        ("name: x\ndata: {train: 5, store_px: 32}\n", ":2: data.train: got 5"),
        (
            "name: x\ndata:\n  train: scenes\n  pairs: 9\n  store_px: 32\n  evals:\n"
            "    a: {path: scenes, pairs: 9, task: classfy}\n",
            ":7: data.evals.a.task: 'classfy' is no task; allowed: classify, retrieve",
        ),
        (
            "name: x\ndata:\n  train: scenes\n  pairs: 9\n  store_px: 32\n  evals:\n"
            "    a: {path: scenes, pairs: 9, seed: 1, task: classify, prompts: [a photo]}\n",
            ":7: data.evals.a.prompts.0: 'a photo' needs one {}",
        ),
    ],
)
def test_a_wrong_head_is_one_line_too(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SweepError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'test.yaml'}{message}")


def test_missing_data_is_named_and_does_not_stop_planning(tmp_path: Path) -> None:
    text = HEAD.replace("train: scenes, pairs: 1000", 'train: "shards/{000..003}.tar"')
    made = load(tmp_path, text + AXES)
    assert made.missing is not None and "data.train" in made.missing
    assert len(made.grid.runs) == 1


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"none.yaml: cannot be read \(No such file"):
        load_sweep(tmp_path / "none.yaml", tmp_path)
