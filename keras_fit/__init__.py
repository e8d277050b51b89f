"""Side one: compile + fit, as Keras gives them."""

from keras_fit.trainer import Trainer

__all__ = ["Trainer"]
