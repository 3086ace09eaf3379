"""The papers' own drop, and whether it shrinks with the model's size on every scale.

y = c_N - k (T**-g - T_full**-g) N**-d, an intercept for each size: d > 0 is the inverse law. It
needs no second sample count, and describes the one it has: d depends on the scale, unlike m.

python -m clipa_scaling.drops --published writes results/published/drops.csv, d of the papers' own
tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from clipa_scaling.answers import BAND, LEVEL, UNDETERMINED, agree, interval
from clipa_scaling.multiplier import Floats
from clipa_scaling.papertables import SIZES, TABLES, compare_cells, read_cells
from clipa_scaling.published import FOLDER
from clipa_scaling.schema import TableError

# Increasing functions of an accuracy's log odds.
SCALES: Mapping[str, Callable[[Floats], Floats]] = {
    "logit": lambda odds: odds,
    "accuracy": lambda odds: 1 / (1 + np.exp(-odds)),
    "-log error": lambda odds: np.log1p(np.exp(odds)),
}
GAMMAS, DELTAS = np.linspace(-2, 8, 51), np.linspace(-3, 3, 61)  # screened; the ends are bounds
LEAST_LENGTHS, LEAST_SIZES = 3, 2
STEPS, NEAR, TINY = 40, 1e-6, 1e-6
DRAWS = 1000
ROUND = {"delta": 3, "low": 3, "high": 3, "gamma": 2, "residual_sd": 4}


@dataclass(frozen=True)
class Cells:
    """What the form is fitted to, all (n,): `size` is N, `full` the reference's tokens."""

    model: np.ndarray
    size: Floats
    tokens: Floats
    full: Floats

    def take(self, mask: np.ndarray) -> Cells:
        return Cells(*(column[mask] for column in (self.model, self.size, self.tokens, self.full)))


@dataclass(frozen=True)
class Fitted:
    """Of each row of y: the exponents, the size of the drop, the fitted values, and `bounded`."""

    delta: Floats  # (B,), NaN where no drop was found
    gamma: Floats
    values: Floats  # (B, n)
    bounded: np.ndarray  # (B,): an exponent at its bound


def fit_deltas(cells: Cells, y: Floats) -> Fitted:
    """Least squares of the form, k > 0, of every row of y (B, n) at once.

    Intercepts and k are linear; the exponents start at the best of a grid and go on by damped
    Gauss-Newton. N counts from its geometric mean and T from T_full, which changes k alone.
    """
    centre = Centring(cells.model)
    fall = np.log(cells.full / cells.tokens)  # (n,) >= 0
    n = np.log(cells.size)
    n = n - n.mean()
    wanted = -centre(y)
    pairs = np.array(np.meshgrid(GAMMAS, DELTAS, indexing="ij")).reshape(2, -1)
    basis = centre(shape(fall, n, *pairs)[0])
    norm = np.sqrt((basis**2).sum(axis=1))
    usable = norm > TINY * norm.max(initial=0)
    score = np.where(usable, (wanted @ basis.T) / np.where(usable, norm, 1), -np.inf)
    best = score.argmax(axis=1)
    gamma, delta = pairs[:, best]
    falls = score[np.arange(len(y)), best] > 0
    gamma, delta, k = refine(wanted, fall, n, gamma, delta, centre)
    ends = (
        (gamma <= GAMMAS[0]) | (gamma >= GAMMAS[-1]) | (delta <= DELTAS[0]) | (delta >= DELTAS[-1])
    )
    fitted = y + wanted - k[:, None] * centre(shape(fall, n, gamma, delta)[0])
    return Fitted(np.where(falls, delta, np.nan), gamma, fitted, ends | ~falls)


