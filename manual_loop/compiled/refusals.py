"""What the loop refuses by name, instead of doing something else silently."""

# Arguments of `compile` in older Keras, and what replaced them.
REMOVED = {
    "sample_weight_mode": "`sample_weight_mode` left Keras. For one weight per time step, pass "
    "`fit` a `sample_weight` of shape [samples, steps].",
    "target_tensors": "`target_tensors` left Keras. Pass the labels to `fit` as `y`, or in a "
    "`tf.data.Dataset` of (x, y).",
}


def refuse_arguments(names):
    """Raise TypeError for an argument of `compile` that Keras does not have, or has no more."""
    for name in names:
        raise TypeError(REMOVED.get(name, f"`compile` has no argument `{name}`."))


# Numbers that fit chooses itself if they are not given, and those that it does not.
OPTIONAL = ("batch_size", "steps", "steps_per_epoch")
REQUIRED = ("epochs", "initial_epoch", "steps_per_execution")


def refuse_fractions(arguments, **more):
    """Raise TypeError for a number of samples, steps or epochs that is not an integer.

    What is empty counts as not given, as in fit.
    """
    for name, value in {**arguments, **more}.items():
        optional = name.endswith(OPTIONAL)
        counts = optional or name.endswith(REQUIRED)
        if counts and not hasattr(value, "__index__") and (value or not optional):
            raise TypeError(f"`{name}` must be an integer. Received: {value!r}")
