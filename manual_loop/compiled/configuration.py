"""From a compiled model to the loop's loss and metrics.

`Model.compile` keeps what it was given in the model. The loop reads it there when it needs it, so
whatever compiled the model last counts, as it does in fit: this trainer, another trainer of the
same model, or `model.compile`.

Keras has no public names for some of it. These are the only private attributes of Keras that the
loop reads to train: `_loss_tracker`, `_compile_loss` and `_compile_metrics` of the model,
`_user_loss`, `_user_loss_weights`, `_user_metrics` and `_user_weighted_metrics` of the latter two
(`keras/src/trainers/trainer.py`, `Trainer.compile`; `compile_utils.py`, `CompileLoss`,
`CompileMetrics`, Keras 3.15). What they hold are public objects: losses, metrics, names.
"""

from manual_loop.compiled.loss import CompiledLoss
from manual_loop.compiled.metrics import CompiledMetrics


class Configuration:
    """The loss and the metrics of a compiled model.

    Args:
        model: a compiled `keras.Model`.

    Attributes:
        loss: `CompiledLoss`.
        metrics: `CompiledMetrics`.
    """

    def __init__(self, model):
        self._model = model
        held = model._compile_loss
        names = getattr(model, "output_names", None)
        loss, weights = (held._user_loss, held._user_loss_weights) if held else (None, None)
        self.loss = CompiledLoss(loss, weights, names, lambda *batch: built(held, *batch).metrics)

        own = model._compile_metrics
        metrics, weighted = (own._user_metrics, own._user_weighted_metrics) if own else (None, None)
        self.metrics = CompiledMetrics(
            model._loss_tracker,
            metrics,
            weighted,
            names,
            lambda *batch: built(own, *batch).metrics if own else [],
        )

    @property
    def is_current(self):
        """False after the model was compiled again: that makes a new mean of the loss."""
        return self.metrics.loss is self._model._loss_tracker


def built(container, y, y_pred):
    """Keras's container of losses or metrics, after it has made its metric objects."""
    if not container.built:
        container.build(y, y_pred)
    return container
