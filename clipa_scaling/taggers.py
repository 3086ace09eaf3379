"""What tells nouns from verbs, by a name with its version; installed or not, nothing is loaded.

A name is the tagger's and the version of its package: `scenes-2`, `textblob-0.20.1`, `nltk-3.10.4`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from clipa_scaling.source import SCENES_VERSION, DataError

OWN = "scenes"  # the generated data's own words, which need no package
PACKAGES = ("textblob", "nltk")  # of taggers of English, the default first
EXTRA = "clipa_scaling[syntax]"


def name_tagger(kind: str, asked: str) -> str:
    """The tagger of a data set of this `Source.kind`: `asked`, or the default where it is empty.

    `asked` is a tagger, or one of a version, as in `nltk-3.9.1`: that is taken at its word, so that
    a pack whose words are classed needs no package. DataError where nothing suitable is installed.
    """
    tagger, given = split_tagger(asked or (OWN if kind == "scenes" else PACKAGES[0]))
    if tagger == OWN and kind == "scenes":
        return f"{OWN}-{SCENES_VERSION}"
    if tagger not in PACKAGES:
        allowed = ", ".join((OWN, *PACKAGES) if kind == "scenes" else PACKAGES)
        raise DataError(f"tagger={asked!r} is not allowed here; allowed: {allowed}")
    return f"{tagger}-{given or find_version(tagger)}"


def split_tagger(name: str) -> tuple[str, str]:
    """A name's tagger and version, which is empty where none is named."""
    tagger, _, given = name.partition("-")
    return tagger, given


def find_version(tagger: str) -> str:
    """The version installed of a tagger's package; DataError where there is none."""
    try:
        return version(tagger)
    except PackageNotFoundError:
        raise DataError(
            f"text_reduction: syntax needs {tagger}, which is not installed; pip install '{EXTRA}'"
        ) from None


def classes_mark(name: str) -> str:
    """The file that says, in a pack's folder, that all its words are classed by this tagger."""
    return f"classes-{name}.json"
