"""How many scenes one core draws per second: `python bench/scenes.py`, less than a minute.

The clock is the processor time of this process, so that other programs disturb little.
"""

from __future__ import annotations

import time
from statistics import median

import cv2

from clipa_scaling.train.scenes import make_layouts, make_scenes

SIZES = (32, 48, 64, 112)  # pixels
PICTURES, REPEATS = 512, 9


def measure(px: int | None) -> list[float]:
    """Scenes per second in each repeat; None is layouts and captions alone."""
    speeds = []
    for repeat in range(REPEATS):
        start = time.process_time()
        if px is None:
            make_layouts(0, repeat * PICTURES, PICTURES)
        else:
            make_scenes(0, repeat * PICTURES, PICTURES, px)
        speeds.append(PICTURES / (time.process_time() - start))
    return speeds


def main() -> None:
    cv2.setNumThreads(1)
    make_scenes(0, 0, PICTURES, 32)  # what is made once, not per picture
    print(f"scenes per second on one core: median (slowest to fastest) of {REPEATS}")
    for px in (*SIZES, None):
        speeds = measure(px)
        name = "no pixels" if px is None else f"{px} px"
        print(f"{name:>9}  {median(speeds):7,.0f}  ({min(speeds):,.0f} to {max(speeds):,.0f})")


if __name__ == "__main__":
    main()
