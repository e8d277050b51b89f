"""No `tf.function` around the step.

Without `tf.function` Python runs every operation of every batch, and the small ones cost more to
start than to compute. fit traces the step once and then makes one call a batch. What is counted
here is how often Python runs the model's `call` during training.
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
    wrong="return self._step(next(iterator))",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer._make_function",
    "one_step_on_data = tf.function(",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/28714",
    "fit is far faster than a loop with a GradientTape; the question is why, if fit is only a "
    "wrapper.",
)
TIMED = AFTER_THE_FIRST
COUNTED = "runs of the model's Python"
case = traced_case


def count(run):
    """Runs of the layer's `call` in training."""
    return run.trainer.model.layers[0].runs
