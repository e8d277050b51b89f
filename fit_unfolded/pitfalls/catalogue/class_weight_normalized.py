"""Class weights normalized.

fit multiplies the loss of a sample by the weight of its class, as given. A loop that first divides
the weights by their sum, as some libraries do, has the same ratios between the classes, but a loss
and gradients that are several times smaller: with SGD that is another learning rate. Adam mostly
hides it in the weights, not in the loss.
"""

from fit_unfolded.pitfalls import Thread
from fit_unfolded.pitfalls.source import Edit, Place
from fit_unfolded.pitfalls.tiny import class_weight_case

SYMPTOM = "loss too low"
EDIT = Edit(
    "manual_loop.data.sample_weights:weigh_classes",
    right="weights = [class_weight.get(int(number), 1.0) for number in classes]",
    wrong="""
total = sum(class_weight.values())
weights = [class_weight.get(int(number), 1.0) / total for number in classes]
""",
)
KERAS = Place(
    "keras.src.trainers.data_adapters.data_adapter_utils:class_weight_to_sample_weights",
    "sample_weight[i] = class_weight.get(",
)
THREAD = Thread(
    "https://github.com/richardaecn/class-balanced-loss/issues/7",
    "Asks why the code of a paper normalizes the weights of the classes; the answer: to keep the "
    "loss at the scale that it has without weights.",
)
case = class_weight_case
