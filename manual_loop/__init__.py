"""The loop written out: what `compile` and `fit` do around one step, in TensorFlow and Keras.

Read `steps.py` first, then `trainer.py`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manual_loop.saving.model_files import load_model
    from manual_loop.trainer import Trainer

__all__ = ["Trainer", "load_model"]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `python -m manual_loop.one_page` imports nothing from here."""
    modules = {"Trainer": "manual_loop.trainer", "load_model": "manual_loop.saving.model_files"}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(modules[name]), name)
