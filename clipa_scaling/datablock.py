"""The `data` block of a sweep file: training, labelled and evaluation sets, as packs and fields."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipa_scaling.class_labels import check_labels
from clipa_scaling.packrequest import Needs, PackRequest, WordPiecePacks
from clipa_scaling.source import (
    SCENES_CLASSES,
    DataError,
    Source,
    find_layout,
    fingerprint,
    list_files,
)
from clipa_scaling.spec import EvalSet, SpecError
from clipa_scaling.taggers import name_tagger
from clipa_scaling.weights import fingerprint_starts, locate_start
from clipa_scaling.yamlfile import Document, SweepError, Where

SOURCE_KEYS = {"id": str, "caption": str, "label": str, "pairs": int, "seed": int}
DATA_KEYS = (
    "train", "store_px", "max_unreadable", "tagger", "vocab", "labelled", "evals", *SOURCE_KEYS,
)  # fmt: skip
LABELLED_KEYS = ("path", "prompts", "classes", *SOURCE_KEYS)
EVAL_KEYS = ("path", "task", "prompts", "images", *SOURCE_KEYS)
DEFAULT_PROMPTS = ["a photo of a {}"]


@dataclass(frozen=True)
class Labelled:
    """Pictures with a class, sentences that take its name, how many classes; 0: unknown."""

    request: PackRequest
    prompts: tuple[str, ...]
    classes: int


class DataBlock:
    """The `data` block: the training set and the evaluation sets, as pack requests."""

    def __init__(self, document: Document, packs: Path):
        self.document, self.packs = document, packs
        self.missing: str | None = None
        self.requests: list[PackRequest] = []
        self.tokenizers: set[str] = set()
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
        self.tagger = document.check_scalar(("data", "tagger"), body.get("tagger", ""), str)
        vocab = document.check_scalar(("data", "vocab"), body.get("vocab", ""), str)
        asked = str(document.path.resolve().parent / vocab) if vocab else ""
        self.wordpiece = WordPiecePacks(packs, asked)
        self.labelled = self.read_labelled(body.get("labelled"))
        self.evals = self.read_evals(("data", "evals"), body.get("evals", {}))

    def fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a run that follow from the data, given those that the file sets."""
        given: dict[str, Any] = {"store_px": self.train.store_px, "evals": tuple(self.evals)}
        chosen = self.train
        if values.get("objective") == "classify":
            if self.labelled is None:
                message = "objective=classify needs labelled pictures; add data.labelled"
                raise SpecError("objective", message)
            chosen = self.labelled.request
            given |= {"class_prompts": self.labelled.prompts, "classes": self.labelled.classes}
        elif values.get("text_reduction") == "syntax":
            given["word_classes"] = self.ask_for_classes()
        given |= {"data_fingerprint": chosen.fingerprint, "pack": str(chosen.folder)}
        self.tokenizers.add(values.get("tokenizer", "clip"))
        if values.get("tokenizer") == "wordpiece":
            given = self.wordpiece.fields(given, self.requests)
            if self.wordpiece.fault:
                place = ("data", "vocab") if self.wordpiece.asked else ("data",)
                said = str(self.document.error(place, self.wordpiece.fault))
                self.missing = self.missing or said
        return given | self.starts(values)

    def starts(self, values: Mapping[str, Any]) -> dict[str, str]:
        """Where the towers' first weights lie, relative paths made whole, and what they are."""
        found = {name: values.get(name, "") for name in ("image_start", "text_start")}
        for name, start in found.items():
            found[name] = locate_start(start, self.document.path.resolve().parent)
        try:
            named = fingerprint_starts(found["image_start"], found["text_start"])
        except DataError as error:
            self.missing = self.missing or str(self.document.error(("fixed",), str(error)))
            named = "missing"
        return {**found, "start_fingerprint": named}

    def ask_for_classes(self) -> str:
        """The tagger of the training captions' words, which their pack shall then have."""
        try:
            name = name_tagger(self.train.source.kind, self.tagger)
        except DataError as error:
            raise SpecError("text_reduction", str(error)) from None
        self.train = replace(self.train, tagger=name)
        return name

    def packs_needed(self) -> tuple[PackRequest, ...]:
        """Each pack once, as the runs need it."""
        packs = {pack.folder: pack for pack in self.requests}
        if self.train.folder in packs:
            packs[self.train.folder] = self.train
        return self.wordpiece.add(packs, alone=self.tokenizers == {"wordpiece"})

    def read_labelled(self, body: Any) -> Labelled | None:
        """The pictures that `objective: classify` learns from; None where the file has none."""
        where = ("data", "labelled")
        if body is None:
            return None
        self.document.check_keys(where, body, LABELLED_KEYS)
        if "path" not in body:
            raise self.document.error(where, "has no path; add it")
        request = self.request((*where, "path"), body, "labels")
        return Labelled(request, self.read_prompts(where, body), self.count_classes(where, body))

    def count_classes(self, where: Where, body: Mapping[str, Any]) -> int:
        """How many classes, from the file or its data; 0 where the data is not there to tell."""
        source = self.read_source((*where, "path"), body)
        declared = body.get("classes")
        if declared is not None:
            declared = self.document.check_scalar((*where, "classes"), declared, int)
        found = None
        if source.kind == "scenes":
            found = SCENES_CLASSES
        elif source.has_files:
            found = len({file.label for file in list_files(source)})  # which `request` has checked
        elif declared is None:
            message = "shards do not tell before they are read how many; add classes"
            raise self.document.error(where, message)
        if declared is not None and found not in (None, declared):
            message = f"{declared} is not the {found} that the data has; correct it or leave it out"
            raise self.document.error((*where, "classes"), message)
        return declared or found or 0

    def read_prompts(self, where: Where, body: Mapping[str, Any]) -> tuple[str, ...]:
        """Sentences with one {} for the class name."""
        place = (*where, "prompts")
        prompts = self.document.check_list(place, body.get("prompts", DEFAULT_PROMPTS))
        for index, prompt in enumerate(prompts):
            if not isinstance(prompt, str) or prompt.count("{}") != 1:
                message = f"{prompt!r} needs one {{}} for the class name"
                raise self.document.error((*place, index), message)
        return tuple(prompts)

    def with_evals(self, document: Document) -> DataBlock:
        """This block with the `evals` of another file, to which their paths are relative."""
        other = copy.copy(self)
        other.document, other.requests, other.missing = document, [], None
        other.evals = other.read_evals(("evals",), document.values["evals"])
        return other

    def read_evals(self, where: Where, body: Any) -> list[EvalSet]:
        if not isinstance(body, dict):
            raise self.document.error(where, f"got {body!r}; allowed: a mapping of sets")
        for name in body:
            if not re.fullmatch(r"[\w.-]+", str(name), re.ASCII):  # files are named after it
                message = f"{name!r} is no name of a set; allowed: letters, digits, _ . -"
                raise self.document.error((*where, name), message)
        return [self.read_eval((*where, name), str(name), entry) for name, entry in body.items()]

    def read_eval(self, where: Where, name: str, body: Any) -> EvalSet:
        self.document.check_keys(where, body, EVAL_KEYS)
        for needed in ("path", "task"):
            if needed not in body:
                raise self.document.error(where, f"has no {needed}; add it")
        task = body["task"]
        if task not in ("classify", "retrieve"):
            message = f"{task!r} is no task; allowed: classify, retrieve"
            raise self.document.error((*where, "task"), message)
        needs: Needs = "labels" if task == "classify" else "captions"
        if needs == "labels" and "images" in body:
            message = "are for annotations, which hold captions; allowed: task: retrieve"
            raise self.document.error((*where, "images"), message)
        request = self.request((*where, "path"), body, needs)
        self.check_unseen(where, request)
        if task == "retrieve" and "prompts" in body:
            message = "are for task: classify; retrieval has captions; remove them"
            raise self.document.error((*where, "prompts"), message)
        prompts = self.read_prompts(where, body)
        return EvalSet(name, task, str(request.folder), request.fingerprint, prompts)

    def check_unseen(self, where: Where, request: PackRequest) -> None:
        """Raise SweepError for an evaluation on pictures that a stage trains on."""
        source = request.source
        labelled = [] if self.labelled is None else [self.labelled.request]
        for trained in (pack.source for pack in (self.train, *labelled)):
            if source.kind != trained.kind:
                continue
            if source.kind == "scenes" and source.seed == trained.seed:
                message = f"{source.seed} is the training pictures'; allowed: any other seed"
                raise self.document.error((*where, "seed"), message)
            if source.kind != "scenes" and source.where == trained.where:
                message = f"are the training {'pictures' if source.has_files else 'shards'}"
                message += "; give others, for pictures never trained on"
                raise self.document.error((*where, "path"), message)

    def request(self, where: Where, body: Mapping[str, Any], needs: Needs) -> PackRequest:
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
            if needs == "labels" and source.has_files:
                self.check_classes(where, source)
            self.requests.append(request)
        return request

    def check_classes(self, where: Where, source: Source) -> None:
        """Raise SweepError for class folders whose names no prompt can take."""
        try:
            check_labels({file.label for file in list_files(source)})
        except DataError as error:
            if source.id is None or Path(source.where).is_dir():  # it may lie elsewhere
                raise self.document.error(where, str(error)) from None

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
            place = self.place(where, path)
            try:
                kind, found = find_layout(place)
            except (OSError, ValueError) as error:
                raise self.lost(where, path, error) from None
            location = str(found)
        return Source(
            kind=kind,
            where=location,
            caption=options.get("caption"),
            label=options.get("label"),
            pairs=options.get("pairs", 0),
            seed=options.get("seed", 0),
            id=options.get("id"),
            images=self.read_images(where, kind, body),
        )

    def place(self, where: Where, path: str) -> Path:
        """A path of the file, relative to it, so that it means the same everywhere."""
        try:
            return self.document.path.resolve().parent / Path(path).expanduser()
        except RuntimeError as error:
            raise self.lost(where, path, error) from None

    def lost(self, where: Where, path: str, error: Exception) -> SweepError:
        message = f"{path!r} cannot be looked up ({error}); give a path that can be read"
        return self.document.error(where, message)

    def read_images(self, where: Where, kind: str, body: Mapping[str, Any]) -> str | None:
        """The folder of the pictures that annotations name; None of data without annotations."""
        images = (*where[:-1], "images")
        if kind != "annotations":
            if "images" in body:
                message = "are for annotation files, as captions_val2017.json; remove it"
                raise self.document.error(images, message)
            return None
        if "images" not in body:
            message = "names an annotation file, for evals with task: retrieve and images: FOLDER"
            raise self.document.error(where, message)
        return str(self.place(images, self.document.check_scalar(images, body["images"], str)))
