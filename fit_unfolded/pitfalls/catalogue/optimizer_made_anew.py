"""A new optimizer in every epoch.

An optimizer is a state: momentum, Adam's moments, the count of steps that a schedule and Adam's
correction of its first steps go by. A loop whose `train_epoch` makes its own begins all of them
anew with each call. fit goes on with one optimizer for the whole training, and through a second
`fit` too. Made inside a traced step, it is an error, for its variables are made more than once.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.trainer:Trainer.fit",
    right="""
model.reset_metrics()
callbacks.on_epoch_begin(epoch)
""",
    wrong="""
model.reset_metrics()
model.optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
callbacks.on_epoch_begin(epoch)
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.train_step",
    "self.optimizer.apply_gradients(",
)
THREAD = Thread(
    "https://github.com/alan-turing-institute/deepsensor/issues/47",
    "The function for an epoch made a new Adam each time and so lost its momentum; a class that "
    "keeps it trained to a lower loss.",
)
case = plain_case
