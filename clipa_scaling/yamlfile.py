"""Reading a sweep file: YAML 1.2 to plain values, with the line of every key for error messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from clipa_scaling.spec import nearest

Where = tuple[str | int, ...]


class SweepError(ValueError):
    """A mistake in a sweep file, in one line: file, line, key, rule, way out."""


@dataclass(frozen=True)
class Document:
    """A sweep file's values and the line on which each key stands."""

    path: Path
    values: dict[str, Any]
    lines: Mapping[Where, int]

    def error(self, where: Where, message: str) -> SweepError:
        """The error at a place; one that the file does not spell out gets its parent's line."""
        known = where
        while known and known not in self.lines:
            known = known[:-1]
        key = ".".join(map(str, where))
        place = f"{self.path}:{self.lines.get(known, 1)}"
        # One line, whatever line breaks a key or value of the file holds.
        said = " ".join(f"{key}: {message}".split() if key else message.split())
        return SweepError(f"{place}: {said}")

    def check_mapping(self, where: Where, values: Any) -> Mapping[str, Any]:
        """The mapping at a place, whatever its keys."""
        if not isinstance(values, dict):
            raise self.error(where, f"got {values!r}; allowed: a mapping, key: value")
        return values

    def check_keys(self, where: Where, values: Any, known: Iterable[str]) -> Mapping[str, Any]:
        """The mapping at a place, every key known; SweepError with the nearest right key."""
        known = list(known)
        if not isinstance(values, dict):
            raise self.error(where, f"got {values!r}; allowed: a mapping with {', '.join(known)}")
        for key in values:
            if key not in known:
                raise self.error((*where, key), f"unknown key; {nearest(str(key), known)}")
        return values

    def check_list(self, where: Where, values: Any) -> list[Any]:
        """The non-empty list at a place."""
        if not isinstance(values, list):
            raise self.error(where, f"got {values!r}; allowed: a list, e.g. [{values!r}]")
        if not values:
            raise self.error(where, "is empty; give it a value, or remove the key")
        return values

    def check_scalar(self, where: Where, value: Any, kind: type) -> Any:
        """The value at a place as str, int, float or bool; an integer is a float too."""
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise self.error(where, f"got {value!r}; allowed: a value of type {kind.__name__}")
        return value


class DatesAreText(RoundTripConstructor):
    """A date stays what was written, so that one that is none can be told with its place."""


DatesAreText.add_constructor("tag:yaml.org,2002:timestamp", RoundTripConstructor.construct_scalar)


def load_document(path: Path) -> Document:
    """Read a sweep file; SweepError for no file, bad YAML, a duplicate key or no mapping on top."""
    raw = read_yaml(path, "sweep file", "see the sweep files in sweeps/")
    if not isinstance(raw, CommentedMap):
        raise SweepError(f"{path}:1: holds no mapping; allowed: keys such as name, data, axes")
    lines: dict[Where, int] = {}
    values = plain(raw, (), lines)
    return Document(path, values, lines)


def load_list(path: Path, example: str) -> tuple[Document, list[Any]]:
    """Read a file with a list on top, whose places begin with an index; an empty file is [].

    example: an entry, for error messages. Raises SweepError as `load_document` does.
    """
    raw = read_yaml(path, "list", f"an entry looks so: {example}", DatesAreText)
    if raw is not None and not isinstance(raw, CommentedSeq):
        raise SweepError(f"{path}:1: holds no list; an entry looks so: {example}")
    lines: dict[Where, int] = {}
    entries = plain(raw, (), lines) or []
    return Document(path, {}, lines), entries


def read_yaml(path: Path, kind: str, way_out: str, constructor: type = RoundTripConstructor) -> Any:
    """A file's YAML with its wrappers; SweepError, with the way out, where there is none."""
    yaml = YAML(typ="rt")
    yaml.Constructor = constructor
    try:
        return yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SweepError(f"{path}: cannot be read ({error.strerror}); give a {kind}") from None
    except UnicodeDecodeError:
        raise SweepError(f"{path}: is not UTF-8 text; give a YAML {kind}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise SweepError(f"{path}:{mark.line + 1 if mark else 1}: {problem}; {way_out}") from None


def plain(node: Any, where: Where, lines: dict[Where, int]) -> Any:
    """The node without YAML's wrappers; fills `lines`."""
    if isinstance(node, CommentedMap):
        for key in node:
            placed = key in (node.lc.data or {})  # a merged key stands elsewhere
            lines[(*where, key)] = node.lc.key(key)[0] + 1 if placed else node.lc.line + 1
        return {key: plain(value, (*where, key), lines) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            lines[(*where, index)] = node.lc.item(index)[0] + 1
        return [plain(value, (*where, index), lines) for index, value in enumerate(node)]
    if isinstance(node, ScalarBoolean):
        return bool(node)
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return node if kind is bool else kind(node)
    return node
