"""Validation data drawn from shuffled rows.

`validation_split` takes the last rows as they lie, before any shuffling. A loop that shuffles first
and splits then validates on rows from everywhere. Where neighbouring rows resemble each other, as
frames of one film or days of one series do, the model has seen the neighbours of each of them, and
the validation loss is too good.
"""

import keras
import numpy as np

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import CLASSES, classifier, eager
from fit_unfolded.workloads import Data

SYMPTOM = "val_loss too low"
EDIT = Edit(
    "manual_loop.trainer:split",
    right="arrays = tree.map_structure(to_array, arrays)",
    wrong="""
order = np.random.permutation(samples)
shuffle = lambda array: None if array is None else to_array(array)[order]
arrays = tree.map_structure(shuffle, arrays)
""",
)
KERAS = Place(
    "keras.src.trainers.data_adapters.array_slicing:train_validation_split",
    "val_arrays = tree.map_structure(",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/6422",
    "Someone holds it for a mistake that the shuffling comes after the split; the answer: it "
    "keeps users from validating on the past where only the future counts.",
)


def case():
    """Twelve scenes of four frames; the class of each scene is drawn by lot, not to be learned."""
    rng = np.random.default_rng(0)
    scenes = np.repeat(rng.normal(size=[12, 8]), 4, axis=0)
    x = (scenes + 0.1 * rng.normal(size=[48, 8])).astype("float32")
    y = np.repeat(rng.integers(0, CLASSES, 12), 4)
    return Case(
        data=Data(x, y, x[36:], y[36:]),
        build=lambda: classifier(keras.layers.Dense(16, activation="relu")),
        compile=lambda: eager(keras.optimizers.Adam(0.03)),
        fit={"epochs": 4, "batch_size": 12, "validation_split": 0.25},
    )
