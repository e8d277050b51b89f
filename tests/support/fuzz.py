"""Random models, data, compile and fit arguments, drawn together and run on both sides.

All that is drawn is Python source, so that a failing example is a program: run it with
`tests/support` on PYTHONPATH. A new layer, optimizer or parameter is a line in one of the tables
below. Where fit refuses an example, the loop must raise the same type of error.

    python tests/support/fuzz.py 500 --seed 1
"""

import argparse
import collections
import contextlib
import logging
import multiprocessing
import os
import textwrap
import time
from concurrent import futures
from unittest import mock

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()

import tensorflow as tf  # noqa: E402
from cases import *  # noqa: E402, F403  what the programs use
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from parity import TRAINERS, assert_same, first_difference, observe, train  # noqa: E402

from manual_loop.execution import dispatch  # noqa: E402

CHUNK = 40  # examples a process
REPEATS = 20  # of fit, to see whether it differs from itself
WAVERS = "trained, but fit differs from itself"


def one_of(*sources):
    return st.sampled_from(sources)


SIZE = one_of("1", "2", "4", "5", "8", "11", "22", "40", "None")

LAYERS = {
    "X": one_of(
        'layers.Dense(4, activation="relu")',
        'layers.Dense(3, kernel_regularizer="l2", bias_regularizer="l1")',
        'layers.Dense(4, activity_regularizer="l2", kernel_constraint="max_norm")',
        "layers.Dense(2, trainable=False)",
        "layers.Dropout(0.4)",
        "layers.GaussianNoise(0.2)",
        "layers.BatchNormalization()",
        "layers.BatchNormalization(momentum=0.5, trainable=False)",
        "layers.LayerNormalization()",
        "layers.ActivityRegularization(l1=0.01)",
        'layers.Activation("swish")',
        "layers.PReLU()",
    ),
    "IMAGES": one_of(
        'layers.Conv2D(2, 3, padding="same", kernel_regularizer="l2")',
        'layers.SeparableConv2D(2, 2, padding="same")',
        'layers.MaxPooling2D(2, padding="same")',
        "layers.BatchNormalization()",
        "layers.SpatialDropout2D(0.3)",
        'layers.RandomFlip("horizontal", seed=3)',
        "layers.ReLU()",
    ),
    "SEQUENCES": one_of(
        "layers.Masking()",
        "layers.LSTM(2, return_sequences=True)",
        "layers.GRU(2, return_sequences=True, recurrent_dropout=0.2)",
        "layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True))",
        "layers.TimeDistributed(layers.Dense(3))",
        "layers.Conv1D(2, 2)",
        "layers.Dropout(0.3)",
    ),
}
TO_VECTOR = {
    "X": one_of(""),
    "IMAGES": one_of("layers.Flatten()", "layers.GlobalAveragePooling2D()"),
    "SEQUENCES": one_of("layers.LSTM(2)", "layers.GlobalAveragePooling1D()"),
}

Task = collections.namedtuple("Task", ["head", "labels", "losses", "metrics"])
TASKS = {
    "klass": Task(
        'layers.Dense(3, activation="softmax", name="klass")',
        one_of("Y", "Y[:, 0]", 'Y.astype("float32")'),
        one_of(
            '"sparse_categorical_crossentropy"',
            '"ce"',
            'keras.losses.SparseCategoricalCrossentropy(reduction="sum")',
        ),
        one_of('"acc"', '"accuracy"', 'keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")'),
    ),
    "one_hot": Task(
        'layers.Dense(3, activation="softmax", name="one_hot")',
        one_of("ONE_HOT"),
        one_of('"categorical_crossentropy"', '"ce"', "keras.losses.CategoricalFocalCrossentropy()"),
        one_of('"acc"', 'keras.metrics.F1Score(name="f1")', 'keras.metrics.AUC(name="auc")'),
    ),
    "value": Task(
        'layers.Dense(1, name="value", activity_regularizer="l2")',
        one_of("VALUE", "VALUE[:, 0]"),
        one_of('"mse"', '"mae"', "keras.losses.Huber(0.3)", "lambda y, p: keras.ops.abs(y - p)"),
        one_of('"mae"', '"mse"', 'keras.metrics.RootMeanSquaredError(name="rmse")'),
    ),
    "sign": Task(
        'layers.Dense(1, activation="sigmoid", name="sign")',
        one_of('(VALUE > 0).astype("float32")'),
        one_of('"binary_crossentropy"', '"ce"', '"hinge"'),
        one_of('"acc"', 'keras.metrics.AUC(name="auc")', 'keras.metrics.Precision(name="p")'),
    ),
}

