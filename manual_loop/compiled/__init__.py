"""What `compile` makes of its arguments: the loss, the metrics, and the names that they go by."""
