"""Taggers: a word alone -> noun, adjective, verb or other.

Each word is judged alone, as the code behind the papers does with each entry of its vocabulary
(arXiv:2305.07017, section 3.3; in context only in its port to open_clip): a word is then judged
once in a pack, not once in a caption, and captions that are lists of keywords have no grammar.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

from clipa_scaling.source import SCENES_VERSION, DataError
from clipa_scaling.taggers import OWN, find_version, split_tagger

NO_WORD, NOUN, ADJECTIVE, VERB, OTHER = range(5)
PENN = {"NN": NOUN, "JJ": ADJECTIVE, "VB": VERB}  # tags of the Penn Treebank, by two letters
# What CLIP's tokenizer makes of isn't and its like, spelt as taggers know them; `don` and `won` are
# words themselves, and stay.
NEGATED = "is are was were has had does did could would should must need"
SPELT = {"'t": "n't"} | {f"{word}n": word for word in NEGATED.split()}

Tagger = Callable[[str], int]


def make_tagger(name: str) -> Tagger:
    """The tagger of this name, which gives a lower-cased word its class, 1 to 4.

    DataError where its package is absent or of another version, or its data is missing.
    """
    tagger, wanted = split_tagger(name)
    there = str(SCENES_VERSION) if tagger == OWN else find_version(tagger)
    if there != wanted:
        raise DataError(
            f"word classes of {name} are asked for and {tagger} {there} is here; "
            f"pip install '{tagger}=={wanted}', or set data.tagger: {tagger}"
        )
    return {OWN: tag_scenes, "textblob": tag_by_textblob, "nltk": tag_by_nltk}[tagger]()


def tag_scenes() -> Tagger:
    """The generated data's own words; all that is not listed is other."""
    from clipa_scaling.train.paint import COLOURS, SHAPES, TEXTURES
    from clipa_scaling.train.scenes import COLUMNS, ROWS, SIZES

    classes = dict.fromkeys((*SHAPES, *COLUMNS, "picture"), NOUN)
    classes |= dict.fromkeys((*SIZES, *TEXTURES, *COLOURS, *ROWS), ADJECTIVE)  # top left: of left
    classes["is"] = VERB
    return lambda word: classes.get(word, OTHER)


def tag_by_textblob() -> Tagger:
    """Brill's lexicon of 94,000 words, and rules of word endings for all others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # its files are left to the collector
        from textblob.en import lexicon, parser

        parser.find_tags(["unheardof"])  # reads them

    def tag(word: str) -> int:
        # Captions are lower-cased and the lexicon is not: `japanese` is found as `Japanese`.
        known = word if word in lexicon else word.capitalize()
        spelt = known if known in lexicon else word
        return from_penn(parser.find_tags([spelt])[0][1])

    return of_letters(tag)


def tag_by_nltk() -> Tagger:
    """NLTK's averaged perceptron, with data that the user provides; nothing is downloaded."""
    from nltk.tag.perceptron import PerceptronTagger

    try:
        perceptron = PerceptronTagger()
    except LookupError:
        raise DataError(
            "nltk is installed and its data averaged_perceptron_tagger_eng is not; python -m "
            "nltk.downloader averaged_perceptron_tagger_eng, or name their folder in NLTK_DATA"
        ) from None
    return of_letters(lambda word: from_penn(perceptron.tag([word])[0][1]))


def of_letters(tag: Tagger) -> Tagger:
    """A tagger that is asked for words only: numbers, punctuation and emoji are other."""

    def guarded(word: str) -> int:
        if not any(letter.isalpha() for letter in word):
            return OTHER
        return tag(SPELT.get(word, word))

    return guarded


def from_penn(tag: str) -> int:
    """The class of a tag as in the papers' code: NN*, JJ*, VB* and the rest."""
    return PENN.get(tag[:2], OTHER)
