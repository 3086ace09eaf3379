"""Optional packages: what runs ask for and this machine lacks, told before anything starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from clipa_scaling.spec import RunSpec


class MissingPackage(RuntimeError):
    """A run asks for a package that is not installed; the message says how to get it."""


def check_loggers(specs: Iterable[RunSpec]) -> None:
    """Raise MissingPackage where metrics are to go to a logger that is not installed."""
    specs = list(specs)
    wanted = {
        "tensorboard": any(spec.tensorboard for spec in specs),
        "wandb": any(spec.wandb for spec in specs),
    }
    for package, asked in wanted.items():
        if asked and not is_installed(package):
            raise MissingPackage(
                f"{package} is asked for and not installed; pip install 'clipa_scaling[loggers]', "
                f"or remove {package} from the sweep file"
            )


def check_tokenizers(specs: Iterable[RunSpec]) -> None:
    """Raise MissingPackage where captions are to be WordPiece ids, which no package here makes."""
    asked = any(spec.tokenizer == "wordpiece" for spec in specs)
    if asked and not is_installed("tokenizers"):
        raise MissingPackage(
            "tokenizer: wordpiece needs tokenizers, which is not installed; pip install "
            "'clipa_scaling[wordpiece]'"
        )


def is_installed(package: str) -> bool:
    """Whether it could be imported; a mere folder of that name, as W&B leaves, is no package."""
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None
