"""Whether torch, torchvision and open_clip are installed as a set that works together.

python -m clipa_scaling.train.check_install
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version


def main() -> int:
    """Print the versions and return 0, or say in one line on stderr what is wrong and return 1."""
    try:
        use_pair()
    except ModuleNotFoundError as error:
        return refuse(f"{error.name} is not installed; {install('open_clip_torch')}")
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        return refuse(
            f"{found('torch')} and {found('torchvision')} do not fit: {first_line(error)}. "
            "A CPU-only torch beside the registry's torchvision does this, and so do two that "
            f"were not released together; remove both and install again: {sys.executable} "
            f"-m pip uninstall -y torch torchvision && {install('torch torchvision')}"
        )
    try:
        import open_clip  # noqa: F401
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        return refuse(
            f"{found('open_clip_torch')} does not import: {first_line(error)}; "
            f"{install('--force-reinstall --no-deps open_clip_torch')}"
        )
    print("install checked:", ", ".join(map(found, ("torch", "torchvision", "open_clip_torch"))))
    return 0


def use_pair() -> None:
    """Run one operator of torchvision's compiled half: its import alone may pass without it."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5)
    if kept.tolist() != [1]:
        raise RuntimeError(f"torchvision::nms keeps box {kept.tolist()} of two equal ones, not [1]")


def found(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (absent)"


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")


def install(packages: str) -> str:
    return f"{sys.executable} -m pip install {packages}"


def refuse(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
