"""What each kind of event is, in a sentence, and the details of fit that it stands for."""

from typing import NamedTuple

FOLDED = ("layer", "metric", "optimizer")  # sources of which many in a row are shown as one
SHORTEST_RUN = 3


class Detail(NamedTuple):
    """An entry of docs/details.md: its number and its title, without the full stop."""

    number: int
    title: str


class Kind(NamedTuple):
    """A kind of event, or an argument of compile."""

    sentence: str
    details: tuple[Detail, ...] = ()


ACC = Detail(1, '"acc" is resolved by the first batch')
NAMES = Detail(2, "The name in the logs is the string you passed")
SCALING = Detail(5, "Only the model's own dtype policy enables loss scaling")
SEEDED = Detail(11, "With a global seed, every epoch has the same permutation")
RESET = Detail(28, "The metrics are reset before on_epoch_begin")
STOP = Detail(29, "stop_training is checked only after a batch and after an epoch")
TRAINING = Detail(31, "training=True is passed only to a model whose call accepts it")
REGULARIZERS = Detail(32, "val_loss contains the regularizers")
ONE_SUM = Detail(33, "The terms of the loss are added by one sum, which determines the last bit")
WEIGHTS = Detail(38, "Weights do not normalize the loss")
BEFORE = Detail(41, "The loss in the logs is the loss before the update")
NON_FINITE = Detail(43, "A step with non-finite gradients is skipped and not counted")
OUTSIDE = Detail(44, "Gradients and update are computed outside the tape")
MEANS = Detail(47, "The logs of a batch are means over the epoch so far")
UNWEIGHTED = Detail(48, "metrics never use weights")
FLOATS = Detail(51, "Every batch waits until its logs are floats")
WRITTEN = Detail(52, "What a callback writes into the logs of an epoch is in the history")
EMA = Detail(56, "The averages of an EMA optimizer are written just before on_train_end")
NO_FINALLY = Detail(57, "An exception skips on_train_end and the EMA averages")
SAME_METRICS = Detail(58, "Validation resets and uses the same metrics as training")
FIRST_BATCH = Detail(
    59, "Every validation starts from the first batch, except with the workers of a PyDataset"
)
INFERENCE = Detail(62, "Validation runs with training=False, so losses on the same rows differ")
XLA = Detail(63, 'jit_compile="auto" means no XLA on a CPU')
ONE_STEP = Detail(65, "XLA compiles one step, never a multi-step call")
ITERATOR = Detail(67, "The graph takes an iterator, and nothing else")
CONSTANTS = Detail(68, "Python attributes are constants of the trace")
UNBUILT = Detail(23, "A model without an input shape has no weights in on_train_begin")
NUMBERS = Detail(53, "With steps_per_execution, batch numbers may exceed the number of batches")
AN_EPOCH = Detail(22, "epochs is the epoch to stop at, not the number of epochs to run")

# Each argument of compile.
ARGUMENTS = {
    "optimizer": Kind(
        "The optimizer updates the weights; a name stands for its class.", (SCALING,)
    ),
    "loss": Kind("The number to minimize; a name or a function is wrapped in a Loss.", (ONE_SUM,)),
    "metrics": Kind("Running means for the logs; names are resolved by shapes.", (ACC, NAMES)),
    "weighted_metrics": Kind("Metrics that use the sample weights.", (UNWEIGHTED,)),
    "run_eagerly": Kind("Whether a step stays Python or becomes a graph.", (CONSTANTS,)),
    "steps_per_execution": Kind("How many steps one call of the graph runs.", (NUMBERS,)),
    "jit_compile": Kind("Whether XLA compiles the step.", (XLA, ONE_STEP)),
    "auto_scale_loss": Kind("Whether the loss is scaled for float16 gradients.", (SCALING,)),
}

