"""What the loop refuses by name, instead of doing something else silently."""

import keras

# fit calls these methods of the model. The loop writes out what they do by default.
REPLACED = (
    "compile",
    "fit",
    "evaluate",
    "predict",
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
    "make_train_function",
    "make_test_function",
    "make_predict_function",
)

# Arguments of `compile` in older Keras, and what replaced them.
REMOVED = {
    "sample_weight_mode": "`sample_weight_mode` left Keras. For one weight per time step, pass "
    "`fit` a `sample_weight` of shape [samples, steps].",
    "target_tensors": "`target_tensors` left Keras. Pass the labels to `fit` as `y`, or in a "
    "`tf.data.Dataset` of (x, y).",
}


def refuse_overrides(model):
    """Raise ValueError if the model has another version of a method that the loop replaces."""
    for name in REPLACED:
        if getattr(type(model), name) is not getattr(keras.Model, name) or name in vars(model):
            raise ValueError(
                f"The model overrides `{name}`, which this loop replaces. Train it with "
                "`model.fit`, or write its step into a loop of its own."
            )


def refuse_arguments(names):
    """Raise TypeError for an argument of `compile` that Keras does not have, or has no more."""
    for name in names:
        raise TypeError(REMOVED.get(name, f"`compile` has no argument `{name}`."))


def refuse_fractions(arguments, **more):
    """Raise TypeError for a number of samples, steps or epochs that is not an integer."""
    for name, value in {**arguments, **more}.items():
        counts = name.endswith(("batch_size", "epochs", "epoch", "steps", "steps_per_execution"))
        if counts and value is not None and not hasattr(value, "__index__"):
            raise TypeError(f"`{name}` must be an integer. Received: {value!r}")
