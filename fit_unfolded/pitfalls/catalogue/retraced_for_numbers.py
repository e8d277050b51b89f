"""A Python number among the arguments of the step.

`tf.function` traces anew for every Python value that it has not seen: a step that is given the
batch's number, or a learning rate as a float, makes a new graph for each batch. It is then slower
than no graph at all. A tensor, `tf.constant(number)`, has one graph for all values. fit hands its
step nothing but the iterator.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import AFTER_THE_FIRST
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import traced_case

SYMPTOM = "slower every step"
EDIT = Edit(
    "manual_loop.execution.step_function:StepFunction.__call__",
    right="""
if isinstance(iterator, ArrayIterator):
    return self._on_arrays.of(iterator.dataset)(iterator)
batches, logs = self._on_stream(iterator)
""",
    wrong="""
if not hasattr(self, "numbered"):
    self.number = 0
    self.numbered = tf.function(lambda data, number: self._step(data), autograph=False)
self.number += 1
return self.numbered(next(iterator), self.number)
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer.fit",
    "logs = self.train_function(iterator)",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/32157",
    "An argument that was no tensor made training slow; the answer promises a warning for too "
    "many traces, for many users meet it.",
)
TIMED = AFTER_THE_FIRST
COUNTED = "graphs of the step"
case = traced_case


def count(run):
    """Runs of the layer's `call` in training: one for each graph."""
    return run.trainer.model.layers[0].runs