OPTIMIZERS = one_of(
    '"adam"',
    '"rmsprop"',
    "keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)",
    "keras.optimizers.Adam(clipnorm=0.1, weight_decay=0.01)",
    "keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=2)",
    "keras.optimizers.AdamW(global_clipnorm=0.5, gradient_accumulation_steps=2)",
    "keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5))",
    "keras.optimizers.Lion()",
    "keras.optimizers.Ftrl(loss_scale_factor=4.0)",
    "keras.optimizers.LossScaleOptimizer(keras.optimizers.Nadam())",
)
# graphs are the usual way, and XLA takes seconds to compile
COMPILE = {
    "run_eagerly": one_of("False", "True"),
    "steps_per_execution": one_of("1", "2", "3", "7"),
    "jit_compile": one_of("False", '"auto"', "False", "True"),
    "auto_scale_loss": one_of("False", "True"),
}
FIT = {
    "epochs": one_of("2", "1", "3", "0"),
    "initial_epoch": one_of("0", "1"),
    "shuffle": one_of("True", "False", '"batch"'),
    "validation_freq": one_of("1", "2", "[1, 3]"),
    "steps_per_epoch": one_of("1", "2", "3", "9"),
    "validation_steps": one_of("1", "2", "9"),
    "verbose": one_of("0", "1", "2", '"auto"'),
    "callbacks": one_of(
        "lambda: [keras.callbacks.EarlyStopping('loss', patience=0, restore_best_weights=True)]",
        "lambda: [keras.callbacks.ReduceLROnPlateau('loss', patience=0, verbose=1)]",
        "lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)]",
        "lambda: [keras.callbacks.TerminateOnNaN()]",
        "lambda: [Stop(1)]",
    ),
}
FIT_ARRAYS = {
    "batch_size": SIZE,
    "validation_batch_size": SIZE,
    "validation_split": one_of("0.0", "0.1", "0.3", "0.5", "0.9"),
}
WEIGHTS = one_of(
    "class_weight={0: 2.0, 2: 0.5}",
    "sample_weight=np.arange(22.0)",
    "sample_weight=np.arange(22.0)[:, None]",
)
IN_MEMORY = one_of("as_arrays", "as_arrays", "as_tensors")
STREAMS = one_of("as_dataset", "as_unknown", "as_generator", "as_pydataset")
POLICIES = one_of("float32", "float32", "float32", "mixed_float16", "mixed_bfloat16")

PROGRAM = """\
from fuzz import *

def build():
{build}

def compile():
    return dict({compile})

def data():
    return dict({data})

with policy("{policy}"):
    hold(build, compile, data, seed={seed}, {fit})
"""


@st.composite
def programs(draw):
    """One example, as source."""
    inputs = draw(st.sampled_from(sorted(LAYERS)))
    several = draw(st.integers(0, 3)) == 0
    tasks = draw(
        st.lists(
            st.sampled_from(sorted(TASKS)), min_size=1 + several, max_size=1 + several, unique=True
        )
    )
    how = draw(st.fixed_dictionaries({}, optional=COMPILE))
    fit = draw(st.fixed_dictionaries({}, optional=FIT))
    in_memory = draw(st.booleans())
    heads = draw(st.sampled_from(["list", "dict"])) if several else "one"
    if in_memory:
        fit |= draw(st.fixed_dictionaries({}, optional=FIT_ARRAYS))
    return PROGRAM.format(
        build=textwrap.indent(draw(models(inputs, tasks, heads)), "    "),
        compile=arguments({"optimizer": draw(OPTIMIZERS), **draw(objectives(tasks, heads)), **how}),
        data=draw(datasets(inputs, tasks, heads, in_memory)),
        policy=draw(POLICIES) if how.get("jit_compile") != "True" else "float32",
        seed=draw(st.integers(0, 9)),
        fit=arguments(fit),
    )


def arguments(named):
    return ", ".join(f"{name}={source}" for name, source in named.items())


@st.composite
def models(draw, inputs, tasks, heads):
    body = [*draw(st.lists(LAYERS[inputs], max_size=3)), draw(TO_VECTOR[inputs])]
    body = [layer for layer in body if layer]
    lines = [f"x = inputs = keras.Input({inputs}.shape[1:])"]
    lines += [f"x = {layer}(x)" for layer in body]
    outputs = {task: f"{TASKS[task].head}(x)" for task in tasks}
    if heads != "one":
        return "\n".join([*lines, f"return keras.Model(inputs, {nest(outputs, heads)})"])
    form = draw(st.sampled_from(["functional", "Sequential", "subclassed"]))
    stack = ", ".join([*body, TASKS[tasks[0]].head])
    return {
        "functional": "\n".join([*lines, f"return keras.Model(inputs, {outputs[tasks[0]]})"]),
        "Sequential": f"return keras.Sequential([{stack}])",
        "subclassed": f"return Stack([{stack}])",
    }[form]


def nest(entries, container):
    """Source of a list or a dict of one entry for each task; of one alone, the entry."""
    if container == "one":
        return next(iter(entries.values()))
    if container == "list":
        return f"[{', '.join(entries.values())}]"
    return "{" + ", ".join(f'"{task}": {source}' for task, source in entries.items()) + "}"