# Each event, by source and the last part of its call; "" stands for any other of that source.
EVENTS = {
    ("callback", "on_train_begin"): Kind(
        "The training begins: callbacks set themselves up.", (UNBUILT,)
    ),
    ("callback", "on_train_end"): Kind(
        "The training has ended: callbacks close their files, or restore the best weights.",
        (NO_FINALLY,),
    ),
    ("callback", "on_epoch_begin"): Kind("An epoch, one pass over the data, begins.", (AN_EPOCH,)),
    ("callback", "on_epoch_end"): Kind(
        "The epoch's logs are final; History keeps them, callbacks may stop the training.",
        (WRITTEN, STOP),
    ),
    ("callback", "on_train_batch_begin"): Kind("A batch begins; it is not taken yet.", (NUMBERS,)),
    ("callback", "on_train_batch_end"): Kind(
        "The step is done; its logs are converted to floats.", (FLOATS, MEANS)
    ),
    ("callback", "on_test_begin"): Kind("The validation of this epoch begins.", (FIRST_BATCH,)),
    ("callback", "on_test_end"): Kind(
        "The validation has ended; its logs get the prefix val_.", (SAME_METRICS,)
    ),
    ("callback", "on_test_batch_begin"): Kind("A validation batch begins.", (FIRST_BATCH,)),
    ("callback", "on_test_batch_end"): Kind("A validation batch is done.", (MEANS,)),
    ("data", "iter"): Kind("A new iterator over the data: each epoch starts one.", (SEEDED,)),
    ("data", "batch"): Kind("The iterator is asked for the next batch.", (ITERATOR,)),
    ("tape", "enter"): Kind(
        "The tape starts to record: the operations that follow can be differentiated.", (OUTSIDE,)
    ),
    ("tape", "exit"): Kind("The tape stops recording: it has seen the loss.", (OUTSIDE,)),
    ("tape", "gradient"): Kind(
        "Backpropagation: the tape is read backward, one gradient for each weight.", (OUTSIDE,)
    ),
    ("layer", ""): Kind(
        "The forward pass: the model calls its layers in turn.", (TRAINING, INFERENCE)
    ),
    ("loss", ""): Kind(
        "Labels and predictions become one number; regularizers are added after it.",
        (WEIGHTS, REGULARIZERS),
    ),
    ("metric", "reset_state"): Kind("The metric's state is set back to 0.", (RESET,)),
    ("metric", "update_state"): Kind(
        "This batch is added to the metric's state.", (BEFORE, UNWEIGHTED)
    ),
    ("metric", "result"): Kind(
        "The metric's value over the batches so far is read, for the logs.", (MEANS,)
    ),
    ("optimizer", "scale_loss"): Kind(
        "The loss is scaled for float16; otherwise it stays as it is.", (NON_FINITE,)
    ),
    ("optimizer", "apply"): Kind(
        "The optimizer gets all gradients: it may clip them, then updates the weights.", (OUTSIDE,)
    ),
    ("optimizer", "update_step"): Kind(
        "One weight is updated from its gradient, by the optimizer of Keras on both sides.",
        (OUTSIDE,),
    ),
    ("optimizer", "finalize_variable_values"): Kind(
        "The optimizer may write its averages into the weights.", (EMA,)
    ),
}

LEFT_TO_KERAS = (
    "The loop writes out what fit does with Keras's objects, not the objects themselves: "
    "optimizers, losses, metrics, layers and keras.callbacks.CallbackList are Keras's on both "
    "sides, and Model.compile keeps the arguments and resolves names and jit_compile for both."
)


def of_event(source: str, call: str) -> Kind:
    """The kind of an event.

    Args:
        source, call: as in `Event`.
    """
    found = EVENTS.get((source, call.rpartition(".")[2]))
    return found or EVENTS[source, ""]


def of_argument(argument: str) -> Kind:
    """The kind of a decision of compile: `metrics="acc"`."""
    return ARGUMENTS[argument.partition("=")[0]]
