"""One step: what `fit`, `evaluate` and `predict` do with one batch.

This is the page to read first. The rest of the package prepares the arguments of these functions,
or repeats them: every name is resolved before the first step, so no line below asks which kind of
model, loss, metric or data it has.

The lines stand in the order of Keras 3.15 (`keras/src/backend/tensorflow/trainer.py`,
`TensorFlowTrainer.train_step`, `test_step`, `predict_step`), because the order in which numbers
are added decides their last bit.
"""

import warnings

import keras
import tensorflow as tf

from manual_loop.compiled.scaling import unscale_loss_for_distribution


def train_step(model, optimizer, compiled_loss, compiled_metrics, data):
    """Update the weights once, on one batch.

    Args:
        model: a `keras.Model`.
        optimizer: a `keras.optimizers.Optimizer`.
        compiled_loss: `(y, y_pred, sample_weight, losses) -> loss`, see `CompiledLoss`.
        compiled_metrics: the metrics of `compile`, and the mean of the loss: see `CompiledMetrics`.
        data: `x`, `(x, y)` or `(x, y, sample_weight)`: one batch, samples on axis 0.

    Returns:
        dict: name -> scalar tensor. The logs are means over the epoch so far, not over the batch.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)

    with tf.GradientTape() as tape:
        y_pred = forward(model, x, training=True)
        # model.losses: weight and activity regularizers, and what layers passed to add_loss()
        loss = compiled_loss(y, y_pred, sample_weight, model.losses)
        compiled_metrics.loss.update_state(
            unscale_loss_for_distribution(loss), sample_weight=sample_count(x)
        )
        # mixed_float16: small gradients would vanish in float16; otherwise the loss is unchanged
        scaled_loss = optimizer.scale_loss(loss)

    weights = model.trainable_weights
    if weights:
        gradients = tape.gradient(scaled_loss, weights)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))
    else:
        warnings.warn("The model does not have any trainable weights.", stacklevel=2)

    compiled_metrics.update_state(y, y_pred, sample_weight)
    return compiled_metrics.result()


def test_step(model, compiled_loss, compiled_metrics, data):
    """Compute the loss and the metrics on one batch; no weight is updated.

    Same arguments and logs as `train_step`. BatchNorm uses its moving averages, Dropout is off.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    y_pred = forward(model, x, training=False)
    loss = compiled_loss(y, y_pred, sample_weight, model.losses)
    compiled_metrics.loss.update_state(
        unscale_loss_for_distribution(loss), sample_weight=sample_count(x)
    )
    compiled_metrics.update_state(y, y_pred, sample_weight)
    return compiled_metrics.result()


def predict_step(model, data):
    """The model's output for one batch: same structure and dtypes as `model(x)`."""
    x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
    return forward(model, x, training=False)


def forward(model, x, training):
    """`model(x)`, with `training` only for a model whose `call` takes it.

    `Layer.__call__` passes `training` on to the layers inside even if the model's own `call` does
    not name it, so passing it always would turn on a Dropout that `fit` leaves off.
    """
    if "training" in model.call_signature_parameters:
        return model(x, training=training)
    return model(x)


def sample_count(x):
    """How many samples the batch holds: the weight of its loss in the epoch's mean."""
    first = next(leaf for leaf in keras.tree.flatten(x) if leaf is not None)
    return tf.shape(first)[0]
