"""Captions to BERT's WordPiece ids, the same as the tokenizer's of open_clip's CLIPA models.

    [CLS] pieces, padded with 0

No end: open_clip strips BERT's [SEP] (`strip_sep_token`) after it has made room for it, so that a
caption that is cut to T tokens keeps T - 2 pieces, and its last place is padding. CLIPA's JAX code
keeps T - 1 (arXiv:2305.07017); so do `random` and `block` here, see reduce.py.
"""

from __future__ import annotations

from pathlib import Path

from clipa_scaling.source import DataError
from clipa_scaling.train.bpe import straighten
from clipa_scaling.vocabulary import read_vocabulary

EXTRA = "clipa_scaling[wordpiece]"
INNER = "##"  # begins a piece that goes on with a word
END = 0  # what open_clip leaves of [SEP]: padding


class WordPiece:
    """BERT's uncased tokenizer over a vocabulary, by the `tokenizers` library.

    DataError where that is not installed, or the vocabulary is none.
    """

    end = END

    def __init__(self, vocab: str):
        try:
            from tokenizers import BertWordPieceTokenizer
        except ImportError:
            raise DataError(
                f"tokenizer: wordpiece needs tokenizers, which is not installed; pip install "
                f"'{EXTRA}'"
            ) from None

        self.names = read_vocabulary(Path(vocab))
        self.start, self.separator = (self.names.index(name) for name in ("[CLS]", "[SEP]"))
        self._bert = BertWordPieceTokenizer(vocab, lowercase=True)

    def encode(self, text: str) -> list[int]:
        """The ids of a caption without start and end, however many; a [SEP] it spells is 0 too."""
        # Straightened as open_clip does, before BERT's own. One by one: a batch would start a
        # thread for each core in every process of a pool.
        ids = self._bert.encode(straighten(text), add_special_tokens=False).ids
        return [END if number == self.separator else number for number in ids]

    def pieces(self) -> tuple[tuple[bytes, ...], list[bool]]:
        """The bytes of every id without its ##, and whether it goes on with a word."""
        letters = tuple(name.removeprefix(INNER).encode() for name in self.names)
        return letters, [name.startswith(INNER) and name != INNER for name in self.names]

    def specials(self) -> list[int]:
        """The ids that stand for no piece of a caption, or for one that is unknown."""
        return [n for n, name in enumerate(self.names) if name.startswith("[") and name[-1:] == "]"]
