"""Captions to ids, the same as open_clip's tokenizers', and ids cut to a text length.

CLIP's BPE, or a WordPiece vocabulary. Packed ids tell whose they are: CLIP's all begin with START,
an id that no WordPiece vocabulary reaches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np

from clipa_scaling.spec import LONGEST_TEXT
from clipa_scaling.train.bpe import WORD_END, Bpe, straighten
from clipa_scaling.train.wordpiece import WordPiece

PACKED_LENGTH = LONGEST_TEXT
START, END = 49406, 49407  # the last two of CLIP's 49,408 (arXiv:2103.00020, section 2.4)
# Text that ftfy and html.unescape leave alone: printable ASCII without &, and plain white space.
CLEAN = re.compile(r"[ -%'-~\t\n\r]*")
MOST_WORDS = 2**18  # remembered; 80 MB measured, and 0.1 s to begin again


class Tokenizer:
    """The ids of open_clip's `SimpleTokenizer`, with a memory of words.

    Measured on 11,376 short captions, warm, one core: 6 us a caption against open_clip's 50.
    """

    start, end = START, END

    def __init__(self) -> None:
        self._bpe = Bpe()
        self._words: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """The ids of a caption without start and end, however many."""
        # Lowered as a whole: a Greek sigma's lower case depends on its neighbours.
        text = (text if CLEAN.fullmatch(text) else straighten(text)).lower()
        ids: list[int] = []
        for word in text.split():
            known = self._words.get(word)
            ids += self._learn(word) if known is None else known
        return ids

    def _learn(self, word: str) -> list[int]:
        """The ids of a new word; exact, for no match of the tokenizer's pattern spans a space."""
        if len(self._words) >= MOST_WORDS:
            self._words.clear()
        self._words[word] = ids = self._bpe.encode(word)
        return ids

    def pieces(self) -> tuple[tuple[bytes, ...], list[bool]]:
        """The bytes of every id, and whether a word ends with it; a special token is its name."""
        byte = {letter: byte for byte, letter in self._bpe.letters.items()}
        pieces = self._bpe.tokens
        letters = (piece.removesuffix(WORD_END) for piece in pieces)
        ends = [piece.endswith(WORD_END) or n >= START for n, piece in enumerate(pieces)]
        return tuple(bytes(byte[letter] for letter in piece) for piece in letters), ends


@cache
def make_tokenizer(vocab: str = "") -> Tokenizer | WordPiece:
    """This process's tokenizer, made at first use: CLIP's, or of a WordPiece vocabulary's file."""
    return WordPiece(vocab) if vocab else Tokenizer()


def encode_texts(texts: Sequence[str], vocab: str = "") -> np.ndarray:
    """(M, 77) uint16 ids: start, words, end, then zeros; longer captions are cut, the end kept.

    WordPiece's end is a zero too.
    """
    return encode_counted(texts, vocab)[0]


def encode_counted(texts: Sequence[str], vocab: str = "") -> tuple[np.ndarray, int]:
    """The ids of `encode_texts` and how many of the captions had to be cut to 77."""
    tokenizer = make_tokenizer(vocab)
    ids = np.zeros((len(texts), PACKED_LENGTH), np.uint16)
    cut = 0
    for row, text in enumerate(texts):
        words = tokenizer.encode(text)
        kept = words[: PACKED_LENGTH - 2]
        cut += len(kept) < len(words)
        ids[row, : len(kept) + 2] = [tokenizer.start, *kept, tokenizer.end]
    return ids, cut


def has_end(ids: np.ndarray) -> bool:
    """Whether packed ids are CLIP's, whose captions have an end token; WordPiece's have none."""
    return not ids.size or bool(ids[0, 0] == START)


def text_lengths(ids: np.ndarray) -> np.ndarray:
    """(M,) real tokens of packed or cut ids, start and end counted: up to CLIP's last end token.

    Its padding cannot be told by its zero, which is also the id of an inner `!`. WordPiece's are up
    to the last id that is none.
    """
    is_last = ids == END if has_end(ids) else ids != 0
    length: np.ndarray = ids.shape[1] - is_last[:, ::-1].argmax(axis=1)
    return length


def cut_ids(ids: np.ndarray, tokens: int) -> np.ndarray:
    """(M, tokens) int64: packed ids cut to a text length, the end token last where text is lost."""
    if not 2 <= tokens <= ids.shape[1]:
        raise ValueError(
            f"text_tokens={tokens} cannot hold start and end or exceeds the ids given; "
            f"allowed: 2 to {ids.shape[1]}"
        )
    out = ids[:, :tokens].astype(np.int64)
    if has_end(ids):
        out[text_lengths(ids) > tokens, -1] = END
    else:
        out[:, -1] = 0  # the place of the [SEP] that open_clip strips
    return out


def share_cut(ids: np.ndarray, tokens: int) -> float:
    """The share of captions that lose something when they are cut to a text length."""
    return float((text_lengths(cut_ids(ids, tokens)) < text_lengths(ids)).mean())
