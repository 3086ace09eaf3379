"""Results of other programs, read from their files: open_clip_train, CLIP_benchmark, any CSV."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipa_scaling.schema import RUNS, TableError

# Their names of measures, and ours with the set where the name says it. open_clip_train of
# open_clip_torch 3.3.0: zero_shot.py and train.py; CLIP_benchmark 1.6: its metrics modules, where
# "image retrieval" is of images by texts.
OPEN_CLIP = {
    "imagenet-zeroshot-val-top1": ("imagenet1k", "accuracy"),
    "imagenet-zeroshot-val-top5": ("imagenet1k", "accuracy_top5"),
    "imagenetv2-zeroshot-val-top1": ("imagenetv2", "accuracy"),
    "imagenetv2-zeroshot-val-top5": ("imagenetv2", "accuracy_top5"),
    "clip_val_loss": ("val", "loss"),
    **{
        f"{way}_R@{k}": ("val", f"{way}_r{k}")
        for way in ("image_to_text", "text_to_image")
        for k in (1, 5, 10)
    },
}
CLIP_BENCHMARK = {"acc1": "accuracy", "acc5": "accuracy_top5",
                  "mean_per_class_recall": "mean_per_class_recall"}  # fmt: skip
RECALL = re.compile(r"(image|text)_retrieval_recall@(\d+)")
MEASURE = re.compile(r"accuracy|accuracy_top5|loss|mean_per_class_recall|"
                     r"(image_to_text|text_to_image)_r\d+")  # fmt: skip
# `Train Epoch: 0 [  6400/10240 (62%)] … 2044.1/s, 2044.1/s/gpu LR: 0.000480 Logit Scale: 14.3 …`
TRAIN = re.compile(
    r"Train Epoch: (\d+) \[\s*(\d+)/(\d+) .*?([\d.e+]+)/s, .*?LR: ([\d.]+) Logit Scale: ([\d.]+)"
    r".*\bLoss: ([\d.e+-]+)"
)
EVAL = re.compile(r"Eval Epoch: (\d+) (?!\[)\S+: ")
VIT = re.compile(r"ViT-([SBLH])-(\d+)")
SCHEDULES = {"cosine": "cosine", "const": "constant"}


@dataclass
class Foreign:
    """One run of another program: fields of `runs`, rows of `evals` and `curves`, as known."""

    fields: dict[str, Any]
    evals: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)


def read_foreign(path: Path, names: Mapping[str, str]) -> list[Foreign]:
    """The runs of a file or of a folder of open_clip_train; TableError for what it is not.

    names: for a CSV, its columns and ours. A path to results.jsonl stands for its run's folder.
    """
    try:
        if path.name == "results.jsonl":
            return [read_open_clip(path.parent.parent)]
        if path.is_dir():
            return [read_open_clip(path)]
        if path.suffix in (".json", ".jsonl"):
            return read_clip_benchmark(path)
        if path.suffix in (".csv", ".tsv"):
            return read_csv(path, names)
    except OSError as error:
        raise TableError(
            f"{error.filename}: {error.strerror}; give a file or folder that can be read"
        ) from None
    except UnicodeDecodeError:
        raise TableError(f"{path}: is not UTF-8 text") from None
    raise TableError(
        f"{path}: is no known kind; allowed: a folder of open_clip_train, its results.jsonl, "
        "JSON of CLIP_benchmark, or a .csv"
    )


def read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def parse_json(path: Path, number: int, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise TableError(f"{path}:{number}: is no JSON ({error})") from None


def read_open_clip(folder: Path) -> Foreign:
    """A run's folder: params.txt, checkpoints/results.jsonl, and out.log for what they leave out.

    Without a validation set the rows of results.jsonl name no epoch: then it is out.log's, which
    has a line for each row. Raises TableError where neither tells.
    """
    results = folder / "checkpoints" / "results.jsonl"
    lines = results.read_text(encoding="utf-8").splitlines()
    rows = [parse_json(results, number, line) for number, line in enumerate(lines, 1)]
    log = read_lines(folder / "out.log")
    told = [int(found[1]) for line in log if (found := EVAL.search(line))]
    if not all("epoch" in row for row in rows):
        if len(told) != len(rows):
            raise TableError(
                f"{results}: rows name no epoch, and {folder / 'out.log'} has {len(told)} lines "
                f"for {len(rows)} rows; put the run's own out.log there"
            )
        rows = [{**row, "epoch": epoch} for row, epoch in zip(rows, told, strict=True)]
    steps = [found for line in log if (found := TRAIN.search(line))]
    parameters = dict(
        line.split(": ", 1) for line in read_lines(folder / "params.txt") if ": " in line
    )
    per_epoch = int(steps[-1][3]) if steps else number_of(parameters.get("train_num_samples"))
    run = Foreign(open_clip_fields(parameters, per_epoch))
    for row in rows:
        samples = None if per_epoch is None else int(row["epoch"] * per_epoch)
        for name, value in row.items():
            if name in OPEN_CLIP:
                eval_set, measure = OPEN_CLIP[name]
                n = row.get("num_samples") if eval_set == "val" else None
                measured = {"set": eval_set, "name": measure, "value": value, "n": n}
                run.evals.append({"samples": samples, **measured})
    epochs = number_of(parameters.get("epochs"))
    if epochs is not None and rows and rows[-1]["epoch"] < epochs:
        run.fields |= {"state": "stopped", "reason": f"at epoch {rows[-1]['epoch']} of {epochs}"}
    for step in steps:
        seen = int(step[1]) * int(step[3]) + int(step[2])
        rate, lr, scale, loss = (float(step[group]) for group in (4, 5, 6, 7))
        window = {"loss": loss, "lr": lr, "temperature": 1 / scale, "samples_per_second": rate}
        run.curves.append({"samples": seen, **window})
    return run


def number_of(text: str | None) -> Any:
    """A number of params.txt, an integer where it is one; None for None and for words."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return int(value) if value.is_integer() else value


