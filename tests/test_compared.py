"""Which runs a comparison holds, and where they stand."""

from __future__ import annotations

import pandas as pd
import pytest
from test_inverse import SMALL, compare, study

from clipa_scaling.compared import find_compared
from clipa_scaling.inverse import judge
from clipa_scaling.schema import TableError
from clipa_scaling.worlds import additive, inverse


def test_what_exclusions_leave_out_and_what_is_not_done_stay_out() -> None:
    tables = study(additive)
    decays = tables["runs"].index[tables["runs"]["stage"] == "decay"]
    tables["runs"].loc[decays[0], "left_out"] = "lost a disk"
    tables["runs"].loc[decays[1], "state"] = "diverged"
    assert len(compare(tables).runs) == len(decays) - 2


def test_other_settings_make_comparisons_of_their_own() -> None:
    tables = study(additive)
    runs, evals = tables["runs"], tables["evals"]
    again = runs.assign(
        run="b" + runs["run"], parent="b" + runs["parent"], text_tokens=8, stage=runs["stage"]
    )
    runs["text_tokens"] = 32
    both = {
        "runs": pd.concat([runs, again.astype(runs.dtypes)], ignore_index=True),
        "evals": pd.concat([evals, evals.assign(run="b" + evals["run"])], ignore_index=True),
    }
    found = find_compared(both)
    assert [item.settings for item in found] == [{"text_tokens": "32"}, {"text_tokens": "8"}]
    assert [len(item.runs) for item in found] == [90, 90]


def test_finetunes_stand_at_the_length_and_samples_they_started_from() -> None:
    tables = study(inverse)
    runs, evals = tables["runs"], tables["evals"]
    decays = runs[runs["kind"] == "decay"]
    children = decays.assign(
        run="ft" + decays["run"], parent=decays["run"], kind="finetune", stage="finetune",
        samples=10**6, image_tokens=196, schedule="cosine",
    )  # fmt: skip
    ends = evals[evals["run"].isin(decays["run"])]
    both = {
        "runs": pd.concat([runs, children.astype(runs.dtypes)], ignore_index=True),
        "evals": pd.concat(
            [evals, ends.assign(run="ft" + ends["run"], samples=10**6)], ignore_index=True
        ),
    }
    tuned, scratch = compare(both), compare(tables)
    assert tuned.stage == "finetune"
    columns = ["model", "length", "samples", "seed", "value", "root"]
    pd.testing.assert_frame_equal(tuned.runs[columns], scratch.runs[columns])
    [again] = find_compared(both, stage="decay")
    pd.testing.assert_frame_equal(again.runs[columns], scratch.runs[columns])


def test_masks_are_compared_with_the_whole_picture() -> None:
    tables = study(additive)
    tables["runs"] = tables["runs"].assign(image_reduction="random", image_size=224)
    assert compare(tables).full == dict.fromkeys(("S/16", "B/16", "L/16"), 196)
    without = {**tables, "runs": tables["runs"][tables["runs"]["image_tokens"] < 196]}
    lacks = judge(compare(without), draws=20).missing
    assert lacks[0].key == "image_tokens"
    assert lacks[0].because.startswith("no run of S/16, B/16, L/16 at the full length (196)")


def test_a_measure_that_is_no_fraction_is_refused() -> None:
    tables = study(additive)
    tables["evals"]["value"] += 1
    with pytest.raises(TableError, match="measure=accuracy is no fraction"):
        find_compared(tables)


def test_what_a_comparison_cannot_place_is_told_and_never_dropped_in_silence() -> None:
    tables = study(inverse, SMALL)
    runs, evals = tables["runs"], tables["evals"]
    last = str(runs.loc[runs["kind"] == "decay", "run"].iloc[-1])
    unplaced = runs.assign(image_tokens=runs["image_tokens"].mask(runs["run"] == last))
    with pytest.raises(TableError, match=f"{last} has no image_tokens, as 1 of"):
        find_compared({**tables, "runs": unplaced})
    other = evals.assign(protocol=evals["protocol"].mask(evals["run"] == last, "paper"))
    with pytest.raises(
        TableError, match=f"not mixed: 1 of .* runs, such as {last}, have protocol=paper"
    ):
        find_compared({**tables, "evals": other})
    unmeasured = evals.assign(value=evals["value"].mask(evals["run"] == last))
    [found] = find_compared({**tables, "evals": unmeasured})
    assert found.unmeasured == (last,) and last not in set(found.runs["run"])


def test_a_finetune_whose_start_is_not_in_the_table_is_refused() -> None:
    tables = study(inverse, SMALL)
    runs = tables["runs"]
    last = str(runs.loc[runs["kind"] == "decay", "run"].iloc[-1])
    tuned = runs.assign(
        kind=runs["kind"].mask(runs["run"] == last, "finetune"),
        parent=runs["parent"].mask(runs["run"] == last, "gone"),
    )
    with pytest.raises(TableError, match=f"{last} starts from gone, which is not in the table"):
        find_compared({**tables, "runs": tuned})
