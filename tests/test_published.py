"""Published models in this package's units, against what the papers and open_clip print."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from clipa_scaling.models import SIZES, load_model
from clipa_scaling.published import FOLDER, forward_flops, load_earlier, load_published, select
from clipa_scaling.schema import TableError

MACS = (
    2.0 * 3
)  # a training FLOP count over the papers' unit: multiply-adds of one forward x samples


def test_a_forward_is_that_of_open_clips_profile() -> None:
    profile = pd.read_csv(FOLDER / "open_clip_model_profile.csv").set_index("model")
    for name, model in (("ViT-B-32", "B/32"), ("ViT-B-16", "B/16"), ("ViT-L-14", "L/14")):
        assert forward_flops(model, 224, 77, 1.0) / 1e9 == pytest.approx(
            profile.loc[name, "gflops"], abs=0.01
        )


def test_compute_is_what_the_papers_print() -> None:
    """arXiv:2305.07017, Table 2: 5.7 for OpenCLIP-H/14, in 1e21 multiply-adds; at 77 text tokens
    the closed form is 7 % above it, the paper having counted 32."""
    flops = load_earlier().set_index("model")["train_flops"]
    assert flops["OpenCLIP H/14"] / MACS / 1e21 == pytest.approx(5.7, rel=0.08)
    at_32 = 32e9 * forward_flops("H/14", 224, 32, 1.0) / 2 / 1e21
    assert at_32 == pytest.approx(5.7, abs=0.05)
    # The same table's CLIPA-H/14, 84 px and 8 tokens, then 224 px: 0.4.
    pretrained = 12.8e9 * forward_flops("H/14", 84, 8, 1.0)
    tuned = 131_072_000 * forward_flops("H/14", 224, 32, 1.0)
    assert (pretrained + tuned) / 2 / 1e21 == pytest.approx(0.4, abs=0.05)


def test_kept_shares_round_down_as_masks_do() -> None:
    assert forward_flops("H/14", 224, 32, 0.7) / 2e9 == pytest.approx(125.8, abs=0.2)


def test_every_row_has_its_source() -> None:
    earlier = load_earlier()
    assert len(earlier) == 12 and earlier["source"].str.startswith("arXiv:").all()
    assert earlier["imagenet1k"].between(0.5, 0.9).all() and earlier["a100_hours"].notna().all()


def test_a_missing_table_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such table; it comes with a clone"):
        load_earlier(tmp_path)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return load_published()


# Cells with a number in print: arXiv:2305.07017 has 15 rows of Table 11 over three models, of which
# the first is printed once; 20 rows of Table 12; 12 x 5 x 7 cells of Table 15.
PRINTED_CELLS = {
    "v1 Table 1": 90, "v1 Table 2": 90, "v1 Table 6": 5, "v1 Table 7": 12, "v1 Table 8": 4,
    "v1 Table 11": 3 + 2 * 14 * 3, "v1 Table 12": 2 * 20 * 3, "v1 Table 13": 4 + 2 * 4 * 4,
    "v1 Table 14": 16, "v1 Table 15": 420, "v1 Figure 8": 18, "v2 Figure 1": 6,
    "v2 Figure 2": 4 * 8, "v2 Table 1": 4, "v2 Table 2": 9, "v2 Table 3": 6, "v2 Table 4": 90,
}  # fmt: skip


def test_every_printed_cell_is_there_with_its_source(tables: dict[str, pd.DataFrame]) -> None:
    counts = tables["evals"]["table"].value_counts()
    assert {name: counts[name] for name in PRINTED_CELLS} == PRINTED_CELLS
    for table in tables.values():
        assert table["source"].notna().all()
    assert not tables["runs"]["run"].duplicated().any()
    assert set(tables["evals"]["run"]) <= set(tables["runs"]["run"])
    parents = tables["runs"]["parent"].dropna()
    assert set(parents) <= set(tables["runs"]["run"]) and len(parents) > 100


def test_values_are_fractions_and_the_misprint_is_unknown(tables: dict[str, pd.DataFrame]) -> None:
    evals = tables["evals"]
    fractions = evals[evals["name"] != "drop"]
    [unknown] = fractions.index[fractions["value"].isna()]
    assert fractions.loc[unknown, "run"] == "v1 Table 12|S/16|random|6"
    assert "299" in fractions.loc[unknown, "note"]
    assert fractions["value"].dropna().between(0.02, 1).all()
    assert evals.loc[evals["name"] == "drop", "value"].between(-0.2, 7.3).all()


def test_lengths_are_possible_and_leave_the_cls_out(tables: dict[str, pd.DataFrame]) -> None:
    """The papers' 197, 101, 50, 37, 17 count the CLS."""
    runs = tables["runs"]
    known = runs[runs["image_tokens"].notna() & runs["model"].str.split("/").str[0].isin(SIZES)]
    patches = [
        (px // load_model(m).patch) ** 2
        for m, px in zip(known["model"], known["image_size"], strict=True)
    ]
    whole = known["image_reduction"].isna() | (known["image_reduction"] == "resize")
    assert (known["image_tokens"] == patches)[whole].all()
    assert (known["image_tokens"] < patches)[~whole].all()
    assert sorted(set(select("v1 Table 11")["start_image_tokens"])) == [16, 36, 49, 98, 100, 196]


def test_drops_of_table_11_are_those_of_the_papers_prose() -> None:
    """arXiv:2305.07017, section 3.2: 6.2, 4.3 and 3.0 points at 16 tokens, resized."""
    rows = select("v1 Table 11")
    full = rows[rows["start_image_tokens"] == 196].set_index("model")["value"]
    resized = (rows["start_image_reduction"] == "resize").fillna(False)
    chosen = rows[resized & (rows["start_image_tokens"] == 16) & (rows["stage"] == "finetune")]
    short = chosen.set_index("model")["value"]
    drops = (100 * (full - short)).astype(float).round(1).to_dict()
    assert drops == {"S/16": 6.2, "B/16": 4.3, "L/16": 3.0}


def test_tables_that_print_the_same_number_agree(tables: dict[str, pd.DataFrame]) -> None:
    """Tables 12 and 15, 11 and 12, 11 and 13; v1's 8 and v2's 1."""
    evals = tables["evals"].set_index(["run", "table", "set"])["value"]
    for run in tables["runs"].loc[tables["runs"]["table"] == "v1 Table 12", "run"]:
        if run.endswith("finetune"):
            one = evals[(run, "v1 Table 12", "imagenet1k")]
            assert one == evals[(run, "v1 Table 15", "imagenet1k")], run
    for model in ("S/16", "B/16", "L/16"):
        resized = evals[(f"v1 Table 11|{model}|resize|49|finetune", "v1 Table 11", "imagenet1k")]
        whole = f"v1 Table 12|{model}|truncate|32|finetune"
        assert resized == evals[(whole, "v1 Table 12", "imagenet1k")]
    both = [
        select(name).set_index("model")["value"].tolist() for name in ("v1 Table 8", "v2 Table 1")
    ]
    assert both[0] == both[1]


def test_parameters_are_table_4s_without_the_token_table(tables: dict[str, pd.DataFrame]) -> None:
    """In millions, image towers: 22, 86, 303, 631, 1844 (arXiv:2305.07017, Table 4)."""
    runs = tables["runs"]
    full = runs[runs["image_tokens"].isin([196, 256])].groupby("model")["image_params"].first()
    for model, millions in (("S/16", 22), ("B/16", 86), ("L/16", 303), ("H/14", 631)):
        assert full[model] / 1e6 == pytest.approx(millions, rel=0.02)
    assert runs.loc[runs["model"] == "bigG/14", "train_flops"].isna().all(), "no such size here"


def test_a_table_that_is_not_published_is_told() -> None:
    with pytest.raises(TableError, match="table='v3 Table 1' is not published here; there are: v1"):
        select("v3 Table 1")