def describe(
    cells: Cells,
    odds: Floats,
    errors: Floats | None = None,
    band: float = BAND,
    draws: int = DRAWS,
    scales: Sequence[str] = tuple(SCALES),
) -> pd.DataFrame:
    """d on every scale with its 95 % interval, from odds (n,), the cells' accuracies in logits.

    errors (B, n): draws of the cells' noise in logits; without, the fit's residuals, with n - p in
    place of n, are drawn again. `residual_sd` is theirs, in the scale's units; `answer` is yes
    where d > 0, `robust` whether all scales answer alike. Where the cells cannot tell, numbers are
    NaN, and `because` says why.
    """
    lack = find_lack(cells)
    rows: list[dict[str, object]] = []
    for name in scales:
        row: dict[str, object] = {"scale": name, "delta": np.nan, "low": np.nan, "high": np.nan}
        row |= {"gamma": np.nan, "residual_sd": np.nan, "points": len(odds), "because": lack}
        if not lack:
            row |= describe_scale(cells, SCALES[name], odds, errors, draws)
        rows.append(row)
    table = pd.DataFrame(rows)
    ends = -table[["high", "low"]].to_numpy(float)
    answers = [agree(ends[[at]], band)[0] for at in range(len(table))]
    robust = len(scales) > 1 and len(set(answers)) == 1 and answers[0] != UNDETERMINED
    return table.assign(answer=answers, robust=robust)


def find_lack(cells: Cells) -> str:
    """Why the form cannot be fitted; empty where it can."""
    lengths = len(np.unique(np.round(cells.tokens / cells.full, 2)))  # of any patch
    sizes = len(np.unique(cells.model))
    if sizes < LEAST_SIZES:
        return f"one size; needed: {LEAST_SIZES}"
    if lengths < LEAST_LENGTHS:
        return f"{lengths} lengths; needed: {LEAST_LENGTHS}, since two fit any exponent of T"
    if len(cells.model) <= sizes + 3:
        return f"{len(cells.model)} cells for {sizes + 3} parameters; needed: more cells"
    return ""


def describe_scale(
    cells: Cells,
    scale: Callable[[Floats], Floats],
    odds: Floats,
    errors: Floats | None,
    draws: int,
) -> dict[str, object]:
    """One scale's row: see `describe`."""
    y = scale(odds)
    fitted = fit_deltas(cells, y[None])
    rest = y - fitted.values[0]
    spare = len(y) - len(np.unique(cells.model)) - 3
    if errors is None:
        rng = np.random.default_rng(0)
        residuals = rest * (len(y) / spare) ** 0.5
        again = fitted.values[0] + rng.choice(residuals, (draws, len(y)))
    else:
        again = scale(odds + errors)
    drawn = fit_deltas(cells, again)
    low, high = interval(drawn.delta)
    because = ""
    if fitted.bounded[0] or drawn.bounded.mean() > (1 - LEVEL) / 2:
        because = "not identified: an exponent reaches its bound, or no drop is left"
        low = high = np.nan
    return {
        "delta": float(fitted.delta[0]),
        "low": low,
        "high": high,
        "gamma": float(fitted.gamma[0]),
        "residual_sd": float(np.sqrt((rest**2).sum() / spare)),
        "because": because,
    }


class Centring:
    """y less its mean over the cells of each model: the intercepts, eliminated."""

    def __init__(self, model: np.ndarray) -> None:
        is_of = (model[:, None] == np.unique(model)).astype(float)  # (n, sizes)
        self.means = is_of / is_of.sum(axis=0) @ is_of.T

    def __call__(self, y: Floats) -> Floats:
        return np.asarray(y - y @ self.means)


def shape(fall: Floats, n: Floats, gamma: Floats, delta: Floats) -> tuple[Floats, Floats, Floats]:
    """((T/T_full)**-g - 1) / g * N**-d, (B, n), and its derivatives; at g = 0 the logarithm."""
    g = np.where(np.abs(gamma) < TINY, TINY, gamma)[:, None]
    power = np.exp(g * fall)
    by_size = np.exp(-delta[:, None] * n)
    basis = np.expm1(g * fall) / g * by_size
    slope = (fall * power * g - np.expm1(g * fall)) / g**2 * by_size
    return basis, slope, -n * basis


