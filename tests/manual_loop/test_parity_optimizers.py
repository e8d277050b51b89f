"""Every optimizer that Keras exports, and every option they share."""

import inspect

import keras
import pytest
from cases import CLASSES, SHORT, SPARSE, plain
from parity import assert_parity, covers, fit, needs_keras

optimizers = keras.optimizers
Adam = optimizers.Adam
schedules = optimizers.schedules

EXPORTED = [
    name
    for name, cls in vars(optimizers).items()
    if inspect.isclass(cls)
    and issubclass(cls, optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
]


def case(topic, make, *marks):
    return pytest.param(make, id=topic, marks=[covers(f"optimizer: {topic}"), *marks])


OPTIONS = [
    case("clipnorm", lambda: Adam(clipnorm=0.1)),
    case("clipvalue", lambda: Adam(clipvalue=0.01)),
    case("global_clipnorm", lambda: Adam(global_clipnorm=0.1)),
    case("weight_decay", lambda: Adam(weight_decay=0.1)),
    case("use_ema", lambda: Adam(use_ema=True)),
    case("ema_overwrite_frequency", lambda: Adam(use_ema=True, ema_overwrite_frequency=3)),
    case("gradient_accumulation_steps", lambda: Adam(gradient_accumulation_steps=3)),
    case("loss_scale_factor", lambda: Adam(loss_scale_factor=8.0)),
    case(
        "LossScaleOptimizer", lambda: optimizers.LossScaleOptimizer(Adam(), dynamic_growth_steps=2)
    ),
    case(
        "MultiOptimizer",
        lambda: optimizers.MultiOptimizer(
            optimizers.OptimizerMap(Adam(), {".*kernel": optimizers.SGD(0.1)})
        ),
        needs_keras("3.15", "has no MultiOptimizer"),
    ),
    case("momentum and nesterov", lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True)),
    case("a schedule: ExponentialDecay", lambda: Adam(schedules.ExponentialDecay(0.1, 3, 0.5))),
    case(
        "a schedule: CosineDecay",
        lambda: Adam(schedules.CosineDecay(0.1, 3, warmup_target=0.2, warmup_steps=1)),
    ),
    case(
        "a schedule: PiecewiseConstantDecay",
        lambda: Adam(schedules.PiecewiseConstantDecay([2, 3], [0.1, 0.01, 0.001])),
    ),
    case("a function as learning rate", lambda: Adam(lambda: 0.01)),
]


@pytest.mark.parametrize("make", [case(n, getattr(optimizers, n)) for n in EXPORTED] + OPTIONS)
def test_each_optimizer(make):
    def compile():
        return {"optimizer": make(), "loss": SPARSE, "run_eagerly": True}

    assert_parity(plain, compile, CLASSES, then=fit, **SHORT)


@covers("optimizer: SGD", "optimizer: use_ema")
@pytest.mark.parametrize("how", [{}, {"steps_per_execution": 2}], ids=str)
def test_options_that_change_weights_at_the_end_of_fit(how):
    def compile():
        return {
            "optimizer": Adam(use_ema=True, gradient_accumulation_steps=2),
            "loss": SPARSE,
            **how,
        }

    assert_parity(plain, compile, CLASSES, then=fit, **SHORT)


@covers("optimizer: use_ema", "fit: epochs")
@pytest.mark.parametrize("epochs", [0, 1])
def test_averages_are_written_after_any_epoch(epochs):
    def script(Trainer):
        trainer = Trainer(plain())
        trainer.compile(Adam(use_ema=True), SPARSE, run_eagerly=True)
        trainer.optimizer.build(trainer.model.trainable_variables)
        trainer.model.layers[0].bias.assign_add([1.0] * 4)  # now apart from their averages
        return fit(trainer, CLASSES, epochs=epochs)

    assert_parity(script=script)
