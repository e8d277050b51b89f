"""`sum_over_batch_size` taken for a weighted mean.

The default reduction of a Keras loss divides the weighted sum by the number of samples, not by the
sum of their weights. A loop that computes the weighted mean takes other steps wherever the weights
do not have mean 1, and other ones again in each batch, because their sum changes. The mean is there
under the name `reduction="mean_with_sample_weight"`. Weighted metrics, by contrast, do divide by
the weights.
"""

import keras
import numpy as np

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="""
losses = keras.losses.sparse_categorical_crossentropy(y, y_pred)
loss = tf.reduce_sum(losses * sample_weight) / tf.reduce_sum(sample_weight)
""",
)
KERAS = Place(
    "keras.src.losses.loss:reduce_values",
    "divisor = ops.cast(",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/19740",
    "Two samples with weights 0 and 1 give half of what the reporter expects, and the metric "
    "of the same name gives the whole; the reduction mean_with_sample_weight came of it.",
)


def case():
    """Weights between 0 and 4."""
    data = blobs()
    weights = np.random.default_rng(1).uniform(0, 4, len(data.x)).astype("float32")
    return Case(
        data=data,
        build=lambda: classifier(),
        compile=lambda: eager(keras.optimizers.SGD(0.1)),
        fit={"epochs": 5, "batch_size": 11, "sample_weight": weights},
    )
