"""What `fit` does differently in the versions of Keras from 3.13 to 3.15.

The loop does what the installed version does. Each switch below is one change of Keras, with the
file and the function that changed, and the first version that has it. Nothing else in the loop asks
for a version. What changed inside Keras's own layers, losses, metrics, optimizers and callbacks
needs no switch: the loop calls those that are installed. docs/versions.md has both kinds.
"""

import re

import keras


def since(version):
    """Whether the installed Keras is of this version or a later one.

    Args:
        version: major and minor number, such as "3.14". A pre-release counts as its release.
    """
    return _numbers(keras.__version__) >= _numbers(version)


def _numbers(version):
    major, minor = re.findall(r"\d+", version)[:2]
    return int(major), int(minor)


# `keras/src/backend/tensorflow/trainer.py`, `TensorFlowTrainer.evaluate`, `train_on_batch` and
# `test_on_batch` turn their logs into floats, sorted by name (`pythonify_logs`), whatever they are.
# Before, `keras/src/trainers/trainer.py`, `Trainer.get_metrics_result` did so with its own result:
# the logs of an overridden step, if they had other names, stayed tensors in `evaluate`. The methods
# for one batch returned NumPy arrays without axes, in the order of the step.
RETURNS_FLOATS = since("3.14")

# `TensorFlowTrainer.train_on_batch` and `test_on_batch` reset the metrics first. Before, their logs
# were means over all batches since the last reset.
RESETS_METRICS_ON_BATCH = since("3.15")

# `keras/src/trainers/data_adapters/__init__.py`, `get_data_adapter` warns of `shuffle=True` for
# data that it cannot shuffle.
WARNS_OF_IGNORED_SHUFFLE = since("3.15")

# `keras/src/trainers/data_adapters/generator_data_adapter.py`, `GeneratorDataAdapter.__init__`
# checks that there is a first batch. Before, it took one from an empty list.
EMPTY_GENERATOR_ERROR = ValueError if since("3.15") else IndexError
