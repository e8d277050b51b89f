"""Inputs shuffled without their labels.

Two calls of a shuffle, one for x and one for y, draw two permutations: every label goes to a sample
at random, and nothing fails. The loss falls to that of guessing by the frequencies of the classes,
and stays there. fit draws one permutation of the indices and gathers all arrays by it, sample
weights too.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import plain_case

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.trainer:Trainer.fit",
    right="""
batches = self._batches(
    x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight
)
""",
    wrong="""
x = keras.random.shuffle(x)
batches = self._batches(
    x, y, sample_weight, batch_size, steps_per_epoch, shuffle, class_weight
)
""",
)
KERAS = Place(
    "keras.src.trainers.data_adapters.array_data_adapter:ArrayDataAdapter.get_tf_dataset",
    "return tree.traverse(grab_one, data)",
)
THREAD = Thread(
    "https://github.com/mlcommons/GaNDLF/pull/870",
    "A training pipeline shuffled the data and the ground truth separately.",
)
case = plain_case
