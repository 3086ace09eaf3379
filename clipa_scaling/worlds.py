"""Studies whose truth is known: a law -> the tables that a sweep of it would have left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from clipa_scaling import schema
from clipa_scaling.collect import make_table
from clipa_scaling.counts import count_model
from clipa_scaling.models import load_model
from clipa_scaling.multiplier import Floats
from clipa_scaling.optimum import find_optimum

FULL = 196  # tokens of 224 px at patch 16
EXPONENT, PER_SIZE = 0.4, 0.12  # of a short length's data: see `inverse`
MIDDLE_SIZE, MIDDLE_SAMPLES, BEST_LR = 86e6, 1e9, 1e-3
LADDER = tuple(BEST_LR * 2.0**step for step in range(-4, 5))  # of rates, where a study tunes them
# Accuracy at N image parameters, T tokens, D samples and a learning rate.
Law = Callable[[Floats, Floats, Floats, Floats], Floats]


def additive(size: Floats, length: Floats, samples: Floats, lr: Floats) -> Floats:
    """No interaction: m depends on D and T alone."""
    n, t, d = size / MIDDLE_SIZE, length / FULL, samples / MIDDLE_SAMPLES
    return np.asarray(0.97 - 0.14 * n**-0.3 - 0.16 * d**-0.4 - 0.05 * (t**-0.4 - 1))


def multiplicative(size: Floats, length: Floats, samples: Floats, lr: Floats) -> Floats:
    """m = (T_full / T) ** .6 everywhere."""
    n, t, d = size / MIDDLE_SIZE, length / FULL, samples / MIDDLE_SAMPLES
    return np.asarray(1 - 0.35 * n**-0.15 * d**-0.2 * t**-0.12)


def data_law(size: Floats, samples: Floats) -> Floats:
    """Accuracy at full length: two bottlenecks behind a bounded link."""
    n, d = size / MIDDLE_SIZE, samples / MIDDLE_SAMPLES
    return np.asarray(1 / (1 + 0.2 * n**-0.4 + 0.4 * d**-0.5))


def size_independent(size: Floats, length: Floats, samples: Floats, lr: Floats) -> Floats:
    """Short lengths see less data, by a factor that is the same for all sizes."""
    return data_law(size, samples * (length / FULL) ** EXPONENT)


def inverse(size: Floats, length: Floats, samples: Floats, lr: Floats) -> Floats:
    """By a factor nearer 1 for larger models: d log m / d log N = -PER_SIZE log(T_full / T)."""
    return data_law(size, samples * (length / FULL) ** inverse_exponent(size))


def inverse_exponent(size: Floats) -> Floats:
    """log m / log(T_full / T) under the inverse law."""
    return np.asarray(EXPONENT - PER_SIZE * np.log(size / MIDDLE_SIZE))


@dataclass(frozen=True)
class Misfit:
    """A law whose best rate shifts with size and length; off it, samples are worth less.

    log lr* = log BEST_LR + by_size log(N / N0) + by_length log(T / T_full), and D shrinks by
    exp(-cost (log lr - log lr*)**2). At one rate for all, that adds
    2 cost by_size by_length log(T / T_full) to d log m / d log N.
    """

    truth: Law
    by_size: float
    by_length: float
    cost: float

    def best_lr(self, size: Floats, length: Floats) -> Floats:
        """The rate at which nothing is lost."""
        shift = self.by_size * np.log(size / MIDDLE_SIZE) + self.by_length * np.log(length / FULL)
        return np.asarray(BEST_LR * np.exp(shift))

    def __call__(self, size: Floats, length: Floats, samples: Floats, lr: Floats) -> Floats:
        off = np.log(lr / self.best_lr(size, length))
        return self.truth(size, length, samples * np.exp(-self.cost * off**2), lr)


# At one rate for all, the first seems to have an inverse law, and the second's is hidden.
FALSE_LAW = Misfit(size_independent, by_size=-0.3, by_length=-0.3, cost=0.6)
HIDDEN_LAW = Misfit(inverse, by_size=-0.3, by_length=0.3, cost=0.6)

NULLS: Mapping[str, Law] = {
    "additive": additive,
    "multiplicative": multiplicative,
    "size-independent": size_independent,
}


@dataclass(frozen=True)
class Design:
    """The grid of a study, and its noise. seed_sd: in logits; trunk: the share of its variance that
    all branches of a trunk have in common. decay: one trunk for all sample counts, or a run each.
    """

    models: tuple[str, ...] = ("S/16", "B/16", "L/16")
    lengths: tuple[int, ...] = (196, 100, 49, 36, 16)
    samples: tuple[int, ...] = (125_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_000_000_000)
    seeds: int = 2
    pictures: int = 50_000
    seed_sd: float = 0.02
    trunk: float = 0.5
    decay: bool = True


def image_params(model: str, length: int = FULL) -> int:
    """Of a model at full length, position table in."""
    return count_model(load_model(model), length, length, 32, 49408).image_params


Row = dict[str, object]


def make_study(
    law: Law, rng: np.random.Generator, design: Design, tuned: bool = False
) -> dict[str, pd.DataFrame]:
    """The tables `runs`, `evals` and `curves` of a study of a law.

    Accuracies have the noise of seeds and of pictures. tuned: each model and length has the best
    rate of its own short runs; else all cells have BEST_LR. Trunks, never annealed, are rows too.
    """
    runs: list[Row] = []
    evals: list[Row] = []
    for model in design.models:
        params = image_params(model)
        for length in design.lengths:
            point: Row = {
                "model": model, "image_tokens": length, "image_reduction": "resize",
                "image_params": params, "state": "done",
                "flops_per_sample": flops_per_sample(model, length),
            }  # fmt: skip
            lr = BEST_LR
            if tuned:
                scores = scan(law, params, length, rng, design)
                lr = find_optimum(LADDER, [1 - score for score in scores]).value
                for rate, score in zip(LADDER, scores, strict=True):
                    run, count = f"tune-{model}-{length}-{rate:g}", design.samples[0]
                    more: Row = {"kind": "pretrain", "stage": "tune", "schedule": "cosine"}
                    runs.append({**point, **more, "run": run, "samples": count, "lr": rate})
                    evals.append(evaluation(run, count, score, design))
            for seed in range(design.seeds):
                cell = point | {"seed": seed, "lr": lr, "tuned": "lr" if tuned else None}
                trunk = f"trunk-{model}-{length}-{seed}"
                accuracy = law(*map(np.array, (params, length, [*map(float, design.samples)], lr)))
                values = scatter(accuracy, rng, design)
                points = list(zip(design.samples, values, strict=True))
                if design.decay:
                    more = {"kind": "pretrain", "stage": "pretrain", "schedule": "constant"}
                    last: Row = {"samples": design.samples[-1], "run": trunk, "parent": ""}
                    runs.append(priced({**cell, **more, **last}, design.samples[-1]))
                    evals += [evaluation(trunk, count, 0.9 * v, design) for count, v in points]
                for count, value in points:
                    kind = "decay" if design.decay else "pretrain"
                    run = f"{kind}-{model}-{length}-{seed}-{count}"
                    more = {"kind": kind, "stage": kind, "schedule": "wsd", "samples": count}
                    own = count // 5 if design.decay else count
                    more |= {"decay_samples": count // 5, "parent": trunk * design.decay}
                    runs.append(priced({**cell, **more, "run": run}, own))
                    evals.append(evaluation(run, count, value, design))
    return {
        "runs": make_table(runs, schema.RUNS),
        "evals": make_table(evals, schema.EVALS),
        "curves": make_table([], schema.CURVES),
    }


def flops_per_sample(model: str, length: int) -> float:
    """Of one forward of both towers, 32 text tokens."""
    return float(count_model(load_model(model), length, length, 32, 49408).flops_per_sample)


def priced(row: Row, own: int) -> Row:
    """The row with the FLOPs of the samples that it trains on itself."""
    return row | {"train_flops": 3.0 * own * float(str(row["flops_per_sample"]))}


def scan(
    law: Law, params: int, length: int, rng: np.random.Generator, design: Design
) -> list[float]:
    """What short runs over LADDER score, one seed each, at the fewest samples of the study."""
    once = replace(design, samples=design.samples[:1])
    arguments = (np.array([float(value)]) for value in (params, length, design.samples[0]))
    size, tokens, samples = arguments
    return [
        float(scatter(law(size, tokens, samples, np.array([lr])), rng, once)[0]) for lr in LADDER
    ]


def scatter(accuracy: Floats, rng: np.random.Generator, design: Design) -> Floats:
    """The accuracies of one trunk's branches, (K,), as one seed would have them measured."""
    assert (accuracy > 0).all() and (accuracy < 1).all(), "the law leaves what an accuracy can be"
    shared = rng.standard_normal() * design.trunk**0.5 * design.decay
    share = design.trunk if design.decay else 0.0
    own = rng.standard_normal(len(accuracy)) * (1 - share) ** 0.5
    odds = np.log(accuracy / (1 - accuracy)) + design.seed_sd * (shared + own)
    if design.pictures == 0:  # as many as it takes
        return np.asarray(1 / (1 + np.exp(-odds)))
    right = rng.binomial(design.pictures, 1 / (1 + np.exp(-odds)))
    return np.asarray(right / design.pictures)


def evaluation(run: str, samples: int, value: float, design: Design) -> Row:
    """A row of `evals`."""
    return {
        "run": run, "samples": samples, "set": "imagenet1k", "fingerprint": "f",
        "protocol": "common", "size": "training", "name": "accuracy", "value": float(value),
        "n": design.pictures or 10**15,
    }  # fmt: skip
