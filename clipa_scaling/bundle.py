"""A study in one zip file: all that a reader needs to fit it again, offline.

python -m clipa_scaling.bundle results/NAME [SWEEP.yaml] OUT.zip
python -m clipa_scaling.bundle --check OUT.zip
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version

import pandas as pd

from clipa_scaling import schema
from clipa_scaling.collect import load_tables
from clipa_scaling.pipelines import read_runs
from clipa_scaling.revision import find_revision
from clipa_scaling.rundir import write_bytes
from clipa_scaling.schema import TableError

MANIFEST = "manifest.json"
PACKAGES = ("clipa_scaling", "numpy", "pandas", "pyarrow", "scipy", "matplotlib", "torch")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: equal files, equal bytes
# A slash or drive with two names after it, as in an error message: not B/16, 1/s or a web address.
PATH = re.compile(r"(?<![\w.:/])(?:/[\w.~-]+/[\w.~-]+|[A-Za-z]:\\[\w.~-]+|~/[\w.~-]+)")
COMMANDS = {
    "figures": "draws the figures again",
    "report": "writes everything, laws and verdict too, on one HTML page",
    "exclusions": "applies exclusions.yaml after you changed it",
    "inverse": "fits again and prints the verdict",
}
README = """\
# {name}

A study of how CLIP training scales, made with clipa_scaling (revision {revision}).

| what | is |
|---|---|
| `{name}/runs`, `evals`, `curves`, `pipelines` | the tables, each as CSV and as Parquet; the last one where the study has stages. `python -m clipa_scaling.schema` says what every column means |
| `{name}/exclusions.yaml` | which runs fits and figures leave out, why, who said so and when; if any |
| `{name}/figures/` and the rest of `{name}/` | what was made of the tables |
| `specs.json` | what each run was: the fields that determine its weights |
| `sweep/` | the file that describes the study, as it was; if it was given |
| `versions.json` | Python, packages and revision of the bundling |
| `manifest.json` | the SHA-256 of every file here |

## Fit it again

No pictures, checkpoints or network are needed once the package is installed. In a clone of clipa_scaling at that revision:

    pip install .
    unzip THIS.zip
    python -m clipa_scaling.bundle --check THIS.zip
{commands}
In Python, `clipa_scaling.collect.load_tables(pathlib.Path("{name}"))` gives the tables.
"""  # noqa: E501


def make_bundle(results: Path, sweep: Path | None, with_paths: bool = False) -> dict[str, bytes]:
    """The files of a bundle by their names in it, the manifest last.

    Everything in the results folder but hidden files and bundles goes in as it is. Raises
    FileNotFoundError where there are no tables, TableError where a row holds a path of this
    machine, unless with_paths.
    """
    tables = load_tables(results)
    name = results.resolve().name
    if not with_paths:
        check_paths(tables)
    files = {
        f"{name}/{path.relative_to(results).as_posix()}": path.read_bytes()
        for path in sorted(results.rglob("*"))
        if path.is_file() and path.suffix != ".zip"
        if not any(part.startswith(".") for part in path.relative_to(results).parts)
    }
    if sweep is not None:
        files[f"sweep/{sweep.name}"] = sweep.read_bytes()
    files["specs.json"] = to_json(read_specs(tables))
    files["versions.json"] = to_json(read_versions())
    files["README.md"] = write_readme(name).encode()
    files = dict(sorted(files.items()))
    return files | {MANIFEST: to_json({name: digest(content) for name, content in files.items()})}


def check_paths(tables: Mapping[str, pd.DataFrame]) -> None:
    for table, rows in tables.items():
        for column in map(str, rows.select_dtypes("string")):
            if column == "correct":  # base64
                continue
            found = rows[column].dropna()
            found = found[found.str.contains(PATH)]
            if len(found):
                path = PATH.search(str(found.iloc[0]))
                assert path is not None
                raise TableError(
                    f"{table}.csv: {column} of row {int(found.index[0]) + 2} holds a path of this "
                    f"machine, {path[0]}…; --with-paths bundles it all the same"
                )


def read_specs(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, object]]:
    """By run: its stage, state and the fields that determine its weights; None is not known."""
    names = ("stage", "state", *schema.SPEC)
    return {
        run: {name: row[name] for name in names} for run, row in sorted(read_runs(tables).items())
    }


def read_versions() -> dict[str, str]:
    found = {"python": python_version(), "revision": find_revision() or "unknown"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a reader's installation may lack torch
            found[package] = "not installed"
    return found


def write_readme(name: str) -> str:
    width = max(len(f"{module} {name}") for module in COMMANDS)
    commands = "".join(
        f"    python -m clipa_scaling.{f'{module} {name}':<{width}}   # {does}\n"
        for module, does in COMMANDS.items()
        if find_spec(f"clipa_scaling.{module}") is not None
    )
    revision = find_revision() or "unknown"
    return README.format(name=name, revision=revision, commands=commands)


def to_json(value: object) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_zip(files: Mapping[str, bytes], path: Path) -> None:
    """The files in a zip, in order and without times or owners: equal files, equal bytes."""
    temporary = path.with_name(f".{path.name}.tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    content = temporary.read_bytes()
    temporary.unlink()
    write_bytes(path, content)


def check_bundle(path: Path) -> list[str]:
    """What is wrong with a bundle, a line each: missing, changed, and unlisted files."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {entry.filename: archive.read(entry) for entry in archive.infolist()}
            listed: dict[str, str] = json.loads(found[MANIFEST])
    except OSError as error:
        return [f"{path}: {error.strerror}; give a bundle that was made by this command"]
    except KeyError:
        return [f"{path}: holds no {MANIFEST}"]
    except (zipfile.BadZipFile, ValueError, zlib.error) as error:
        return [f"{path}: cannot be read ({error})"]
    names = sorted((found.keys() | listed.keys()) - {MANIFEST})
    faults = {
        name: "is missing" if name not in found
        else "is not in the manifest" if name not in listed
        else "has changed"
        for name in names
        if name not in found or digest(found[name]) != listed.get(name)
    }  # fmt: skip
    return [f"{path}: {name} {fault}" for name, fault in faults.items()]


def main(arguments: Sequence[str] | None = None) -> int:
    """0, 1 for a bundle that fails its check, 2 for what cannot be bundled."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.bundle",
        description="Put a study's tables, sweep file, figures and fits into one zip file.",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="results/NAME [SWEEP.yaml] OUT.zip")
    parser.add_argument("--check", action="store_true", help="verify a bundle: its path alone")
    parser.add_argument("--with-paths", action="store_true", help="even if rows hold local paths")
    options = parser.parse_args(arguments)
    if options.check:
        faults = [fault for path in options.paths for fault in check_bundle(path)]
        print("\n".join(faults) or "every file is as the manifest says")
        return 1 if faults else 0
    if len(options.paths) not in (2, 3):
        parser.error("give results/NAME, the sweep file if you have it, and OUT.zip")
    results, *sweep, out = options.paths
    try:
        files = make_bundle(results, sweep[0] if sweep else None, options.with_paths)
        write_zip(files, out)
    except (FileNotFoundError, TableError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{out}: {len(files)} files, {out.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
