"""The rules of the house as functions of text: layers, walls, owners, sizes, links, paths.

Each returns or yields what is wrong; `test_architecture.py` applies them to the whole tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

PACKAGE = "clipa_scaling"

# Lowest first: a module imports only from the rows above its own, never from its own row. A folder
# stands for all its modules; they are free among themselves, but no imports run in a circle.
LAYERS = (
    ("schema", "models", "lawform", "claim", "correct", "revision", "optimum"),
    ("spec", "counts", "foreign", "lawterms", "minimise"),
    ("memory", "powers", "saturated"),
    ("laws", "source", "rundir", "cost", "extras", "resolve", "branch"),
    ("taggers", "vocabulary", "weights", "speed", "hours", "evaluation", "class_labels"),
    ("train", "packrequest", "yamlfile", "children"),
    ("stage", "resources", "datablock", "scores"),
    ("tuneblock", "derive"),
    ("grid",),
    ("tune",),
    ("sweepfile", "evaluation_cost"),
    ("plan", "published", "evaluatefile", "measured"),
    ("collect", "show", "cells", "keptplan"),
    ("refuse",),
    ("pipelines", "intervals", "benchmark_json"),
    ("exclusions",),
    ("paired", "provenance"),
    ("compared", "multiplier", "identify", "fitted", "scatter", "valleys"),
    ("censored", "resample", "solve", "answers", "frontier", "papertables", "paperstudy"),
    ("slopes", "points", "bootstrap", "profile", "splits"),
    ("rollout", "sensitivity", "drops", "tolerated", "gain", "lacking", "lawworlds"),
    ("verdict", "tabulate", "tournament", "checklist"),
    ("verdicttable", "analysis", "judge"),
    (
        "fittables",
        "fitjson",
    ),
    ("inverse", "worlds", "fit", "cost_tables"),
    ("launch", "planned", "assumed", "capped", "pricing", "split"),
    ("recipe", "foresee", "layout"),
    ("changes", "recipetable"),
    ("outlook",),
    ("advicetable",),
    ("advise",),
    ("figures",),
    ("outcome", "page", "imports", "bundle", "tunetable"),
    ("sections",),
    ("findings",),
    ("papersections",),
    ("report",),
    ("finish",),
    ("start", "look", "calibrate"),
    ("evaluating",),
    ("sweep",),
)
HEIGHT = {area: height for height, row in enumerate(LAYERS) for area in row}
FOLDERS = ("train", "launch", "figures")

# The two walls, and the one door in them.
ONLY_IN_TRAIN = ("torch", "torchvision", "open_clip", "timm", "safetensors", "cv2", "PIL")
NEVER_IN_TRAIN = ("pandas", "scipy", "matplotlib", "submitit")
DOOR = (f"{PACKAGE}.launch.job", f"{PACKAGE}.train.loop")

# Areas, or single modules of a folder.
OWNERS: Mapping[str, tuple[str, ...]] = {
    "ruamel": ("yamlfile",),
    "yaml": (),  # comes along with open_clip, and reads YAML 1.1
    "matplotlib": ("figures",),
    "submitit": ("launch",),
    "tensorboard": ("train.loggers",),
    "wandb": ("train.loggers",),
    "huggingface_hub": ("vocabulary",),
    "tokenizers": ("train.wordpiece",),
    "textblob": ("train.tagging",),
    "nltk": ("train.tagging",),
    "scipy": (
        "cells",
        "optimum",
        "intervals",
        "censored",
        "scatter",
        "profile",
        "drops",
        "tolerated",
        "inverse",
        "advise",
        "recipe",
        "foresee",
    ),
}

LONGEST_FILE, LONGEST_FUNCTION = 310, 60
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|tmp)/")  # does not match its own text
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(<?([^)\s>]+)|\b(?:src|href)=\"([^\"]+)\"")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#")  # another scheme, or a heading of the same page


# Imports


class Import(NamedTuple):
    line: int
    target: str  # the dotted module; relative ones keep their leading dots


def read_imports(source: str, modules: frozenset[str]) -> Iterator[Import]:
    """Every import, also those in functions and under TYPE_CHECKING: the rules hold for all."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield Import(node.lineno, inner if inner in modules else origin)


def name_module(path: str) -> str:
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def area_of(module: str) -> str:
    """`clipa_scaling.train.loop` is in `train`, the package itself in ``."""
    return module.split(".")[1] if "." in module else ""


def import_fault(module: str, target: str) -> str | None:
    """The rule that `module` breaks when it imports `target`; None when it breaks none."""
    if target.startswith("."):
        return "relative import: write the whole name"
    here, there = area_of(module), area_of(target)
    if target.split(".")[0] != PACKAGE:
        return foreign_fault(module, target.split(".")[0])
    if target == PACKAGE or (here == there and here in FOLDERS) or (module, target) == DOOR:
        return None
    if there == "train":
        return "wall: outside train/ only launch/job.py imports train.loop, and nothing else of it"
    for area in (here, there):
        if area and area not in HEIGHT:
            return f"layers: {area} has none; give it its row in LAYERS"
    if HEIGHT[there] >= HEIGHT.get(here, -1):
        return f"layers: {there} is not below {here or PACKAGE}"
    return None


def foreign_fault(module: str, package: str) -> str | None:
    here = area_of(module)
    if package in ONLY_IN_TRAIN and here != "train":
        return f"wall: {package} is imported inside train/ only"
    if package in NEVER_IN_TRAIN and here == "train":
        return f"wall: {package} is never imported inside train/"
    if not {here, module.removeprefix(f"{PACKAGE}.")} & {*OWNERS.get(package, (here,))}:
        return f"owner: {package} belongs to {', '.join(OWNERS[package]) or 'nobody'}"
    return None


def find_circle(imports: Mapping[str, list[str]]) -> list[str]:
    """The first circle of imports, each module followed by one it imports; empty without one."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


# Sizes, links, paths


def size_faults(path: str, source: str) -> Iterator[str]:
    lines = len(source.splitlines())
    if lines > LONGEST_FILE:
        yield f"{path}:{lines}: size: {lines} lines; allowed: {LONGEST_FILE}: two ideas, two files"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                allowed = f"allowed: {LONGEST_FUNCTION}"
                yield f"{path}:{node.lineno}: size: {node.name} has {length} lines; {allowed}"
    if PurePosixPath(path).name == "utils.py":
        yield f"{path}:1: name: utils.py says nothing; name the file after its idea"


def link_faults(path: str, text: str, root: Path) -> Iterator[str]:
    """Relative links of a page that lead nowhere; code shows links, it has none."""
    prose = CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text)
    for match in LINK.finditer(prose):
        target = (match[1] or match[2]).partition("#")[0]
        if ELSEWHERE.match(match[1] or match[2]) or (root / path).parent.joinpath(target).exists():
            continue
        yield f"{path}:{prose.count(chr(10), 0, match.start()) + 1}: dead link: {target}"


def path_faults(path: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if MACHINE_PATH.search(line):
            yield f"{path}:{number}: path of one machine: {line.strip()[:80]}"
