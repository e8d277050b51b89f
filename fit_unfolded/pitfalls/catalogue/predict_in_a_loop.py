"""`predict` called for each batch.

`predict` is made for a whole data set: each call builds an input pipeline, a list of callbacks and
an array of the outputs, and its results carry no gradient. A loop that calls it for each batch pays
for all that each time, and memory grows, as reported, where the garbage collector does not keep up.
Call `model(x, training=False)` for a batch. The losses agree up to rounding only: fit finds the
logits behind a softmax, which are lost in an array.
"""

import dataclasses
from unittest import mock

import keras

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import AFTER_THE_FIRST
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "slower every step"
EDIT = Edit(
    "manual_loop.distribution.single_device:test_step",
    right="y_pred = forward(model, x, training=False)",
    wrong="y_pred = tf.constant(model.predict(x, verbose=0))",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.test_step",
    "y_pred = self(x, training=False)",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/44711",
    "Reports that repeated calls of predict leak memory.",
)
TIMED = AFTER_THE_FIRST
COUNTED = "calls of predict"


class CountsPredict(keras.callbacks.Callback):
    """Counts the calls of `Model.predict` during training."""

    def on_train_begin(self, logs=None):
        predict, model = keras.Model.predict, self.model
        model.predictions = 0

        def counted(*args, **how):
            model.predictions += 1
            return predict(*args, **how)

        self._patch = mock.patch.object(keras.Model, "predict", counted)
        self._patch.start()

    def on_train_end(self, logs=None):
        self._patch.stop()


def case():
    """Several batches of validation after each epoch."""
    case = plain_case()
    fit = case.fit | {"epochs": 2, "validation_batch_size": 3}
    return dataclasses.replace(case, fit=fit, callbacks=lambda: [CountsPredict()])


def count(run):
    """Calls of `predict`."""
    return run.trainer.model.predictions
