"""The loop written out: what `compile` and `fit` do, in plain TensorFlow and public Keras.

Read `steps.py` first, then `trainer.py`.
"""

from manual_loop.saving.model_files import load_model
from manual_loop.trainer import Trainer

__all__ = ["Trainer", "load_model"]
