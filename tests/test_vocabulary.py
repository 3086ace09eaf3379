"""Vocabularies of WordPiece: what is one, what names it, and where one comes from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_wordpiece import PIECES, write_vocabulary

from clipa_scaling.source import DataError
from clipa_scaling.train import wordpiece
from clipa_scaling.vocabulary import find_vocabulary, name_pack


def test_a_vocabulary_is_named_by_its_content(tmp_path: Path) -> None:
    first, second = write_vocabulary(tmp_path / "a"), write_vocabulary(tmp_path / "b")
    same = name_pack("x", first)
    assert name_pack("x", second) == same != name_pack("y", first)
    write_vocabulary(tmp_path / "b", [*PIECES, "more"])
    assert name_pack("x", second) != same


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (["[UNK]", "[PAD]", "[CLS]", "[SEP]"], r"begins with '\[UNK\]', and padding is id 0"),
        (["[PAD]", "a"], r"has no \[UNK\], \[CLS\], \[SEP\]"),
        ([*PIECES, *map(str, range(100, 32_100))], "pieces; allowed: up to 32,000"),
    ],
)
def test_what_is_no_vocabulary_is_refused(pieces: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        name_pack("x", write_vocabulary(tmp_path, pieces))


def test_without_the_hub_the_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests run with HF_HUB_OFFLINE; an empty cache is what a new machine has."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"^tokenizer: wordpiece needs vocab.txt of bert-base-unc"):
        find_vocabulary("")
    with pytest.raises(DataError, match=f"^{tmp_path}/no.txt: no such vocabulary; allowed: data"):
        find_vocabulary(f"{tmp_path}/no.txt")


def test_a_vocabulary_in_the_hubs_cache_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "models--bert-base-uncased"
    path = write_vocabulary(hub / "snapshots" / "abc")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_vocabulary("") == path


def test_without_the_library_the_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install 'clipa_scaling\[wordpiece\]'"):
        wordpiece.WordPiece(str(write_vocabulary(tmp_path)))
