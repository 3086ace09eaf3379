"""A sweep file as a whole: its data, evaluation sets, grid, resources and budget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from clipa_scaling.grid import Grid, make_grid
from clipa_scaling.resources import Budget, Resources, Slurm, read_resources, read_slurm
from clipa_scaling.source import DataError, Source, fingerprint
from clipa_scaling.spec import EvalSet, nearest
from clipa_scaling.yamlfile import Document, Where, load_document

KEYS = (
    "name", "data", "fixed", "axes", "zip", "rules", "exclude", "include", "seeds", "stages",
    "evaluate", "resources", "budget", "slurm",
)  # fmt: skip
SOURCE_KEYS = {"id": str, "caption": str, "label": str, "pairs": int, "seed": int}
DATA_KEYS = ("train", "store_px", "max_unreadable", "evals", *SOURCE_KEYS)
EVAL_KEYS = ("path", "task", "prompts", *SOURCE_KEYS)
PROTOCOLS = ("common", "paper")


@dataclass(frozen=True)
class PackRequest:
    """A data set to decode once, the folder that will hold it, and where the file asks for it."""

    place: str
    folder: Path
    fingerprint: str
    source: Source
    store_px: int
    needs: Literal["captions", "labels"]
    max_unreadable: float


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and expanded.

    data: the file's own words on data. missing: which of it is not there, if any.
    """

    path: Path
    name: str
    data: Mapping[str, Any]
    grid: Grid
    packs: tuple[PackRequest, ...]
    resources: Resources
    budget: Budget
    slurm: Slurm
    missing: str | None


def load_sweep(path: Path, packs: Path, max_parallel: int | None = None) -> Sweep:
    """Read a sweep file; `packs` is the folder of packs. SweepError for any mistake in it.

    max_parallel: takes the place of the file's slurm.max_parallel.

    Missing data is no mistake of the file: it is named in `missing`, and the runs' data
    fingerprints say so.
    """
    document = load_document(path)
    document.check_keys((), document.values, KEYS)
    for needed in ("name", "data"):
        if needed not in document.values:
            raise document.error((), f"has no {needed}; add it, see the sweep files in sweeps/")
    name = document.check_scalar(("name",), document.values["name"], str)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise document.error(
            ("name",), f"{name!r} makes no folder name; allowed: letters, 0-9 _ . -"
        )
    data = DataBlock(document, packs)
    given: dict[str, Any] = {
        "data_fingerprint": data.train.fingerprint,
        "store_px": data.train.store_px,
        "pack": str(data.train.folder),
        "evals": tuple(data.evals),
        "protocols": read_protocols(document),
    }
    resources, budget = read_resources(document)
    slurm = read_slurm(document)
    if max_parallel is not None:
        slurm = replace(slurm, max_parallel=max_parallel)
    return Sweep(
        path=path,
        name=name,
        data=document.values["data"],
        grid=make_grid(document, given),
        packs=tuple({pack.folder: pack for pack in data.requests}.values()),
        resources=resources,
        budget=budget,
        slurm=slurm,
        missing=data.missing,
    )


