"""`class_weight` applied twice.

A class weight is a sample weight, looked up by the label before the batch reaches the step:
`sample_weight` brings it along. A step that looks it up once more, or a loss function with the same
weights built in, squares it: a class that should count five times counts twenty-five times.
"""

from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import class_weight_case

SYMPTOM = "loss too high, or it falls too slowly"
EDIT = Edit(
    "manual_loop.distribution.single_device:train_step",
    right="loss = compiled_loss(y, y_pred, sample_weight, model.losses)",
    wrong="""
sample_weight *= tf.gather([1.0, 1.0, 5.0], y)
loss = compiled_loss(y, y_pred, sample_weight, model.losses)
""",
)
KERAS = Place(
    "keras.src.trainers.data_adapters.array_data_adapter:ArrayDataAdapter.__init__",
    "sample_weight = data_adapter_utils.class_weight_to_sample_weights(",
)
THREAD = None
case = class_weight_case
