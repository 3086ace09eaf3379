"""Caption ids equal open_clip's on any text, and cutting them equals tokenising shorter."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from make_data import ROOT
from open_clip.tokenizer import SimpleTokenizer

from clipa_scaling.train import tokenize
from clipa_scaling.train.tokenize import cut_ids, encode_counted, encode_texts, text_lengths

REFERENCE = SimpleTokenizer()
AWKWARD = [
    "",
    "  \t\n ",
    "a photo of a dog",
    "Don't they'll WE'VE it's'",
    "&amp;lt; &#39;quoted&#39; &copy; fish & chips",
    "schön, Ã©tÃ©, â€™tis “curly”, ﬁne, ＦＵＬＬ",
    "ΟΔΟΣ Σ ΟΔΟΣ.",
    "İstanbul ıI ß",
    "日本語のテキスト 👩‍👩‍👧 ☂️",
    "<start_of_text>x<end_of_text> y",
    "!!! wow!!! 1234567890",
    "tab\tnew\nline\r\nand\x0bmore\x1cseparators\x00and\x1b[31mred",
    "no\u00a0break\u3000wide\u2028line\u200bzero\ufeff",
    "lone \ud800 surrogate",
    "word " * 200,
    "x" * 500,
]


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_ids_equal_open_clips(text: str) -> None:
    assert np.array_equal(encode_texts([text]), REFERENCE([text]).numpy())


def test_ids_equal_open_clips_on_random_text() -> None:
    rng = random.Random(0)
    letters = [chr(code) for code in range(128)] * 3 + list("ßΣσςİı＇“”&;<>…\u0085\u00a0\u1680é¿")
    letters += [chr(rng.randrange(0x110000)) for _ in range(200)]
    texts = ["".join(rng.choices(letters, k=rng.randrange(40))) for _ in range(3_000)]
    assert np.array_equal(encode_texts(texts), REFERENCE(texts).numpy())


def test_packing_captions_needs_no_torch() -> None:
    """Whose import would cost each packer seconds."""
    code = (
        "import sys\nfrom clipa_scaling.train import part\n"
        "part.encode_counted(['a dog', 'caf\u00e9 &amp; more'])\n"
        "assert not {'torch', 'open_clip'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_forgetting_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize, "MOST_WORDS", 3)
    tokenizer = tokenize.Tokenizer()
    texts = ["one two three four five", "five four", "one six one"]
    assert [tokenizer.encode(text) for text in texts] == [REFERENCE.encode(text) for text in texts]
    assert len(tokenizer._words) <= 3


@pytest.mark.parametrize("tokens", [2, 3, 8, 32, 77])
def test_cutting_equals_tokenising_shorter(tokens: int) -> None:
    texts = [text for text in AWKWARD if "<end_of_text>" not in text]
    want = REFERENCE(texts, context_length=tokens).numpy()
    got = cut_ids(encode_texts(texts), tokens)
    assert got.dtype == np.int64 and np.array_equal(got, want)


def test_cutting_needs_room_for_start_and_end() -> None:
    ids = encode_texts(["a dog"])
    for tokens in (1, 78):
        with pytest.raises(ValueError, match=f"text_tokens={tokens} .*; allowed: 2 to 77"):
            cut_ids(ids, tokens)


def test_lengths_and_cuts_are_counted() -> None:
    ids, cut = encode_counted(["", "a dog", "a !! !", "word " * 75, "word " * 76])
    assert text_lengths(ids).tolist() == [2, 4, 5, 77, 77]
    assert cut == 1
    assert ids.dtype == np.uint16
