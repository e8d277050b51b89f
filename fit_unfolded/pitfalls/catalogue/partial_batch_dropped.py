"""The last, partial batch dropped.

`range(len(x) // batch_size)` ends before the samples that do not fill a batch, and so does
`drop_remainder=True`. If the order is the same in every epoch, they are the same samples each time,
and the model never sees them. In validation and in `predict` it is worse: the loss is that of a
part of the data, and rows are missing. fit rounds the number of batches up.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import uneven_case

SYMPTOM = "loss or val_loss off, up or down"
EDIT = Edit(
    "manual_loop.data.epoch_iterator:array_adapter",
    right="steps = math.ceil(samples / batch_size)",
    wrong="steps = samples // batch_size",
)
KERAS = Place(
    "keras.src.trainers.data_adapters.array_data_adapter:ArrayDataAdapter.__init__",
    "self._size = int(math.ceil(num_samples / batch_size))",
)
THREAD = Thread(
    "https://github.com/siddk/entity-network/issues/7",
    "The bounds of the batches left out the end of the data; taken for negligible, at up to 32 "
    "samples.",
)
case = uneven_case
