"""A data set to pack: in CLIP's ids, or once more in those of a WordPiece vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from clipa_scaling.source import DataError, Source
from clipa_scaling.vocabulary import find_vocabulary, name_pack, read_vocabulary

Needs = Literal["captions", "labels"]


@dataclass(frozen=True)
class PackRequest:
    """A data set to decode once, the folder that will hold it, and where the file asks for it.

    tagger: what tells the words' classes, where runs need them; see taggers.py. vocab: the
    WordPiece vocabulary of its ids; empty is CLIP's BPE.
    """

    place: str
    folder: Path
    fingerprint: str
    source: Source
    store_px: int
    needs: Needs
    max_unreadable: float
    tagger: str = ""
    vocab: str = ""


class WordPiecePacks:
    """The packs of a sweep file as its WordPiece runs read them, beside those of CLIP's ids.

    asked: the vocabulary's file, empty for BERT's own. fault: why it cannot be had, once asked for.
    """

    def __init__(self, packs: Path, asked: str):
        self.packs, self.asked, self.fault = packs, asked, ""
        self.renamed: dict[Path, PackRequest] = {}

    def fields(self, given: Mapping[str, Any], requests: Sequence[PackRequest]) -> dict[str, Any]:
        """A run's fields with packs of their own for captions, and for what it trains on.

        Packs of pictures to be classified hold no ids, so that any run can be evaluated on them.
        """
        packs = {str(pack.folder): pack for pack in requests}
        found = dict(given)
        if given["pack"] in packs:
            train = self.rename(packs[given["pack"]])
            found |= {"data_fingerprint": train.fingerprint, "pack": str(train.folder)}
        evals = []
        for item in given["evals"]:
            if item.pack in packs and packs[item.pack].needs == "captions":
                pack = self.rename(packs[item.pack])
                item = replace(item, pack=str(pack.folder), fingerprint=pack.fingerprint)
            evals.append(item)
        return found | {"evals": tuple(evals)}

    def rename(self, pack: PackRequest) -> PackRequest:
        """A pack as it goes with the vocabulary, in a folder of its own."""
        if pack.folder not in self.renamed:
            digits = "missing"
            if self.vocabulary is not None:
                digits = name_pack(pack.fingerprint, self.vocabulary)
            folder = self.packs / f"{digits}-{pack.needs}"
            vocab = str(self.vocabulary)
            new = replace(pack, folder=folder, fingerprint=digits, vocab=vocab)
            self.renamed[pack.folder] = new
        return self.renamed[pack.folder]

    @cached_property
    def vocabulary(self) -> Path | None:
        """The file; None, with a `fault`, where it cannot be had."""
        try:
            found = find_vocabulary(self.asked).resolve()
            read_vocabulary(found)
        except DataError as error:
            self.fault = str(error)
            return None
        return found

    def add(self, packs: Mapping[Path, PackRequest], alone: bool) -> tuple[PackRequest, ...]:
        """All packs to make; `alone`, without those that only runs of CLIP's ids would read."""
        found = dict(packs)
        for folder, pack in self.renamed.items():
            if pack.fingerprint != "missing":
                found[pack.folder] = replace(pack, tagger=found[folder].tagger)
            if alone:
                del found[folder]
        return tuple(found.values())
