"""What a budget buys, in the terminal, in a sentence, and as data."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipa_scaling.fitjson import plain, records
from clipa_scaling.points import LOSS
from clipa_scaling.recipe import UNBOUNDED, Recipe
from clipa_scaling.show import dollars, hours, si
from clipa_scaling.spec import short_count
from clipa_scaling.split import Split

SHOWN = 8
FAR = 4.0  # times beyond what was measured: assumed
KEYS = ["model", "image_tokens", "text_tokens"]


def print_recipe(console: Console, recipe: Recipe) -> None:
    """The law, the best and the runners-up, what is as good, marks, and a sentence."""
    lines = [say_law(recipe), say_price(recipe)]
    for line in lines:
        console.print(line, markup=False, highlight=False)
    console.print(recipe_table(recipe))
    for line in [*say_marks(recipe), say_split(recipe.split), *say_others(recipe)]:
        console.print(line, markup=False, highlight=False)
    console.print(say(recipe), markup=False, highlight=False)


def say_law(recipe: Recipe) -> str:
    fit = recipe.fit
    text = f"Law: {fit.law.name} ({recipe.why}), {len(fit.points)} runs; status {fit.status}."
    if fit.law.name in UNBOUNDED and "T" in fit.law.roles:
        text += (
            " A pure power of T has no optimum in T of its own: the length below is where cost "
            "outgrows it, or an end."
        )
    return text


def say_price(recipe: Recipe) -> str:
    budget, pricing = recipe.budget, recipe.pricing
    if budget.unit == "FLOPs":
        return f"Budget: {si(budget.amount, 'FLOPs')} of training, both towers counted."
    paid = ""
    if not math.isnan(budget.dollars_per_gpu_hour):
        price = budget.dollars_per_gpu_hour
        paid = f"{dollars(budget.amount * price)} at ${price:g} per GPU-hour = "
    return (
        f"Budget: {paid}{hours(budget.amount)} GPU-hours of {pricing.device} at "
        f"{pricing.utilisation:.0%} utilisation ({pricing.source}); both towers counted, training "
        "alone."
    )


def shown_rows(recipe: Recipe) -> pd.DataFrame:
    """The best candidate of each model and lengths, the first few; and of every other model one."""
    each = recipe.table.drop_duplicates(KEYS)
    first = each.head(SHOWN)
    rest = each[~each["model"].isin(first["model"])].drop_duplicates("model")
    return pd.concat([first, rest])


def recipe_table(recipe: Recipe) -> Table:
    is_loss = recipe.fit.points.columns.get("y") == LOSS
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="Best first", title_justify="left")
    table.add_column("model", no_wrap=True)
    heads = ["image\ntokens", "text\ntokens", "\nsamples"]
    heads += ["finetune\nsamples"] * bool(recipe.split.stage)
    heads += [
        "\nloss" if is_loss else "accuracy\n(%)",
        "\nbehind",
        "as\ngood",
        "beyond what was\nmeasured",
    ]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for _, row in shown_rows(recipe).iterrows():
        cells = [str(row["model"]), str(row["image_tokens"]), str(row["text_tokens"])]
        cells.append(short_count(int(row["samples"])))
        if recipe.split.stage:
            cells.append(f"{short_count(int(row['finetune_samples']))} ({row['share']:.0%})")
        cells += [
            say_value(row, is_loss),
            f"{row['behind']:.3f}" if is_loss else f"{100 * row['behind']:.1f}",
            "yes" if row["as_good"] else "",
            f"{row['factor']:.3g} x in {row['beyond']}" if row["beyond"] else "",
        ]
        table.add_row(*cells)
    return table


def say_value(row: pd.Series, is_loss: bool) -> str:
    """Accuracy in per cent, or a loss, with its 95 % interval."""
    if math.isnan(row["low"]):
        return f"{row['error']:.3f}" if is_loss else f"{100 * (1 - row['error']):.1f}"
    if is_loss:
        return f"{row['error']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
    value, low, high = (100 * (1 - row[name]) for name in ("error", "high", "low"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def say_marks(recipe: Recipe) -> list[str]:
    """Ends of what was considered, extrapolation, and warnings of the tournament."""
    told = [f"edge: {item}; a better recipe may lie beyond" for item in recipe.edges]
    best = recipe.best
    if best["beyond"]:
        told.append(
            f"extrapolation: the best lies {best['factor']:.3g} times beyond the measured "
            f"{best['beyond']}"
        )
    return [*told, *(f"warning: {item}" for item in recipe.warnings)]


def say_split(split: Split) -> str:
    if not split.stage:
        return "split between pretraining and finetuning: not identified (no finetunes)"
    if split.because:
        return (
            f"split between pretraining and {split.stage}: not identified ({split.because}); "
            f"{short_count(split.samples)} samples are taken, as in the study"
        )
    return (
        f"split between pretraining and {split.stage}: log odds of accuracy rise by "
        f"{split.slope:.3f} for each e-fold of {split.stage} samples, "
        f"{short_count(split.low)} to {short_count(split.high)} measured"
    )


def say_others(recipe: Recipe) -> list[str]:
    rows = [
        f"{name} {row['model']} at {row['image_tokens']}" for name, row in recipe.others.items()
    ]
    return [f"best under other forms: {', '.join(rows)} image tokens"] if rows else []


def say(recipe: Recipe) -> str:
    """The advice in a sentence."""
    best, table = recipe.best, recipe.table
    good = table[table["as_good"]]
    is_loss = recipe.fit.points.columns.get("y") == LOSS
    what = "loss" if is_loss else "accuracy (%)"
    finetune = ""
    if recipe.split.stage:
        finetune = (
            f", then {recipe.split.stage} for {short_count(int(best['finetune_samples']))} "
            f"({best['share']:.0%} of the budget)"
        )
    doubt = " The draws failed: what is as good is unknown." if math.isnan(best["low"]) else ""
    if best["factor"] > FAR:
        doubt += (
            f" It lies {best['factor']:.3g} times beyond the measured {best['beyond']}: measure "
            "nearer before you spend it."
        )
    return (
        f"For this budget the {recipe.fit.law.name} law advises {best['model']} at "
        f"{best['image_tokens']} image and {best['text_tokens']} text tokens for "
        f"{short_count(int(best['samples']))} samples{finetune}: {what} "
        f"{say_value(best, is_loss)}. As good, in the band of 95 %: "
        f"{', '.join(dict.fromkeys(good['model']))}; {span(good['image_tokens'])} image tokens; "
        f"{span(good['text_tokens'])} text tokens; "
        f"{short_count(int(good['samples'].min()))} to {short_count(int(good['samples'].max()))} "
        f"samples ({len(good)} of {len(table)} candidates).{doubt}"
    )


def span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def to_json(recipe: Recipe) -> dict[str, Any]:
    """Everything as data; null is unknown."""
    fit, budget, split = recipe.fit, recipe.budget, recipe.split
    return {
        "sentence": say(recipe),
        "law": fit.law.name,
        "law_chosen_because": recipe.why,
        "status": str(fit.status),
        "params": {name: plain(value) for name, value in fit.params.items()},
        "digest": fit.points.digest(),
        "budget": {"amount": budget.amount, "unit": budget.unit,
                   "dollars_per_gpu_hour": plain(budget.dollars_per_gpu_hour)},
        "device": recipe.pricing.device,
        "utilisation": recipe.pricing.utilisation,
        "utilisation_source": recipe.pricing.source,
        "split": {
            "stage": split.stage or None,
            "identified": not split.because,
            "because": split.because or None,
            "slope": plain(split.slope) if not split.because else None,
        },
        "edges": list(recipe.edges),
        "warnings": list(recipe.warnings),
        "best_under_other_forms": {
            name: records(row.to_frame().T)[0] for name, row in recipe.others.items()
        },
        "candidates": records(recipe.table),
    }  # fmt: skip
