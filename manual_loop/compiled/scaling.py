"""The two lines that scale a loss under a `tf.distribute.Strategy`; one device leaves it as it is.

Each replica computes the mean loss of its own part of the batch. The gradients of all replicas are
added up, so a replica contributes its mean divided by the number of replicas. The logs show the
mean itself. (`keras/src/losses/loss.py`, functions of the same names, Keras 3.15.)
"""

import tensorflow as tf


def scale_loss_for_distribution(loss):
    """The share of a replica's mean loss in the sum over all replicas."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss * tf.cast(1 / replicas, loss.dtype)


def unscale_loss_for_distribution(loss):
    """A replica's mean loss, from its scaled loss."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss * tf.cast(replicas, loss.dtype)
