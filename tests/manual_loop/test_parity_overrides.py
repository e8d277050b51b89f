"""Models with methods of their own, on both sides."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import SPARSE, X, Y, plain
from overrides import ALONE, MODELS, DrawingGan, of_gan
from parity import TRAINERS, assert_parity, covers, fit, use, values

EAGER = {"run_eagerly": True}
BLOCKS = {"steps_per_execution": 4}
XLA = {"jit_compile": True}


def optimizers(model):
    """All of a model's optimizers; a model with two has others than that of `compile`."""
    return {k: v for k, v in vars(model).items() if isinstance(v, keras.optimizers.Optimizer)}


def everything(trainer, data, validate=False, **arguments):
    """As `use`, where the model can be evaluated; and the state of further optimizers."""
    model = trainer.model
    if validate:
        seen = use(trainer, data, **arguments)
    else:
        seen = fit(trainer, data, **arguments)
    more = {k: values(v.variables) for k, v in optimizers(model).items()}
    return {**seen, "optimizers": more}


CANNOT_EVALUATE = ("GAN", "momentum encoder")


def script(Trainer, name, how, **arguments):
    build, compile, data = MODELS[name]
    trainer = Trainer(build())
    trainer.compile(**compile(**how))
    validate = name not in CANNOT_EVALUATE
    return everything(trainer, data, validate, epochs=2, batch_size=8, **arguments)


@covers("overrides: train_step, test_step, predict_step, compute_loss, compute_metrics, compile")
@pytest.mark.parametrize("how", [{}, EAGER, BLOCKS, XLA, {**XLA, **BLOCKS}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_overrides_is_honored(name, how):
    assert_parity(name, how, script=script)
