"""Points of a fit: which runs they are, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clipa_scaling.paperstudy import list_reductions, paper_tables
from clipa_scaling.points import choose_points, make_points
from clipa_scaling.schema import TableError
from clipa_scaling.worlds import Design, additive, image_params, make_study

Tables = dict[str, pd.DataFrame]
SMALL = Design(lengths=(196, 49), samples=(125_000_000, 500_000_000), seeds=4)


@pytest.fixture
def study() -> Tables:
    return make_study(additive, np.random.default_rng(0), SMALL)


def test_are_the_annealed_runs_at_their_end(study: Tables) -> None:
    points = make_points(study)
    assert len(points) == 3 * 2 * 2 * 4
    assert {name.split("-")[0] for name in points.run} == {"decay"}  # type: ignore[union-attr]
    assert {name.split("-")[0] for name in points.cluster} == {"trunk"}  # type: ignore[union-attr]
    assert set(points.x["N"]) == {image_params(model) for model in SMALL.models}
    assert set(points.x["D"]) == {*SMALL.samples}
    assert set(points.x["T"]) == {*SMALL.lengths}
    assert "S" not in points.x  # the world does not say
    value = study["evals"].set_index("run")["value"]
    for run, y in zip(points.run, points.y, strict=True):  # type: ignore[arg-type]
        assert y == pytest.approx(1 - float(value[run]))
    assert points.columns["N"] == "image_params" and points.columns["y"] == "accuracy"


def test_noise_is_that_of_seeds_and_pictures(study: Tables) -> None:
    points = make_points(study)
    slope = points.y * (1 - points.y)
    truth = np.sqrt(SMALL.seed_sd**2 + 1 / (SMALL.pictures * slope))  # in logits
    assert points.noise is not None
    np.testing.assert_allclose(points.noise / slope, truth, rtol=0.35)


def test_one_seed_has_no_known_noise() -> None:
    once = Design(lengths=(196, 49), samples=(125_000_000,), seeds=1)
    assert make_points(make_study(additive, np.random.default_rng(0), once)).noise is None


def test_left_out_runs_enter_only_when_asked(study: Tables) -> None:
    runs = study["runs"]
    is_out = runs["run"].str.contains("S/16-49-0")
    study["runs"] = runs.assign(
        left_out=pd.Series(["a broken node"] * len(runs), dtype="string").where(is_out)
    )
    kept = make_points(study)
    assert len(kept) == 48 - 2
    assert not any("S/16-49-0" in run for run in kept.run)  # type: ignore[union-attr]
    assert len(make_points(study, left_out=True)) == 48


def test_a_role_that_only_some_runs_lack_is_no_reason_to_drop_it(study: Tables) -> None:
    runs = study["runs"]
    one = runs["run"].isin(["decay-S/16-49-0-125000000", "trunk-S/16-49-0"])
    for name in ("image_tokens", "train_flops"):
        study["runs"] = runs.assign(**{name: runs[name].mask(one)})
        with pytest.raises(TableError, match=f"such as decay-S/16-49-0.* no {name} .*exclusions"):
            make_points(study)
    study["runs"] = runs.assign(train_flops=runs["train_flops"].mask(runs["run"] != ""))
    assert sorted(make_points(study).x) == ["D", "N", "T"]


def test_refuses_mixed_protocols(study: Tables) -> None:
    evals = study["evals"]
    other = evals["run"] == "decay-S/16-49-0-125000000"
    study["evals"] = evals.assign(protocol=evals["protocol"].mask(other, "paper"))
    with pytest.raises(
        TableError, match=r"protocols are not mixed: 1 of 48 .*decay-S/16-49-0.*paper"
    ):
        make_points(study)


def test_refuses_a_changed_benchmark(study: Tables) -> None:
    evals = study["evals"]
    other = evals["run"] == "decay-S/16-49-0-125000000"
    study["evals"] = evals.assign(fingerprint=evals["fingerprint"].mask(other, "g"))
    with pytest.raises(TableError, match="measured in 2 ways"):
        make_points(study)


def test_settings_that_no_role_stands_for_must_be_chosen(study: Tables) -> None:
    runs, evals = study["runs"], study["evals"]
    again = runs.assign(
        run=runs["run"] + "-masked",
        parent=runs["parent"].where(runs["parent"] == "", runs["parent"] + "-masked"),
        image_reduction="random",
    )
    both = {
        "runs": pd.concat([runs, again], ignore_index=True),
        "evals": pd.concat([evals, evals.assign(run=evals["run"] + "-masked")], ignore_index=True),
    }
    with pytest.raises(TableError, match=r"--where image_reduction=re") as caught:
        make_points(both)
    assert "\n" not in str(caught.value)
    masked = make_points(both, where={"image_reduction": "random"})
    assert len(masked) == 48 and all(run.endswith("masked") for run in masked.run)  # type: ignore[union-attr]
    with pytest.raises(TableError, match="no such run; there are: random, resize"):
        make_points(both, where={"image_reduction": "grid"})


def test_finetunes_may_be_chosen_by_what_they_started_from() -> None:
    each = {name: paper_tables("v1 Table 11", name) for name in ("resize", "random")}
    for name in ("run", "parent"):  # the unreduced runs are the same in both
        runs = each["random"]["runs"]
        runs[name] = runs[name].where(runs[name] == "", runs[name] + " again")
    each["random"]["evals"]["run"] += " again"
    both = {
        name: pd.concat([tables[name] for tables in each.values()], ignore_index=True)
        for name in ("runs", "evals")
    }
    # Both tables hold the unreduced runs, of which a finetune may say so itself.
    both["runs"]["image_reduction"] = both["runs"]["image_reduction"].mask(
        both["runs"]["kind"] == "finetune", "resize"
    )
    with pytest.raises(TableError, match="--where start_image_reduction=re"):
        make_points(both)
    chosen = make_points(both, where={"start_image_reduction": "random"})
    assert len(chosen) == 15
    np.testing.assert_array_equal(np.sort(chosen.y), np.sort(make_points(each["random"]).y))


def test_a_loss_is_itself(study: Tables) -> None:
    evals = study["evals"]
    lost = evals.assign(name="loss", value=3 - evals["value"])
    study["evals"] = pd.concat([evals, lost], ignore_index=True)
    points = make_points(study, measure="loss")
    assert (points.y > 1).all()
    np.testing.assert_allclose(np.sort(points.y), np.sort(2 + make_points(study).y))
    assert points.noise is not None and len(set(points.noise)) == 1


def test_no_runs_is_told(study: Tables) -> None:
    with pytest.raises(TableError, match="no finished, annealed run has nonsense"):
        make_points(study, measure="nonsense")


def test_finetunes_stand_at_what_they_started_from() -> None:
    chosen = choose_points(paper_tables("v1 Table 11", "resize"))
    points = chosen.points
    assert set(points.x["T"]) == {196, 100, 49, 36, 16} and set(points.x["D"]) == {2.56e9}
    at = (chosen.models == "L/16") & (points.x["T"] == 16)
    assert points.y[at] == pytest.approx([1 - 0.662])  # arXiv:2305.07017, Table 11
    pretrained = choose_points(paper_tables("v1 Table 11", "resize"), stage="pretrain").points
    assert len(pretrained) == 12  # the full length is not printed
    assert pretrained.y.max() == pytest.approx(1 - 0.407)


def test_misprints_are_unknown() -> None:
    points = make_points(paper_tables("v1 Table 12", "random"), stage="pretrain")
    assert len(points) == 14 and points.y.min() > 0  # S/16 at 6 tokens is printed as 299


def test_tables_name_their_reductions() -> None:
    assert list_reductions("v1 Table 11") == ["random", "grid", "block", "resize"]
    with pytest.raises(TableError, match="no reduction 'blur'; allowed: 'v1 Table 11: random'"):
        paper_tables("v1 Table 11", "blur")
    with pytest.raises(TableError, match="no table of the papers"):
        paper_tables("v1 Table 99", "resize")
