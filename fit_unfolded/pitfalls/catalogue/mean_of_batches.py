"""The epoch's loss as a mean of batch means.

The epoch's loss is a mean over samples. The mean of the batches' means is the same only if all
batches have one size; with a partial last batch its few samples count more than the others. The
weights are not touched, so nothing else shows it, but two runs with different batch sizes can no
longer be compared, nor an early stop trusted.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import uneven_case

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="""
compiled_metrics.loss.update_state(
    unscale_loss_for_distribution(loss), sample_weight=sample_count(x)
)
""",
    wrong="compiled_metrics.loss.update_state(loss)",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "sample_weight=tf.shape(",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/38596",
    "Keras itself did it in TensorFlow 2.2.0-rc2: batches of 2 and 1 samples with the losses "
    "10 and 9 gave 9.5.",
)
case = uneven_case
