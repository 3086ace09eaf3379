"""CLIP's byte-pair encoding of one word at a time, without torch, which open_clip's would bring.

Packing starts in a fraction of a second so, where the import of open_clip takes five.
"""

from __future__ import annotations

import gzip
import html
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import ftfy
import regex

MERGES = 49_152 - 256 - 2  # of the file's, as many as CLIP's 49,408 ids have (arXiv:2103.00020)
WORD_END = "</w>"
SPECIALS = ("<start_of_text>", "<end_of_text>")
# What a word falls into, as of open_clip's `SimpleTokenizer`.
PIECES = regex.compile(
    "|".join(SPECIALS) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


class Bpe:
    """The ids of CLIP, and how a word becomes some of them.

    `letters` holds a printable letter for each byte; `tokens` every id's, WORD_END where it ends a
    word.
    """

    def __init__(self) -> None:
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # Latin-1 that can be seen
        hidden = [byte for byte in range(256) if byte not in shown]
        self.letters = {byte: chr(byte) for byte in shown}
        self.letters |= {byte: chr(256 + n) for n, byte in enumerate(hidden)}
        merges = [tuple(line.split()) for line in read_merges()]
        self._rank = {merge: rank for rank, merge in enumerate(merges)}
        letters = [*self.letters.values()]
        self.tokens = [*letters, *(letter + WORD_END for letter in letters)]
        self.tokens += [*map("".join, merges), *SPECIALS]
        self._id = {token: number for number, token in enumerate(self.tokens)}

    def encode(self, word: str) -> list[int]:
        """The ids of a lower-case word, white space nowhere in it."""
        ids: list[int] = []
        for piece in PIECES.findall(word):
            if piece in SPECIALS:
                ids.append(self._id[piece])
            else:
                ids += [self._id[token] for token in self._merge(piece)]
        return ids

    def _merge(self, piece: str) -> list[str]:
        """Letters joined pair by pair, always the pair that was learned first, wherever it is."""
        tokens = [self.letters[byte] for byte in piece.encode()]
        tokens[-1] += WORD_END
        while len(tokens) > 1:
            first = min(pairwise(tokens), key=lambda pair: self._rank.get(pair, MERGES))
            if first not in self._rank:
                break
            joined: list[str] = []
            for token in tokens:
                if joined and (joined[-1], token) == first:
                    joined[-1] += token
                else:
                    joined.append(token)
            tokens = joined
        return tokens


def read_merges() -> list[str]:
    """The pairs in the order in which they were learned, from the file that open_clip ships."""
    found = find_spec("open_clip")
    assert found is not None and found.origin is not None, "the package needs it"
    path = Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    return gzip.decompress(path.read_bytes()).decode().split("\n")[1 : MERGES + 1]


def straighten(text: str) -> str:
    """Text without broken encodings and HTML's escapes, each white space one blank."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())
