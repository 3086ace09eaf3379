"""Draw docs/tuning.png: what one learning rate for all cells does to a verdict; prints its numbers.

A minute on one core. The studies are those of `clipa_scaling.worlds`: their truth is known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipa_scaling.compared import find_compared
from clipa_scaling.figures import COLOURS, MARKERS
from clipa_scaling.inverse import judge
from clipa_scaling.slopes import FIXED_D, FIXED_RATIO
from clipa_scaling.verdict import YES, Verdict
from clipa_scaling.worlds import (
    EXPONENT,
    FALSE_LAW,
    FULL,
    HIDDEN_LAW,
    PER_SIZE,
    Design,
    Law,
    inverse_exponent,
    make_study,
)

OUT = Path(__file__).resolve().parents[1] / "docs" / "tuning.png"
WORLDS, DRAWS = 40, 200
SAMPLES = 1_000_000_000  # of the panels of m
NULL, INVERSE = "no inverse law", "an inverse law"
LAWS: dict[str, Law] = {NULL: FALSE_LAW, INVERSE: HIDDEN_LAW}
RATES = {False: "one rate", True: "tuned per size and length"}
INK, TRUTH = "#1f2937", "#6b7280"
Study = tuple[str, bool]


def run_studies() -> dict[Study, list[Verdict]]:
    """The verdicts of WORLDS studies of each truth and way with rates."""
    return {
        (truth, tuned): [
            judge(compared, draws=DRAWS)
            for seed in range(WORLDS)
            for compared in find_compared(
                make_study(law, np.random.default_rng(seed), Design(), tuned)
            )
        ]
        for truth, law in LAWS.items()
        for tuned in RATES
    }


def draw_multipliers(axes: Axes, verdict: Verdict, truth: str, title: str) -> None:
    """m against size at one sample count, a line for each length; dashed: the truth."""
    table = verdict.multipliers
    table = table[(table["samples"] == SAMPLES) & (table["bound"] == "")]
    sizes = np.geomspace(20e6, 330e6, 40)
    exponents = inverse_exponent(sizes) if truth == INVERSE else np.full(40, EXPONENT)
    lines = sorted(table.groupby("image_tokens"), reverse=True)
    for number, (tokens, rows) in enumerate(lines):
        truths = (FULL / float(str(tokens))) ** exponents
        axes.plot(sizes, truths, ls="--", lw=1, color=COLOURS[number], alpha=0.7)
        m, low, high = (rows[name].to_numpy(float) for name in ("m", "low", "high"))
        bars = np.stack([m - low, np.where(np.isfinite(high), high - m, 0.0)])
        axes.errorbar(
            rows["image_params"], m, bars, color=COLOURS[number], marker=MARKERS[number], ms=4,
            lw=1.4, capsize=2, label=f"{tokens}",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(18e6, 370e6), ylim=(0.9, 7.5))
    axes.set_yticks([1, 2, 4], ["1", "2", "4"])
    axes.set_xticks([22e6, 86e6, 304e6], ["22", "86", "304"])
    axes.minorticks_off()
    axes.set_title(title, fontsize=9, color=INK)


def draw_slopes(axes: Axes, studies: dict[Study, list[Verdict]]) -> None:
    """The pooled slopes of all studies, a row for each truth and way with rates."""
    for row, ((truth, _), verdicts) in enumerate(studies.items()):
        truth_at = mean_slope() if truth == INVERSE else 0.0
        axes.plot([truth_at] * 2, [row - 0.42, row + 0.42], color=TRUTH, lw=1.4, ls="--")
        for shift, path in ((-0.2, FIXED_D), (0.2, FIXED_RATIO)):
            answers = [item for v in verdicts for item in v.answers if item.path == path]
            colour = COLOURS[path == FIXED_RATIO]
            for number, item in enumerate(answers):
                y = row + shift + 0.3 * (number / len(answers) - 0.5)
                axes.plot([item.low, item.high], [y, y], color=colour, lw=0.8, alpha=0.75)
            count = sum(item.answer == YES for item in answers)
            axes.text(0.11, row + shift, f"{path}: yes {count} of {len(answers)}", fontsize=8,
                      va="center", color=colour)  # fmt: skip
    names = [f"{truth},\n{RATES[tuned]}" for truth, tuned in studies]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set(xlim=(-0.32, 0.34), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks([-0.3, -0.2, -0.1, 0, 0.1])
    axes.set_xlabel("d log m / d log N, 95 % intervals; dashed: the truth, all lengths alike")


def mean_slope() -> float:
    """The inverse law's slope, all lengths alike."""
    return float(np.mean([-PER_SIZE * np.log(FULL / tokens) for tokens in Design().lengths[1:]]))


def draw_page(studies: dict[Study, list[Verdict]]) -> Figure:
    """m of one study of each kind above, the slopes of all below."""
    figure = Figure(figsize=(9.5, 7.6), dpi=120, layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.15))[:, 0]
    panels = above.subplots(1, 4, sharey=True)
    for axes, ((truth, tuned), verdicts) in zip(panels, studies.items(), strict=True):
        draw_multipliers(axes, verdicts[0], truth, f"{truth},\n{RATES[tuned]}")
    panels[0].set_ylabel("m, times the samples")
    panels[0].legend(title="Image tokens", fontsize=8, title_fontsize=8, frameon=False, ncols=2)
    above.supxlabel(
        "Image parameters (million), one study each, 1 billion samples; dashed: the truth",
        fontsize=9,
    )
    draw_slopes(below.subplots(), studies)
    return figure


def main() -> None:
    """Print what the page shows, and write it."""
    studies = run_studies()
    print(f"{WORLDS} studies each: yes, no, undetermined; mean slope")
    for (truth, tuned), verdicts in studies.items():
        for path in (FIXED_D, FIXED_RATIO):
            items = [item for verdict in verdicts for item in verdict.answers if item.path == path]
            counts = [
                sum(item.answer == told for item in items) for told in (YES, "no", "undetermined")
            ]
            mean = float(np.mean([item.slope for item in items]))
            shown = " ".join(f"{count:3d}" for count in counts)
            print(f"{truth:15} {RATES[tuned]:26} {path:10} {shown}   {mean:+.3f}")
    draw_page(studies).savefig(OUT)
    print(f"{OUT.name}: {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
