"""Regularizers divided by the batch size.

The loss of the data is a mean over the batch; a regularizer is a property of the weights, and fit
adds it whole. A loop that adds it before it takes the mean, or divides the sum of both by the batch
size, as for replicas, regularizes the less the larger its batches are, and the partial last batch
more than the others. The loss looks better than fit's.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import regularized_case

SYMPTOM = "loss too low"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="""
losses = keras.losses.sparse_categorical_crossentropy(y, y_pred)
loss = (tf.reduce_sum(losses) + tf.add_n(model.losses)) / len(losses)
""",
)
KERAS = Place("keras.src.trainers.trainer:Trainer.compute_loss", "for loss in self.losses:")
THREAD = Thread(
    "https://github.com/keras-team/keras/issues/16529",
    "About an error with several GPUs; the step in it adds the regularizers to the loss first and "
    "divides all of it by the global batch size.",
)
case = regularized_case