class DataBlock:
    """The `data` block: the training set and the evaluation sets, as pack requests."""

    def __init__(self, document: Document, packs: Path):
        self.document, self.packs = document, packs
        self.missing: str | None = None
        self.requests: list[PackRequest] = []
        body = document.check_keys(("data",), document.values["data"], DATA_KEYS)
        for needed in ("train", "store_px"):
            if needed not in body:
                raise document.error(("data",), f"has no {needed}; add it")
        self.store_px = document.check_scalar(("data", "store_px"), body["store_px"], int)
        if not 8 <= self.store_px <= 2048:
            raise document.error(("data", "store_px"), f"{self.store_px} px; allowed: 8 to 2048")
        share = document.check_scalar(
            ("data", "max_unreadable"), body.get("max_unreadable", 0.01), float
        )
        if not 0 <= share <= 1:
            raise document.error(("data", "max_unreadable"), f"{share}; allowed: 0 to 1")
        self.max_unreadable = share
        self.train = self.request(("data", "train"), body, "captions")
        self.evals = [
            self.read_eval(("data", "evals", name), str(name), entry)
            for name, entry in self.read_evals(body.get("evals", {})).items()
        ]

    def read_evals(self, body: Any) -> Mapping[str, Any]:
        if not isinstance(body, dict):
            where: Where = ("data", "evals")
            raise self.document.error(where, f"got {body!r}; allowed: a mapping of sets")
        return body

    def read_eval(self, where: Where, name: str, body: Any) -> EvalSet:
        self.document.check_keys(where, body, EVAL_KEYS)
        for needed in ("path", "task"):
            if needed not in body:
                raise self.document.error(where, f"has no {needed}; add it")
        task = body["task"]
        if task not in ("classify", "retrieve"):
            message = f"{task!r} is no task; allowed: classify, retrieve"
            raise self.document.error((*where, "task"), message)
        needs: Literal["captions", "labels"] = "labels" if task == "classify" else "captions"
        request = self.request((*where, "path"), body, needs)
        self.check_unseen(where, request)
        if task == "retrieve" and "prompts" in body:
            message = "are for task: classify; retrieval has captions; remove them"
            raise self.document.error((*where, "prompts"), message)
        prompts = self.document.check_list(
            (*where, "prompts"), body.get("prompts", ["a photo of a {}"])
        )
        for index, prompt in enumerate(prompts):
            if not isinstance(prompt, str) or prompt.count("{}") != 1:
                place = (*where, "prompts", index)
                raise self.document.error(place, f"{prompt!r} needs one {{}} for the class name")
        return EvalSet(name, task, str(request.folder), request.fingerprint, tuple(prompts))

    def check_unseen(self, where: Where, request: PackRequest) -> None:
        """Raise SweepError for an evaluation on the training pictures."""
        trained, source = self.train.source, request.source
        same_scenes = source.kind == trained.kind == "scenes" and source.seed == trained.seed
        if same_scenes:
            message = f"{source.seed} is the training pictures'; allowed: any other seed"
            raise self.document.error((*where, "seed"), message)
        if source.kind == trained.kind == "shards" and source.where == trained.where:
            message = "are the training shards; give others, for pictures never trained on"
            raise self.document.error((*where, "path"), message)

    def request(
        self, where: Where, body: Mapping[str, Any], needs: Literal["captions", "labels"]
    ) -> PackRequest:
        """The pack of one data set; data that is not there is noted in `missing`."""
        source = self.read_source(where, body)
        try:
            digits = fingerprint(source, self.store_px)
        except (DataError, OSError, ValueError) as error:
            self.missing = self.missing or str(self.document.error(where, str(error)))
            digits = "missing"
        folder = self.packs / f"{digits}-{needs}"
        place = str(self.document.error(where, "")).removesuffix(":")
        request = PackRequest(
            place, folder, digits, source, self.store_px, needs, self.max_unreadable
        )
        if digits != "missing":
            self.requests.append(request)
        return request

    def read_source(self, where: Where, body: Mapping[str, Any]) -> Source:
        block = where[:-1]
        path = self.document.check_scalar(where, body[str(where[-1])], str)
        options = {
            name: self.document.check_scalar((*block, name), body[name], kind)
            for name, kind in SOURCE_KEYS.items()
            if name in body
        }
        if path == "scenes":
            if options.get("pairs", 0) < 1:
                raise self.document.error((*block, "pairs"), "scenes need pairs above 0; add pairs")
            for name in ("caption", "label", "id"):
                if name in options:
                    message = "is for shards, and scenes have no fields; remove it"
                    raise self.document.error((*block, name), message)
            kind, location = "scenes", "scenes"
        else:
            if "pairs" in options or "seed" in options:
                raise self.document.error(where, "pairs and seed are for scenes; remove them")
            # A relative path is relative to the sweep file, so that it means the same everywhere.
            try:
                location = str(self.document.path.resolve().parent / Path(path).expanduser())
                kind = "folder" if is_class_folder(Path(location)) else "shards"
            except (OSError, RuntimeError, ValueError) as error:
                message = f"{path!r} cannot be looked up ({error}); give a path that can be read"
                raise self.document.error(where, message) from None
        return Source(
            kind=kind,
            where=location,
            caption=options.get("caption"),
            label=options.get("label"),
            pairs=options.get("pairs", 0),
            seed=options.get("seed", 0),
            id=options.get("id"),
        )


def is_class_folder(path: Path) -> bool:
    """A folder without shards holds one folder per class."""
    if not path.is_dir():
        return False
    return not any(path.glob("*.tar")) and not any(path.glob("*.t*gz"))


def read_protocols(document: Document) -> tuple[str, ...]:
    """The evaluation protocols, `common` unless the file says otherwise."""
    body = document.check_keys(("evaluate",), document.values.get("evaluate", {}), ["protocol"])
    listed = document.check_list(("evaluate", "protocol"), body.get("protocol", ["common"]))
    for index, name in enumerate(listed):
        place = ("evaluate", "protocol", index)
        if name not in PROTOCOLS:
            raise document.error(place, f"{name!r} is no protocol; {nearest(str(name), PROTOCOLS)}")
        if name in listed[:index]:
            raise document.error(place, f"{name!r} stands twice; remove one")
    return tuple(listed)
