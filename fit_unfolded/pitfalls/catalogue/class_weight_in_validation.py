"""`class_weight` applied to the validation data.

fit applies `class_weight` to the data that it learns from and not to those that it validates on:
`evaluate` does not have the argument. A loop that weighs both has other validation losses, and so
another best epoch, though it learns the same weights. For weighted validation, fit is given
`validation_data=(x, y, sample_weight)`.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import class_weight_case

SYMPTOM = "val_loss too high"
EDIT = Edit(
    "manual_loop.distribution.single_device:test_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="""
sample_weight = tf.gather([1.0, 1.0, 5.0], y)
loss = compiled_loss(y, y_pred, sample_weight, model.losses)
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.fit",
    "self._eval_epoch_iterator = TFEpochIterator(",
)
THREAD = Thread(
    "https://github.com/keras-team/keras/pull/8591",
    "A proposal to weigh the validation data too, declined: class weights shall help "
    "training, and evaluation cannot know the labels.",
)
case = class_weight_case