def open_clip_fields(parameters: Mapping[str, str], per_epoch: Any) -> dict[str, Any]:
    """Our fields from params.txt; lengths for models that are ours, whose sizes the name tells."""
    number: dict[str, Any] = {name: number_of(value) for name, value in parameters.items()}

    batch: Any = 1
    for name in ("batch_size", "world_size", "accum_freq"):
        batch = None if None in (batch, number.get(name)) else batch * number[name]
    epochs, warmup = number.get("epochs"), number.get("warmup")
    schedule = parameters.get("lr_scheduler", "")
    fields: dict[str, Any] = {
        "model": parameters.get("model"),
        "batch_size": batch,
        "warmup_samples": None if None in (batch, warmup) else batch * warmup,
        "samples": None if None in (per_epoch, epochs) else per_epoch * epochs,
        "schedule": SCHEDULES.get(schedule, schedule) or None,
        "precision": parameters.get("precision"),
        "grad_clip": number.get("grad_clip_norm"),
        "weight_decay": number.get("wd"),
        "epsilon": number.get("eps"),
        **{name: number.get(name) for name in ("lr", "beta1", "beta2", "seed")},
    }  # fmt: skip
    known = VIT.fullmatch(str(fields["model"]))
    if known:
        size = number.get("force_image_size") or 224
        patches = (size // int(known[2])) ** 2
        dropped = number.get("force_patch_dropout") or 0.0
        fields |= {
            "model": f"{known[1]}/{known[2]}",
            "image_size": size,
            # open_clip's PatchDropout keeps the floor, and one at least.
            "image_tokens": max(1, int(patches * (1 - dropped))),
            "image_reduction": "random" if dropped else "resize",
            "text_tokens": number.get("force_context_length") or 77,
            "text_reduction": "truncate",
            "tokenizer": "clip",
            "vocab_size": 49_408,
        }
    return fields


def read_clip_benchmark(path: Path) -> list[Foreign]:
    """One object, a list of them, or one a line: dataset, model, pretrained, task, metrics."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        found = [parse_json(path, n, line) for n, line in enumerate(text.splitlines(), 1) if line]
    else:
        whole = parse_json(path, 1, text)
        found = whole if isinstance(whole, list) else [whole]
    runs: dict[tuple[str, str], Foreign] = {}
    for item in found:
        if not isinstance(item, dict) or not {"dataset", "model", "metrics"} <= set(item):
            raise TableError(f"{path}: has an entry without dataset, model and metrics of "
                             "CLIP_benchmark")  # fmt: skip
        key = (str(item["model"]), str(item.get("pretrained") or ""))
        known = VIT.fullmatch(key[0])
        model = f"{known[1]}/{known[2]}" if known else key[0]
        run = runs.setdefault(key, Foreign({"model": model, "reason": " ".join(key).strip()}))
        for name, value in item["metrics"].items():
            recall = RECALL.fullmatch(name)
            way = {"image": "text_to_image", "text": "image_to_text"}
            measure = f"{way[recall[1]]}_r{recall[2]}" if recall else CLIP_BENCHMARK.get(name)
            if measure:
                run.evals.append({"set": item["dataset"], "name": measure, "value": value})
    return list(runs.values())


def read_csv(path: Path, names: Mapping[str, str]) -> list[Foreign]:
    """A row a run: fields of `runs` and measures, other columns as `names` translates them."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
        rows, columns = list(reader), list(reader.fieldnames or [])
    missing = sorted(set(names) - set(columns))
    if missing:
        raise TableError(f"{path}: has no column {missing[0]}; it has {', '.join(columns)}")
    ours = {column: names.get(column, column) for column in columns}
    runs = []
    for number, row in enumerate(rows, 2):
        values: dict[str, Any] = {ours[c]: row[c] for c in columns if row[c] not in ("", None)}
        run = Foreign({name: value for name, value in values.items() if name in RUNS
                       and not MEASURE.fullmatch(name)})  # fmt: skip
        run.fields |= {name: values[name] for name in ("set", "n", "protocol") if name in values}
        for name in filter(MEASURE.fullmatch, values):
            try:
                run.evals.append({"name": name, "value": float(values[name])})
            except ValueError:
                said = f"{name}={values[name]!r} is no number; leave unknown ones empty"
                raise TableError(f"{path}:{number}: {said}") from None
        if not run.evals:
            raise TableError(
                f"{path}:{number}: has no measure, such as accuracy; name the column that is one "
                "with --map COLUMN=accuracy"
            )
        runs.append(run)
    return runs
