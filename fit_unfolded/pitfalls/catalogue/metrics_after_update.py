"""Metrics from a second forward pass, after the update.

fit updates the metrics with the predictions that the gradients were computed from. A loop that
calls the model once more after the update measures other weights, which have just seen the batch,
and mostly with Dropout off: its accuracy is better than that of fit, and does not belong to the
loss beside it. It also pays for a second forward pass.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "metrics off, loss right"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="compiled_metrics.update_state(y, y_pred, sample_weight)",
    wrong="compiled_metrics.update_state(y, model(x), sample_weight)",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/28338",
    "The metric of a loop and that of fit differed; the reporter noticed that the loop updated it "
    "after the gradients were applied.",
)
case = plain_case
