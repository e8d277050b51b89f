"""What `compile` makes of `metrics` and `weighted_metrics`: metric objects, each on its output.

A metric is a running sum: updated on every batch, read after every batch, reset before every
epoch. The logs of a batch are therefore means over the epoch so far
(`keras/src/trainers/trainer.py`, `Trainer.compute_metrics`, `get_metrics_result`;
`compile_utils.py`, `CompileMetrics.update_state`, Keras 3.15).

The objects are those that `model.metrics` lists, so that callbacks can read and reset them there.
"""


class CompiledMetrics:
    """The metrics of a compiled model.

    Args:
        model: the model, whose `get_metrics_result` reads them all.
        loss: the `keras.metrics.Mean` of the batches' losses.
        resolved: `configuration.ResolvedMetrics`; None if `compile` was given no metrics.

    Attributes:
        loss: as given.
    """

    def __init__(self, model, loss, resolved):
        self.loss = loss
        self._model = model
        self._resolved = resolved

    def update_state(self, y, y_pred, sample_weight):
        """Update every metric with its output's labels and predictions.

        Args:
            y, y_pred: tensors `[batch, ...]`, or structures of them, one for each output.
            sample_weight: None, a tensor `[batch]`, or a structure like `y`.

        Raises:
            ValueError: on the first batch: an unknown name, or a structure of `metrics` that the
                outputs do not have.
        """
        if self._resolved is None:
            return
        entries, flatten = self._resolved.entries(y, y_pred)
        y, y_pred = flatten(y), flatten(y_pred)
        weights = [None] if sample_weight is None else flatten(sample_weight)
        if len(weights) < len(y):  # one array for all outputs
            weights = weights[:1] * len(y)
        for metric, i, is_weighted in entries:
            if i < len(y):  # the last outputs may have no labels
                weight = weights[i] if is_weighted else None
                metric.update_state(y[i], y_pred[i], sample_weight=weight)

    def result(self):
        """dict: name -> scalar tensor, of all metrics that `model.metrics` lists."""
        return self._model.get_metrics_result()
