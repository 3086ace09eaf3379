"""The whole tree keeps the house rules, and each rule can be seen to fail."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from house_rules import (
    HEIGHT,
    PACKAGE,
    Import,
    area_of,
    find_circle,
    import_fault,
    link_faults,
    name_module,
    path_faults,
    read_imports,
    size_faults,
)

ROOT = Path(__file__).resolve().parents[1]


@cache
def read_tree() -> dict[str, str]:
    """Path → text of every text file that git has or would take, so that faults show early."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs git's list of files: this is no checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    tree = {}
    for name in sorted({*listed.split("\0")} - {""}):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in data:
            tree[name] = data.decode("utf-8", errors="replace")
    return tree


def read_package() -> dict[str, str]:
    """Path → source of the package's modules."""
    tree = read_tree()
    return {path: tree[path] for path in tree if re.fullmatch(PACKAGE + r"/.*\.py", path)}


def read_package_imports() -> dict[str, list[Import]]:
    package = read_package()
    modules = frozenset(map(name_module, package))
    return {path: list(read_imports(source, modules)) for path, source in package.items()}


def report(faults: list[str]) -> str:
    return "\n" + "\n".join(faults)


def test_imports_keep_layers_walls_and_owners() -> None:
    faults = [
        f"{path}:{line}: {fault} ({target})"
        for path, imports in read_package_imports().items()
        for line, target in imports
        if (fault := import_fault(name_module(path), target))
    ]
    assert not faults, report(faults)


def test_every_module_has_a_layer() -> None:
    areas = {area_of(name_module(path)): path for path in read_package()}
    faults = [
        f"{path}:1: layers: {area} has none; give it its row in LAYERS"
        for area, path in areas.items()
        if area and area not in HEIGHT
    ]
    assert not faults, report(faults)


def test_no_imports_run_in_a_circle() -> None:
    paths = {name_module(path): path for path in read_package()}
    imports = read_package_imports()
    circle = find_circle({name: [i.target for i in imports[path]] for name, path in paths.items()})
    if circle:
        start = paths[circle[0]]
        line = next(item.line for item in imports[start] if item.target == circle[1])
        pytest.fail(f"{start}:{line}: circle: {' > '.join(circle)}")


def test_files_and_functions_are_short_and_well_named() -> None:
    tree = read_tree()
    faults = [f for path in tree if path.endswith(".py") for f in size_faults(path, tree[path])]
    assert not faults, report(faults)


def test_links_lead_somewhere() -> None:
    tree = read_tree()
    pages = [path for path in tree if path.endswith(".md")]
    faults = [fault for path in pages for fault in link_faults(path, tree[path], ROOT)]
    assert not faults, report(faults)


def test_no_path_of_one_machine() -> None:
    faults = [fault for path, text in read_tree().items() for fault in path_faults(path, text)]
    assert not faults, report(faults)


# The checks can fail


@pytest.mark.parametrize(
    ("module", "target", "fault"),
    [
        ("spec", "clipa_scaling.grid", "layers: grid is not below spec"),
        ("cost", "clipa_scaling.source", "layers: source is not below cost"),
        ("train.loop", "clipa_scaling.plan", "layers: plan is not below train"),
        ("train.loop", "clipa_scaling.yamlfile", "layers: yamlfile is not below train"),
        ("sweep", "clipa_scaling.novel", "layers: novel has none"),
        ("train.loop", "..rundir", "relative import"),
        ("sweep", "clipa_scaling.train.loop", "wall: outside train/"),
        ("launch.local", "clipa_scaling.train.loop", "wall: outside train/"),
        ("launch.job", "clipa_scaling.train.pack", "wall: outside train/"),
        ("plan", "torch.nn", "wall: torch is imported inside train/ only"),
        ("train.loop", "pandas", "wall: pandas is never"),
        ("grid", "ruamel.yaml", "owner: ruamel belongs to yamlfile"),
        ("grid", "yaml", "owner: yaml belongs to nobody"),
        ("outcome", "matplotlib.figure", "owner: matplotlib belongs to figures"),
        ("plan", "submitit", "owner: submitit belongs to launch"),
        ("train.loop", "wandb", "owner: wandb belongs to train.loggers"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, target: str, fault: str) -> None:
    assert (import_fault(f"{PACKAGE}.{module}", target) or "").startswith(fault)


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("launch.job", "clipa_scaling.train.loop"),
        ("train.loop", "clipa_scaling.train.model"),
        ("train.loop", "clipa_scaling"),
        ("train.model", "torch"),
        ("train.pack", "rich.console"),
        ("train.loggers", "tensorboard.summary"),
        ("yamlfile", "ruamel.yaml"),
    ],
)
def test_an_allowed_import_is_allowed(module: str, target: str) -> None:
    assert import_fault(f"{PACKAGE}.{module}", target) is None


def test_the_package_itself_imports_nothing_of_its_own() -> None:
    assert import_fault(PACKAGE, "clipa_scaling.spec") == "layers: spec is not below clipa_scaling"


def test_imports_are_read_wherever_they_stand() -> None:
    source = "import torch.nn as nn\ndef f():\n    from clipa_scaling import spec, __version__\n"
    found = list(read_imports(source, frozenset({"clipa_scaling.spec"})))
    assert found == [(1, "torch.nn"), (3, "clipa_scaling.spec"), (3, "clipa_scaling")]
    assert list(read_imports("from . import x\n", frozenset())) == [(1, ".")]


def test_a_circle_is_seen() -> None:
    assert find_circle({"a": ["b"], "b": ["c"], "c": ["a", "d"]}) == ["a", "b", "c", "a"]
    assert find_circle({"a": ["b", "c"], "b": ["c"]}) == []


def test_what_is_too_long_or_badly_named_is_seen() -> None:
    long = "def f():\n" + "    x = 1\n" * 60
    assert list(size_faults("a.py", long)) == ["a.py:1: size: f has 61 lines; allowed: 60"]
    assert "310" in next(size_faults("a.py", "x = 1\n" * 311))
    assert "utils.py" in next(size_faults("deep/utils.py", ""))


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    page = '[a](there.md#x) [b](https://x/y) `[c](gone)`\n```\n[d](gone)\n```\n[e](no.md "t")\n'
    page += '<img src="lost.png">\n'
    faults = ["page.md:5: dead link: no.md", "page.md:6: dead link: lost.png"]
    assert list(link_faults("page.md", page, tmp_path)) == faults


def test_a_path_of_one_machine_is_seen() -> None:
    text = "".join(("ok\nsee /", "work/x\nhttps://host/", "work/x\n"))
    assert [fault.split(": ")[0] for fault in path_faults("a.txt", text)] == ["a.txt:2"]
