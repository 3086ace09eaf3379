"""WordPiece vocabularies by file: BERT's from the hub, or one's own, and what tells them apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from clipa_scaling.resolve import VOCABULARIES
from clipa_scaling.source import DataError

HUB = "bert-base-uncased"  # by the name that open_clip asks for, so that both share one cache
FILE = "vocab.txt"  # of the hub, of packs, and of exported folders: one piece a line
PADDING, SPECIAL = "[PAD]", ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
ROWS = VOCABULARIES["wordpiece"]
ALLOWED = "allowed: data.vocab: path/to/vocab.txt, one piece a line, as BERT's"


def find_vocabulary(asked: str) -> Path:
    """The vocabulary file that is asked for, else BERT's uncased one, cached or fetched.

    DataError where it cannot be had.
    """
    if not asked:
        return fetch_vocabulary()
    if not Path(asked).is_file():
        raise DataError(f"{asked}: no such vocabulary; {ALLOWED}, or none for {HUB} of the hub")
    return Path(asked)


def fetch_vocabulary() -> Path:
    """BERT's own from the hub's cache, or from the hub; DataError where neither has it."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(HUB, FILE)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(HUB, FILE))
    except (OSError, ValueError) as error:  # all of the hub's are one of them
        said = " ".join(str(error).split())[:120]
        raise DataError(
            f"tokenizer: wordpiece needs {FILE} of {HUB}, which cannot be had ({said}); {ALLOWED}, "
            "a machine that reaches the hub, or its cache (HF_HOME) brought here"
        ) from None


def read_vocabulary(path: Path) -> list[str]:
    """The pieces in the order of their ids; DataError for what is no such vocabulary."""
    try:
        pieces = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; {ALLOWED}") from None
    absent = [name for name in SPECIAL if name not in pieces]
    if absent or pieces[0] != PADDING:
        fault = f"has no {', '.join(absent)}" if absent else f"begins with {pieces[0]!r}"
        raise DataError(f"{path}: {fault}, and padding is id 0, {PADDING}; {ALLOWED}")
    if len(pieces) > ROWS:
        raise DataError(f"{path}: has {len(pieces):,} pieces; allowed: up to {ROWS:,}")
    return pieces


def name_pack(fingerprint: str, vocabulary: Path) -> str:
    """16 hex digits that name data whose captions are in a vocabulary's ids, by its content."""
    read_vocabulary(vocabulary)
    content = hashlib.sha256(vocabulary.read_bytes()).hexdigest()
    named = json.dumps([fingerprint, "wordpiece", content])
    return hashlib.sha256(named.encode()).hexdigest()[:16]
