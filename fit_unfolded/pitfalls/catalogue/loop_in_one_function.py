"""The whole training loop in one `tf.function`.

A Python loop inside a `tf.function` is unrolled: tracing runs the step once for every batch, and
the graph holds a copy of it for each. That takes long and much memory before the first number
appears, and longer with more data. Put `tf.function` around one step, or loop by `tf.while_loop` or
AutoGraph, over tensors or a `tf.data.Dataset`, as `steps_per_execution` does. What is counted here
is how often tracing runs the model's `call`.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.experiment import ALL, Case
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import SPARSE, Traced, blobs, classifier

SYMPTOM = "slow to start"
EDIT = Edit(
    "manual_loop.execution.step_function:StepFunction.__call__",
    right="""
if isinstance(iterator, ArrayIterator):
    return self._on_arrays.of(iterator.dataset)(iterator)
batches, logs = self._on_stream(iterator)
""",
    wrong="""
def loop(batches):
    for batch in batches:
        logs = self._step(batch)
    return logs

if not hasattr(self, "loop"):
    self.loop = tf.function(loop, autograph=False)
return self.loop(list(iterator))
""",
)
KERAS = Place(
    "keras.src.backend.tensorflow.trainer:TensorFlowTrainer._make_function",
    "_, final_optional_outputs, _ = tf.while_loop(",
)
THREAD = Thread(
    "https://github.com/tensorflow/tensorflow/issues/48732",
    "A loop was slower than fit and ran out of memory: one comment finds that the function with "
    "the whole loop was traced, not that of a step.",
)
TIMED = ALL
COUNTED = "runs of the model's Python"


def case():
    """One call an epoch, of eight steps."""
    return Case(
        data=blobs(88),
        build=lambda: classifier(Traced()),
        compile=lambda: {"optimizer": "sgd", "loss": SPARSE, "steps_per_execution": 8},
        fit={"epochs": 3, "batch_size": 11},
    )


def count(run):
    """Runs of the layer's `call` in training."""
    return run.trainer.model.layers[0].runs
