"""A clock that does not wait for the device.

On a GPU a call returns when its work is queued, not when it is done. A clock that is read then
tells how fast Python queues work, however large the model is. Read a number, or call
`tf.test.experimental.sync_devices()`, before the clock. Measured here on the CPU, which TensorFlow
was told to run asynchronously too; on a GPU, nothing was measured. fit waits by itself: it reads
its logs.
"""

import dataclasses

import tensorflow as tf

from fit_unfolded.bench import anatomy
from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import BY_ITS_CLOCK, train_case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "the clock is wrong"
EDIT = Edit(
    "fit_unfolded.bench.anatomy:_timed",
    right="""
piece()
tf.test.experimental.sync_devices()
return time.perf_counter() - begin
""",
    wrong="""
piece()
return time.perf_counter() - begin
""",
)
KERAS = Place(
    "keras.src.callbacks.callback_list:CallbackList._on_train_batch_end",
    "logs = python_utils.pythonify_logs(logs)",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/52520",
    "Asks for the documentation to say whether a function has ended on the GPU when its call "
    "returns: one guide waits for a number before it reads the clock, another does not.",
)
TIMED = BY_ITS_CLOCK
COUNTED = "steps still under way"
STEPS = 4


def train(side):
    """A training as any other; then some steps of matrices, timed while the CPU is asynchronous."""
    case = plain_case()
    case = dataclasses.replace(case, fit=case.fit | {"epochs": 2})
    trained = train_case(side, case)
    ended: list[bool] = []
    matrix = tf.random.uniform([600, 600])

    def end(value):
        ended.append(True)
        return value

    @tf.function(autograph=False)
    def step():
        product = matrix
        for _ in range(8):
            product = tf.matmul(product, matrix) / 600.0
        return tf.numpy_function(end, [product], tf.float32)

    step()
    tf.config.experimental.set_synchronous_execution(False)
    try:
        ended.clear()
        seconds = anatomy._timed(lambda: [step() for _ in range(STEPS)])
        trained.run.trainer.model.under_way = STEPS - len(ended)
    finally:
        tf.test.experimental.sync_devices()
        tf.config.experimental.set_synchronous_execution(True)
    return trained._replace(seconds=[seconds / STEPS])


def count(run):
    """Steps that had not ended."""
    return run.trainer.model.under_way
