"""A mean per replica, where the gradients are summed.

Under a strategy each replica computes the loss of its own part of the batch, and `apply_gradients`
adds the gradients of all replicas up. A loss that is the mean over the part makes the sum larger by
the number of replicas: another learning rate for every number of devices. Divide by the size of the
whole batch, or the mean by the number of replicas. Keras's losses do that; `tf.reduce_mean` does
not. Measured on two logical CPUs.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import Case, finish, start
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import blobs, classifier, eager
from manual_loop.distribution.replicas import mirrored_strategy

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.distribution.replicas:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, y_pred))",
)
KERAS = Place("keras.src.losses.loss:reduce_values", "loss = scale_loss_for_distribution(loss)")
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/45923",
    "fit and a loop of the tutorial's kind reported losses that differed by a factor, with several "
    "workers.",
)
REPLICAS = 2

CASE = Case(
    data=blobs(24, spread=2.0),
    build=lambda: classifier(),
    compile=lambda: eager("sgd"),
    fit={"epochs": 2, "batch_size": 12},
)


def train(side):
    """Two replicas, of six samples each in a batch."""
    with mirrored_strategy(REPLICAS).scope():
        trainer = start(side, CASE)
    return finish(side, trainer, CASE)
