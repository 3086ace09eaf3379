"""Words out of packed ids, and their classes by each tagger."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
from open_clip.tokenizer import SimpleTokenizer

from clipa_scaling import taggers
from clipa_scaling.source import DataError
from clipa_scaling.taggers import name_tagger
from clipa_scaling.train.scenes import make_scenes
from clipa_scaling.train.shards import read_shard
from clipa_scaling.train.tagging import ADJECTIVE, NOUN, OTHER, VERB, make_tagger
from clipa_scaling.train.tokenize import encode_texts
from clipa_scaling.train.words import WordClasses, decode_words, find_words

TEXTBLOB = name_tagger("shards", "")
# By hand, of words that captions are full of, each alone, as taggers meet them.
JUDGED = {
    NOUN: "dog cat man woman people umbrella rain clothing street table pizza tennis skateboard "
    "kitchen train zebra plate broccoli laptop wedding iphone poster logo wallpaper kids shoes "
    "sunset beach building photo shirt background house flower heart circle star horses mirror",
    ADJECTIVE: "red blue green white black small large beautiful wooden old happy colorful brown "
    "tall young cute modern pink purple yellow dirty wet empty japanese german",
    VERB: "is sitting standing riding holding eating playing walking are has flying wearing "
    "looking swims parked covered filled isn aren doesn",
    OTHER: "a the of in on with and to at from by for near above below between two 2 very it his "
    "there , . & - ... 🐶 under while 's 't 'll",
}


def spread(text: str, classes: dict[str, int]) -> list[int]:
    """The class of each token that is of a word, by the word's own."""
    ids = encode_texts([text])
    of = WordClasses(lambda word: classes[word]).of(ids)[0].tolist()
    assert not any(of[:1]) and not any(of[int((ids[0] == 49_407).argmax()) :])
    return [one for one in of if one]


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("A dog", ["a", "dog"]),
        ("Don't they'll WE'VE it's", ["don", "'t", "they", "'ll", "we", "'ve", "it", "'s"]),
        ("2019!!! 10", ["2", "0", "1", "9", "!!!", "1", "0"]),
        ("schön CAFÉ naïve", ["schön", "café", "naïve"]),
        ("👩‍👩‍👧 ☂️x", ["👩‍👩‍👧", "☂️", "x"]),
        ("日本語のテキスト。", ["日本語のテキスト", "。"]),
        ("fish &amp; chips", ["fish", "&", "chips"]),
        ("a T-Shirt, (blue)", ["a", "t", "-", "shirt", ",", "(", "blue", ")"]),
        ("a <end_of_text> b", ["a", "<end_of_text>", "b"]),
        ("skateboarderish hydroplaning", ["skateboarderish", "hydroplaning"]),
    ],
)
def test_words_are_decoded(text: str, words: list[str]) -> None:
    assert decode_words(encode_texts([text])[0]) == words


def test_a_word_that_packing_cut_is_what_is_left_of_it() -> None:
    assert decode_words(encode_texts(["a " * 74 + "skateboarderish"])[0])[-1] == "skate"
    assert decode_words(encode_texts(["x" * 500])[0])[0].startswith("xxxx")
    assert decode_words(encode_texts(["a " * 74 + "日本語"])[0])[-1]


def test_words_start_where_the_last_one_ends() -> None:
    ids = encode_texts(["one two-three", "", "!! 12", "日本語 x" * 30])
    inside, starts, ends = find_words(ids)
    assert np.array_equal(starts.sum(axis=1), ends.sum(axis=1))
    assert np.array_equal(starts[:, 2:], ends[:, 1:-1] & inside[:, 2:])
    assert not (inside & ((ids == 49_406) | (ids == 49_407))).any()


def test_all_pieces_of_a_word_have_its_class() -> None:
    classes = {"a": OTHER, "skateboarderish": NOUN, "日本語": ADJECTIVE, "is": VERB, "!!": OTHER}
    pieces = {word: int(find_words(encode_texts([word]))[0].sum()) for word in classes}
    assert pieces["skateboarderish"] > 1 and pieces["日本語"] > 1
    text = "is skateboarderish A 日本語 !! skateboarderish is"
    wanted = [classes[word] for word in text.lower().split() for _ in range(pieces[word])]
    assert spread(text, classes) == wanted


