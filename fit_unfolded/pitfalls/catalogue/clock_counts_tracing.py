"""A clock that counts tracing.

The first call of a `tf.function` traces and optimizes it, and with XLA compiles it: it takes far
longer than a later one. A clock that starts before the first epoch, or a mean over all of them,
compares how long two programs take to start. Leave out the first call, and the first of every other
shape; here the first epoch. Where the start is the question, tell it apart, as `bench` does.
"""

from fit_unfolded.bench import measure
from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import BY_ITS_CLOCK, SEED, finish, start
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import traced_case

SYMPTOM = "the clock is wrong"
EDIT = Edit(
    "fit_unfolded.bench.measure:turns_of",
    right="return Turn(watch.seconds[1:], watch.losses)",
    wrong="return Turn(watch.seconds, watch.losses)",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer._make_function",
    "multi_step_on_iterator = tf.function(",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/48844",
    "TensorFlow seemed slow on few batches; the answer: tf.function compiles when it is first "
    "called, which was timed.",
)
TIMED = BY_ITS_CLOCK
COUNTED = "traced epochs in the time"
EPOCHS = 3


def train(side):
    """Three epochs under the clock; afterwards those that are compared, which trace nothing."""
    case = traced_case()
    trainer = start(side, case)
    x, y, *_ = case.data
    timed = measure.turns_of(trainer, {"x": x, "y": y}, case.fit["batch_size"], EPOCHS)(SEED)
    trained = finish(side, trainer, case)
    trainer.model.timed = len(timed.seconds)
    return trained._replace(seconds=[sum(timed.seconds) / len(timed.seconds)])


def count(run):
    """The first of the epochs is traced, and no other: is it in the time?"""
    model = run.trainer.model
    return model.layers[0].runs * (model.timed - (EPOCHS - 1))
