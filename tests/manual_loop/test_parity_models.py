"""Every kind of model and layer, and what models may carry along."""

import collections

import keras
import pytest
from cases import (
    CLASSES,
    ONE_HOT,
    SEQUENCES,
    SPARSE,
    VALUE,
    X,
    Y,
    compile_with,
    functional,
    mlp,
    plain,
)
from parity import assert_parity, covers, fit, needs_keras, train

layers, ops = keras.layers, keras.ops
SHORT = {"epochs": 2, "batch_size": 8, "validation_split": 0.3}


class Subclassed(keras.Model):
    """Its `call` does not name `training`; adds a loss and keeps a metric."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4, activation="relu")
        self.dropout = layers.Dropout(0.5)
        self.out = layers.Dense(3, activation="softmax")
        self.size = keras.metrics.Mean(name="size")

    def call(self, x):
        h = self.dropout(self.hidden(x))
        self.add_loss(0.1 * ops.mean(h))
        self.size.update_state(ops.mean(h))
        return self.out(h)


class WithTraining(Subclassed):
    """Its `call` names `training`; adds two losses, one of them of integers."""

    def call(self, x, training=False):
        h = self.dropout(self.hidden(x), training=training)
        self.add_loss([0.1 * ops.mean(h), ops.sum(ops.cast(h > 0, "int32"))])
        return self.out(h)


class NamedOutputs(Subclassed):
    def call(self, x):
        h = self.hidden(x)
        return {"klass": self.out(h), "size": ops.sum(h, axis=1, keepdims=True)}


class PairOfOutputs(NamedOutputs):
    def call(self, x):
        return tuple(super().call(x).values())


class OrderedOutputs(NamedOutputs):
    def call(self, x):
        outputs = super().call(x)
        return collections.OrderedDict(size=outputs["size"], klass=outputs["klass"])


class NotInOrder(OrderedOutputs):
    def call(self, x):
        return dict(super().call(x))


class Nested(NamedOutputs):
    def call(self, x):
        outputs = super().call(x)
        return {"first": outputs["klass"], "rest": [outputs["size"], outputs["size"] * 2.0]}


class Counting(layers.Layer):
    """A layer with a metric, a weight that only counts, and a layer inside."""

    def __init__(self):
        super().__init__()
        self.seen = keras.metrics.Sum(name="seen")
        self.inner = layers.Dense(3)

    def build(self, shape):
        self.calls = self.add_weight(name="calls", initializer="zeros", trainable=False)
        self.inner.build(shape)

    def call(self, x, training=False):
        self.seen.update_state(x)
        if training:
            self.calls.assign_add(1.0)
        return self.inner(x)


def build(*middle):
    """A function that makes a model of these layers, each given as what makes it."""

    def made():
        rest = [layer() for layer in middle]
        return keras.Sequential([keras.Input([8]), *rest, layers.Dense(3, activation="softmax")])

    return made


def frozen():
    model = mlp()
    model.layers[0].trainable = False
    model.layers[2].trainable = False  # BatchNormalization then uses its moving averages
    return model


def nested():
    inner = plain(4, "relu")
    inner.compile("sgd", "mse", metrics=["mae"])  # of no effect inside another model
    inner.trainable = False
    deeper = keras.Sequential([Counting(), functional_of(3)])
    return keras.Sequential([keras.Input([8]), inner, deeper])


def functional_of(features):
    inputs = keras.Input([features])
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(inputs))


def shared():
    first, second = keras.Input([4]), keras.Input([4])
    tower = keras.Sequential([layers.Dense(3, activation="tanh", kernel_regularizer="l1")])
    out = layers.Dense(3, activation="softmax")(layers.Add()([tower(first), tower(second)]))
    return keras.Model([first, second], out)


def constrained():
    return keras.Sequential(
        [
            keras.Input([8]),
            layers.Dense(4, kernel_constraint="max_norm", kernel_regularizer="L1L2"),
            layers.Dense(3, bias_constraint="non_neg", activation="softmax", use_bias=True),
        ]
    )


def unbuilt():
    return keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(3)])


def sequence_to_sequence():
    return keras.Sequential(
        [
            keras.Input([5, 4]),
            layers.Masking(),
            layers.SimpleRNN(3, return_sequences=True),
            layers.Dense(1),
        ]
    )


def stateful():
    return keras.Sequential(
        [keras.Input([5, 4], batch_size=11), layers.GRU(3, stateful=True), layers.Dense(3)]
    )


SHARED = {"x": [X[:, :4], X[:, 4:]], "y": Y}
STEPS = {"x": SEQUENCES, "y": SEQUENCES[:, :, :1]}
MSE = {"loss": "mse", "metrics": ["mae"], "weighted_metrics": ["mse"]}
LOGITS = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
BOTH = {"x": X, "y": {"klass": Y, "size": VALUE}}
NO_METRICS = {"metrics": None}


def case(topic, build, data=CLASSES, *marks, **compile):
    return pytest.param(build, data, compile, id=topic, marks=[covers(f"model: {topic}"), *marks])


MODELS = [
    case("Sequential", mlp),
    case("Sequential, not built", unbuilt, **LOGITS),
    case("functional", functional),
    case("subclassed, `call(x)`", Subclassed),
    case("subclassed, `call(x, training)`", WithTraining),
    case("subclassed, its own losses alone", Subclassed, {"x": X}, loss=None, **NO_METRICS),
    case(
        "subclassed, a dict of outputs",
        NamedOutputs,
        BOTH,
        loss={"klass": SPARSE, "size": "mse"},
        metrics={"klass": ["acc"]},
    ),
    case(
        "subclassed, a dict of outputs not by the alphabet",
        NotInOrder,
        BOTH,
        loss={"klass": SPARSE, "size": "mse"},
        metrics=[["acc"], ["mae"]],
    ),
    case(
        "subclassed, an ordered dict of outputs",
        OrderedOutputs,
        {"x": X, "y": collections.OrderedDict(size=VALUE, klass=Y)},
        loss=collections.OrderedDict(size="mse", klass=SPARSE),
        metrics=[["mae"], ["acc"]],
    ),
    case(
        "subclassed, a tuple of outputs",
        PairOfOutputs,
        {"x": X, "y": (Y, VALUE)},
        loss=(SPARSE, "mse"),
        metrics=(["acc"], ["mae"]),
    ),
    case(
        "subclassed, outputs in outputs",
        Nested,
        {"x": X, "y": {"first": Y, "rest": [VALUE, VALUE]}},
        needs_keras("3.14", "takes no metrics of outputs in outputs"),
        loss={"first": SPARSE, "rest": ["mse", "mae"]},
        metrics={"first": ["acc"], "rest": [["mae"], ["mse"]]},
    ),
    case(
        "subclassed, outputs in outputs, labels in a tuple there",
        Nested,
        {"x": X, "y": {"first": ONE_HOT, "rest": (VALUE, VALUE)}},
        loss="mse",
        **NO_METRICS,
    ),
    case("nested models", nested),
    case("shared layers", shared, SHARED),
    case("frozen layers", frozen),
    case("constraints and regularizers", constrained),
    case("layers with metrics and counters", build(Counting)),
    case("masks in the loss and the metrics", sequence_to_sequence, STEPS, **MSE),
    case(
        "noise and other random layers",
        build(
            lambda: layers.GaussianNoise(0.1),
            lambda: layers.AlphaDropout(0.3, seed=3),
            lambda: layers.GaussianDropout(0.2),
        ),
    ),
    case("normalisation", build(layers.LayerNormalization, layers.UnitNormalization)),
]


@pytest.mark.parametrize(("build", "data", "compile"), MODELS)
def test_each_kind_of_model(build, data, compile):
    how = {"run_eagerly": True, "optimizer": "sgd", **compile}
    assert_parity(build, compile_with(**how), data, then=fit, **SHORT)


@covers("model: layers that train if they are not told")
def test_evaluate_and_predict_tell_every_layer_that_they_do_not_train():
    class Drop(layers.Dropout):
        def call(self, inputs, training=True):
            return super().call(inputs, training)

    eager = compile_with(run_eagerly=True)
    assert_parity(build(lambda: Drop(0.5)), eager, CLASSES, batch_size=11)


@covers("model: layers with metrics and counters", "model: masks in the loss and the metrics")
@pytest.mark.parametrize("block", [1, 2])
def test_models_with_states_as_a_graph(block):
    how = {"steps_per_execution": block, "optimizer": "sgd"}
    assert_parity(nested, compile_with(**how), CLASSES, then=fit, **SHORT)
    assert_parity(sequence_to_sequence, compile_with(**MSE, **how), STEPS, then=fit, **SHORT)


@covers("model: stateful recurrent layers")
def test_a_state_that_goes_on_from_batch_to_batch():
    data = {"x": SEQUENCES, "y": Y}
    assert_parity(stateful, compile_with(**LOGITS), data, {**data, "batch_size": 11}, batch_size=11)


@covers("model: subclassed, `call(x)`", "model: subclassed, `call(x, training)`")
@pytest.mark.parametrize("model", [Subclassed, WithTraining])
@pytest.mark.parametrize("how", [{}, {"steps_per_execution": 2}], ids=str)
def test_subclassed_models_as_a_graph(model, how):
    assert_parity(model, compile_with(optimizer="sgd", **how), CLASSES, then=fit, **SHORT)


@covers("model: frozen layers")
@pytest.mark.parametrize("again", [False, True], ids=["not compiled again", "compiled again"])
def test_freezing_after_compile(again):
    def script(Trainer):
        trainer = Trainer(mlp())
        trainer.compile("adam", SPARSE)
        first = fit(trainer, CLASSES, **SHORT)
        trainer.model.layers[0].trainable = False
        if again:
            trainer.compile("adam", SPARSE)
        return {"first": first, "second": fit(trainer, CLASSES, **SHORT)}

    assert_parity(script=script)


@covers("model: nothing to train")
def test_a_model_without_trainable_weights_warns():
    def build():
        model = plain()
        model.trainable = False
        return model

    seen = assert_parity(build, compile_with(run_eagerly=True), CLASSES, epochs=1)
    assert any("does not have any" in message for _, message in seen["warnings"])


@covers("model: compiled before it is given to the trainer")
def test_a_compiled_model_is_trained_as_compiled():
    def script(Trainer):
        model = mlp()
        model.compile("sgd", SPARSE, metrics=["acc"])
        return fit(Trainer(model), CLASSES, **SHORT)

    assert_parity(script=script)


@covers("model: two trainers of one model")
def test_two_models_that_share_layers_are_trained_in_turns():
    def script(Trainer):
        body = layers.Dense(4, activation="relu")
        seen = {}
        trainers = []
        for name in ("a", "b"):
            inputs = keras.Input([8])
            out = layers.Dense(3, activation="softmax", name=name)(body(inputs))
            trainers.append(Trainer(keras.Model(inputs, out)))
            trainers[-1].compile("adam", SPARSE)
        for i, trainer in enumerate(trainers * 2):
            seen[str(i)] = fit(trainer, CLASSES, batch_size=11)
        return seen

    assert_parity(script=script)


@covers("model: custom layers, losses, metrics and optimizers")
def test_an_optimizer_of_ones_own():
    class Plain(keras.optimizers.Optimizer):
        def __init__(self):
            super().__init__(learning_rate=0.1, name="plain")

        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, gradient * learning_rate * 0.5)

    assert_parity(
        script=lambda Trainer: train(
            Trainer, mlp, compile_with(optimizer=Plain()), CLASSES, then=fit, **SHORT
        )
    )
