"""The reference: `compile` and `fit`, as Keras provides them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_fit.trainer import Trainer

__all__ = ["Trainer"]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `python -m keras_fit.one_page` imports nothing from here."""
    if name != "Trainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("keras_fit.trainer").Trainer