def test_a_memory_of_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipa_scaling.train.words.MOST_WORDS", 2)
    texts = ["skateboarderish 日本語 hydroplaning 日本語", "hydroplaning skateboarderish x y z"]
    ids = encode_texts(texts * 3)
    asked: list[str] = []

    def tag(word: str) -> int:
        asked.append(word)
        return 1 + sum(word.encode()) % 4

    narrow = WordClasses(tag)
    whole = narrow.of(ids)
    assert np.array_equal(whole[:2], whole[4:]) and len(narrow.longer) <= 2
    assert asked.count("x") == 1, "words of one piece are asked for once"
    rows = [narrow.of(ids[row : row + 1]) for row in range(len(ids))]
    assert np.array_equal(np.concatenate(rows), whole)


# Taggers


def test_textblob_classes_the_words_of_captions() -> None:
    tag = make_tagger(TEXTBLOB)
    judged = [(word, wanted) for wanted, words in JUDGED.items() for word in words.split()]
    wrong = [word for word, wanted in judged if tag(word) != wanted]
    assert len(judged) > 110 and not wrong


def test_scenes_know_all_their_words() -> None:
    tag = make_tagger(name_tagger("scenes", ""))
    words = {w for text in make_scenes(0, 0, 400, 8)[1] for w in text.replace(",", " ,").split()}
    others = {"a", "an", "in", "the", "and", "to", "of", "with", "there", "above", "below", ","}
    assert {word for word in words if tag(word) == OTHER} == others
    assert [tag(word) for word in ("heart", "left", "picture")] == [NOUN] * 3
    assert [tag(word) for word in ("small", "dotted", "teal", "top")] == [ADJECTIVE] * 4
    assert {word for word in words if tag(word) == VERB} == {"is"}


def test_nltk_needs_data_that_the_user_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    name = name_tagger("shards", "nltk")
    with pytest.raises(DataError, match=r"nltk\.downloader averaged_perceptron_tagger_eng, or"):
        make_tagger(name)
    folder = tmp_path / "taggers" / "averaged_perceptron_tagger_eng"
    folder.mkdir(parents=True)
    weights = {"i suffix ing": {"VBG": 2.0}, "bias": {"NN": 1.0}}
    tables = {"weights": weights, "tagdict": {"red": "JJ"}, "classes": ["JJ", "NN", "VBG"]}
    for what, table in tables.items():
        (folder / f"averaged_perceptron_tagger_eng.{what}.json").write_text(json.dumps(table))
    tag = make_tagger(name)
    assert [tag(word) for word in ("red", "dog", "running", "7")] == [ADJECTIVE, NOUN, VERB, OTHER]


def test_names_have_versions() -> None:
    assert name_tagger("scenes", "") == name_tagger("scenes", "scenes") == "scenes-2"
    assert TEXTBLOB == name_tagger("folder", "textblob") == f"textblob-{version('textblob')}"
    assert name_tagger("scenes", "nltk") == f"nltk-{version('nltk')}"
    assert name_tagger("shards", "nltk-3.8") == "nltk-3.8"  # of a pack that has them


def test_what_cannot_tag_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"tagger='scenes' is not allowed here; allowed: textblob,"):
        name_tagger("shards", "scenes")
    with pytest.raises(DataError, match=r"tagger='spacy' .*; allowed: scenes, textblob, nltk$"):
        name_tagger("scenes", "spacy")
    with pytest.raises(DataError, match=r"here; pip install 'textblob==0\.1', or set data\.tagger"):
        make_tagger("textblob-0.1")
    with pytest.raises(DataError, match="word classes of scenes-1 are asked for and scenes 2 is"):
        make_tagger("scenes-1")

    def absent(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.setattr(taggers, "version", absent)
    with pytest.raises(DataError, match=r"not installed; pip install 'clipa_scaling\[syntax\]'$"):
        name_tagger("shards", "")
    assert name_tagger("scenes", "") == "scenes-2", "its own words need no package"


def test_emoji_captions_are_words_again(shared: Path) -> None:
    shard = shared / "data" / "emoji" / "train-00000.tar"
    texts = [members["txt"].decode() for _, members in read_shard(shard)]
    ids = encode_texts(texts)
    clean = SimpleTokenizer().clean_fn  # straightens quotes
    letters = ["".join(clean(text).split()) for text in texts]
    whole = [row for row, last in enumerate(ids[:, -1]) if not last]
    wrong = [texts[row] for row in whole if "".join(decode_words(ids[row])) != letters[row]]
    assert len(whole) > 2_000 and not wrong
    classes = WordClasses(make_tagger(TEXTBLOB)).of(ids)
    assert 0.3 < np.mean(classes[classes > 0] == NOUN) < 0.6