@st.composite
def objectives(draw, tasks, heads):
    """Loss, weights and metrics, nested as the outputs are or in the other way that Keras takes."""

    def nested(entries):
        containers = {"one": ["one"], "list": ["list", "dict"], "dict": ["dict"]}[heads]
        return nest(entries, draw(st.sampled_from(containers)))

    def of_each(strategy):
        return {task: draw(strategy(TASKS[task])) for task in tasks}

    def some(task):
        return st.lists(task.metrics, max_size=2, unique=True).map(lambda m: f"[{', '.join(m)}]")

    found = {"loss": nested(of_each(lambda task: task.losses))}
    if draw(st.booleans()):
        found["loss_weights"] = nested(of_each(lambda task: one_of("0.5", "2.0")))
    for name in ("metrics", "weighted_metrics"):
        if draw(st.booleans()):
            found[name] = nested(of_each(some))
    return found


@st.composite
def datasets(draw, inputs, tasks, heads, in_memory):
    """The arguments of `fit` that are data."""
    labels = nest({task: draw(TASKS[task].labels) for task in tasks}, heads)
    parts = [f"**{draw(IN_MEMORY if in_memory else STREAMS)}({inputs}, {labels})"]
    if in_memory and draw(st.integers(0, 2)) == 0:
        parts.append(draw(WEIGHTS))
    if draw(st.booleans()):
        kind = draw(st.one_of(IN_MEMORY, STREAMS))
        parts.append(f"validation_data=whole({kind}({inputs}, {labels}))")
    return ", ".join(parts)


def hold(build, compile, data, **arguments):
    """Run an example on both sides; returns the error that both raised, or None.

    Where fit gives now this, now that, both sides are run again with sums in a fixed order.
    """

    def outcome(side):
        with mock.patch.object(dispatch, "CALLS", 2):  # else no step would be called by an op
            return observe(side, attempt, build, compile, data, **arguments)

    seen = [outcome(side) for side in TRAINERS]
    if first_difference(*seen):
        repeated = (outcome("keras_fit") for _ in range(REPEATS))
        if any(first_difference(seen[0], again) for again in repeated):
            with sums_in_order():
                assert_same(*[outcome(side) for side in TRAINERS])
            return WAVERS
    assert_same(*seen)
    return seen[0].get("error")


@contextlib.contextmanager
def sums_in_order():
    """Graphs in which a + (b + c) stays what it is.

    Grappler's arithmetic optimizer makes it one `AddN` of three, which begins with the term whose
    memory is free to hold the sum. That depends on what the other threads have done by then.
    """
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True, **before})


def attempt(Trainer, build, compile, data, callbacks=list, **arguments):
    try:
        return train(Trainer, build, compile, data, callbacks=callbacks, **arguments)
    except Exception as error:
        return {"error": type(error).__name__}


def run(program):
    """Run the source of an example: the error that both sides raised, or None."""
    names = {}
    exec(program.replace("    hold(", "    raised = hold("), names)
    return names["raised"]


def examine(examples, first_seed):
    """Draw and run examples; what came of them: Counter of outcomes, of them "differs"."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # each program traces anew
    outcomes = collections.Counter()

    @seed(first_seed)
    @settings(
        max_examples=examples,
        phases=[Phase.generate],
        deadline=None,
        derandomize=False,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def one(program):
        try:
            outcomes[run(program) or "trained"] += 1
        except AssertionError as error:
            outcomes["differs"] += 1
            print(f"\n{program}\n{str(error)[:600]}\n", flush=True)

    one()
    return outcomes


def examine_apart(examples, first_seed):
    """`examine` in a process of its own: TensorFlow keeps something of every training for good."""
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(1, mp_context=context) as process:
        try:
            return process.submit(examine, examples, first_seed).result()
        except futures.BrokenExecutor:
            print(f"\nPython crashed: fuzz.py {examples} --seed {first_seed}\n", flush=True)
            return collections.Counter(crashed=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("examples", type=int)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first chunk")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="chunks at a time")
    options = parser.parse_args()
    sizes = [min(CHUNK, options.examples - done) for done in range(0, options.examples, CHUNK)]
    seeds = range(options.seed, options.seed + len(sizes))
    outcomes = collections.Counter()
    with futures.ThreadPoolExecutor(options.jobs) as pool:
        for first_seed, found in zip(seeds, pool.map(examine_apart, sizes, seeds), strict=True):
            outcomes += found
            print(f"{outcomes.total()} examples, seed {first_seed}: {dict(found)}", flush=True)
    differing = outcomes["differs"] + outcomes["crashed"]
    print(f"{outcomes.total() - differing} of {outcomes.total()} equal: {dict(outcomes)}")
    raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