def refine(
    wanted: Floats, fall: Floats, n: Floats, gamma: Floats, delta: Floats, centre: Centring
) -> tuple[Floats, Floats, Floats]:
    """Levenberg and Marquardt's steps in g and d, with k solved for at each."""

    def solve(gamma: Floats, delta: Floats) -> tuple[Floats, Floats, list[Floats]]:
        parts = [centre(part) for part in shape(fall, n, gamma, delta)]
        k = (wanted * parts[0]).sum(axis=1) / np.maximum((parts[0] ** 2).sum(axis=1), 1e-300)
        rest = wanted - k[:, None] * parts[0]
        return k, rest, parts

    damping = np.full(len(wanted), 1e-3)
    k, rest, parts = solve(gamma, delta)
    for _ in range(STEPS):
        jacobian = np.stack([parts[0], k[:, None] * parts[1], k[:, None] * parts[2]], axis=2)
        square = jacobian.transpose(0, 2, 1) @ jacobian
        diagonal = np.einsum("bii->bi", square)
        diagonal += (damping[:, None] + 1e-12) * diagonal + 1e-300
        step = np.linalg.solve(square, (jacobian * rest[:, :, None]).sum(axis=1)[:, :, None])
        moved = (
            np.clip(gamma + step[:, 1, 0], GAMMAS[0], GAMMAS[-1]),
            np.clip(delta + step[:, 2, 0], DELTAS[0], DELTAS[-1]),
        )
        tried = solve(*moved)
        better = (tried[1] ** 2).sum(axis=1) < (rest**2).sum(axis=1)
        change = max(np.abs(moved[0] - gamma).max(), np.abs(moved[1] - delta).max())
        gamma, delta = (
            np.where(better, new, old) for new, old in zip(moved, (gamma, delta), strict=True)
        )
        k = np.where(better, tried[0], k)
        rest = np.where(better[:, None], tried[1], rest)
        parts = [np.where(better[:, None], a, b) for a, b in zip(tried[2], parts, strict=True)]
        damping = np.where(better, damping / 10, damping * 10)
        if change < NEAR:
            break
    return gamma, delta, k


def describe_published(folder: Path = FOLDER, tables: Sequence[str] = TABLES) -> pd.DataFrame:
    """d of every table, reduction, stage, count of N and scale: see `describe`.

    No seed is repeated in the papers: noise is the residuals', the same for all cells of a fit.
    """
    found = []
    printed = read_cells(folder)
    for counted in SIZES:
        for compared in compare_cells(printed[printed["table"].isin(tables)], counted, folder):
            runs = compared.runs
            full = np.array([compared.full[model] for model in runs["model"]], float)
            size, tokens = (runs[name].to_numpy(np.float64) for name in ("size", "length"))
            cells = Cells(runs["model"].to_numpy(str), size, tokens, full)
            # The papers' fractions themselves: no half example added.
            value = runs["value"].to_numpy(float)
            rows = describe(cells, np.log(value / (1 - value)))
            source, reduction = compared.settings.values()
            told = {"table": source, "reduction": reduction, "stage": compared.stage, "N": counted}
            for at, (name, text) in enumerate(told.items()):
                rows.insert(at, name, text)
            found.append(rows)
    return pd.concat(found, ignore_index=True).round(ROUND)


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where there are no published tables."""
    parser = argparse.ArgumentParser(
        prog="python -m clipa_scaling.drops", description="The exponent of N in the papers' drops."
    )
    parser.add_argument("--published", action="store_true", required=True)
    parser.add_argument("--out", type=Path, default=FOLDER / "drops.csv")
    given = parser.parse_args(arguments)
    try:
        table = describe_published()
    except TableError as error:
        print(error, file=sys.stderr)
        return 1
    table.to_csv(given.out, index=False, lineterminator="\n")
    print(f"{given.out}: {len(table)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
