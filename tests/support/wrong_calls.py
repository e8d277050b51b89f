"""Wrong calls, generated from the signatures of `keras.Model`, and what both sides make of them.

    python tests/support/wrong_calls.py [--write]

Every parameter of every method is given wrong types and values. They are Python source, so that the
name of a call is the call. All calls are made in some minutes, and those that break the rule are
printed; the tests make some of them. With `--write`, the names of those that fit accepts are noted,
and the counts go into docs/reliability.md.
"""

import argparse
import collections
import functools
import inspect
import random
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from cases import SPARSE  # noqa: E402, F401  the calls use it
from parity import TRAINERS, Pair, first_difference, watch  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- wrong calls: begin -->", "<!-- wrong calls: end -->"
ACCEPTED = Path(__file__).with_name("wrong_calls_accepted.txt")  # names of calls, one a line


def sources(text):
    """The words of a text: Python source without spaces."""
    return text.split()


METHODS = (
    "compile",
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
)

# Two features and three classes, four samples. V are the labels of a second output, W weights.
X = np.array([[1, 2], [-1, 0.5], [0.5, -2], [3, 1]], "float32")
Y = np.array([[0], [1], [2], [1]])
V = np.array([[1], [0.5], [-1], [2]], "float32")
W = np.array([1, 0.5, 2, 1], "float32")


def dataset(*batch):
    return tf.data.Dataset.from_tensors(batch or (X, Y))


def generator(*batches):
    yield from batches or [(X, Y)]


class Batches(keras.utils.PyDataset):
    def __init__(self, batch=(X, Y), length=1):
        super().__init__()
        self.batch = batch
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.batch


def one():
    return keras.Sequential([keras.Input([2]), keras.layers.Dense(3, activation="softmax")])


def two():
    """Outputs `klass` and `value` as a list."""
    x = keras.Input([2])
    klass = keras.layers.Dense(3, activation="softmax", name="klass")(x)
    return keras.Model(x, [klass, keras.layers.Dense(1, name="value")(x)])


MODELS = {"one": one, "two": two}
# Arguments that are right: those of a call with one wrong argument.
LABELS = {"one": "Y", "two": "[Y, V]"}
LOSS = {"one": "SPARSE", "two": '[SPARSE, "mse"]'}


def right(model, method):
    """Sources of the arguments of a right call."""
    if method == "compile":
        optimizer = "keras.optimizers.SGD(0.1, momentum=0.9)"
        return {"optimizer": optimizer, "loss": LOSS[model], "run_eagerly": "True"}
    if method in ("predict", "predict_on_batch"):
        return {"x": "X"}
    return {"x": "X", "y": LABELS[model]}


# What a parameter means nothing without.
NEEDED = {
    name: {"validation_data": "(X, Y)"}
    for name in ("validation_steps", "validation_batch_size", "validation_freq")
}
NEEDED["weighted_metrics"] = {"metrics": '["acc"]'}

ANYTHING = sources("""
    None  True  -1  0  2.5  float("nan")  float("inf")  10**30  "text"  ""  []  (1,2)  {}  {"a":1}
    object()  len  np.ones(3)  tf.constant(2)
""")
# For parameters that take any value for true or false: some would do the same.
FLAG = sources('None  "text"  []  -1  object()  np.ones(3)  tf.constant(2)')
FLAGS = {"verbose", "shuffle", "return_dict", "run_eagerly", "jit_compile", "auto_scale_loss"}
ARRAY = sources("""
    A[:3]  A[:0]  A[0]  A[...,None]  np.repeat(A,2,axis=-1)  A.T  A.tolist()  A.astype(str)
    A.astype(object)  A.astype(complex)  A+5  A-5  A*np.nan  A>0  [A]  (A,)  {"a":A}  [A,A]
    [A,A[:3]]  [A,None]  {"a":A,"b":A}  [[A]]  tf.constant(A)  tf.ragged.constant([[1.0]]*4)
    np.ones((4,5))  np.array(["a"]*4)  dataset()  generator()  Batches()
""")
BATCH = sources("""
    A  (A,)  [A,Y]  (A,Y,W,W)  (A,Y[:3])  (A[0],Y[0])  (A[:,:1],Y)  (None,Y)  (A,None)  {"a":A}
    ()  None  3  "text"  (A.tolist(),Y.tolist())  (A,"text")  (A,Y,"text")  (A,Y,W[:3])
""")
# More values for some parameters.
VALUES = {
    "x": [value.replace("A", "X") for value in ARRAY],
    "y": [value.replace("A", "Y") for value in ARRAY],
    "sample_weight": [value.replace("A", "W") for value in ARRAY],
    "validation_data": [value.replace("A", "X") for value in BATCH],
    "validation_split": ["1.0", "1.5", "-0.1", "0.01", "0.99"],
    "validation_freq": ["[]", "[2]", "(1,)", "1.0", '"1"'],
    "class_weight": sources("""
        {"a":1.0}  {0:"a"}  {0:None}  {0:float("nan")}  {0:[1,2]}  {-1:2.0}  {9:2.0}  {0:-1.0}
        {0.5:2.0}  {True:2.0}  collections.defaultdict(float)  {0:10**30}  np.array([1.0,2.0,1.0])
    """),
    "callbacks": sources("""
        [3]  [keras.callbacks.History]  keras.callbacks.History()  {"a":keras.callbacks.History()}
        [[keras.callbacks.History()]]  [keras.callbacks.History(),None]  [print]
        [keras.callbacks.EarlyStopping("nothing")]  keras.callbacks.CallbackList()  ["text"]
    """),
    "optimizer": sources("""
        "adamm"  keras.optimizers.SGD  {"class_name":"SGD","config":{}}
        {"class_name":"nothing","config":{}}  keras.losses.MeanSquaredError()  "SGD"
        keras.optimizers.SGD(float("nan"))  keras.optimizers.SGD(-1.0)
    """),
    "loss": sources("""
        "mean_squared_eror"  keras.losses.MeanSquaredError  [SPARSE,"mse"]  [SPARSE]  {"a":SPARSE}
        {"a":SPARSE,"b":"mse"}  [[SPARSE]]  [3]  keras.metrics.Mean()  lambda:1.0  lambda*a:None
        lambda*a:"text"  lambda*a:1.0  lambda*a:tf.constant(2)  "categorical_crossentropy"  "mse"
        "ce"  keras.losses.CategoricalCrossentropy()
    """),
    "loss_weights": sources("""
        [2.0]  [1.0,2.0]  {"a":1.0}  ["a"]  [[1.0]]  [float("nan")]  [-1.0]  1.5  (2.0,)  [True]
    """),
    "metrics": sources("""
        "acc"  ["acuracy"]  [3]  [None]  [["acc"]]  {"a":"acc"}  ["acc","acc"]  [keras.metrics.Mean]
        [keras.metrics.Mean()]  [lambda:1.0]  [lambda*a:None]  [lambda*a:"text"]  ["crossentropy"]
        [keras.losses.MeanSquaredError()]  ("acc",)  ["categorical_accuracy"]  [int]
    """),
    "steps_per_execution": ["2", '"2"', "1.0"],
    "jit_compile": ['"Auto"', "True"],
}
VALUES["weighted_metrics"] = VALUES["metrics"]
# Values for a model with two outputs.
OF_TWO = {
    "y": sources("""
        Y  None  [Y]  (Y,V)  [Y,V,V]  {"klass":Y,"value":V}  {"klass":Y}  {"klass":Y,"nothing":V}
        [[Y,V]]  [Y,[V]]  [Y,None]  [None,V]  [V,Y]  []  {}  [Y,V[:3]]  [Y,3]  [Y,"text"]
    """),
    "sample_weight": sources("""
        W  [W]  [W,W]  (W,W)  [W,W,W]  {"klass":W,"value":W}  {"klass":W}  [W,None]  [W,W[:3]]
        W[:,None]  X  [X,X]  [W,3]  [[W,W]]  3  []
    """),
    "class_weight": ["{0:2.0}", "[{0:2.0},None]", '{"klass":{0:2.0}}'],
    "loss": sources("""
        None  "mse"  [SPARSE]  [SPARSE,"mse","mae"]  (SPARSE,"mse")  {"klass":SPARSE,"value":"mse"}
        {"klass":SPARSE}  {"klass":SPARSE,"nothing":"mse"}  [None,None]  [SPARSE,None]
        [[SPARSE,"mse"]]  [SPARSE,["mse"]]  [SPARSE,3]  ["mse",SPARSE]  []  {}
    """),
    "loss_weights": sources("""
        2.0  [1.0]  [1.0,2.0,3.0]  (1.0,2.0)  {"klass":1.0,"value":2.0}  {"klass":1.0}
        {"klass":1.0,"nothing":2.0}  [None,1.0]  ["a","b"]  [[1.0,2.0]]  []  {}
    """),
    "metrics": sources("""
        ["acc"]  ["acc","mae"]  ["acc","mae","mse"]  {"klass":"acc"}  {"nothing":"acc"}
        [["acc"],["mae"]]  [None,"mae"]  [[None],"mae"]  [{"a":"acc"},"mae"]  "acc"
        {"klass":{"a":"acc"}}  [["acc","mae"]]  [3,"mae"]
    """),
}
OF_TWO["weighted_metrics"] = OF_TWO["metrics"]
# Kinds of data that arrive in batches, and arguments that do not go with them.
STREAMS = ("dataset()", "generator()", "Batches()")
BESIDE = {"y": "Y", "sample_weight": "W", "class_weight": "{0:2.0}", "validation_split": "0.5"}
EMPTY = ("dataset().take(0)", "(batch for batch in ())", "Batches(length=0)", "Batches(length=-1)")
# They would train for ever.
ENDLESS = {("epochs", "10**30")}


class Call(NamedTuple):
    """A wrong call.

    Attributes:
        model: name in `MODELS`.
        method: of `METHODS`.
        arguments: tuple of (name, source) that differ from those of a right call; None as source
            leaves the argument out.
    """

    model: str
    method: str
    arguments: tuple

    def __str__(self):
        given = [f"{name}={source}" for name, source in self.arguments if source is not None]
        left_out = [name for name, source in self.arguments if source is None]
        name = f"{self.method}({', '.join(given)})"
        name += f" without {' and '.join(left_out)}" if left_out else ""
        return name + (" with two outputs" if self.model == "two" else "")


def parameters(method):
    """Parameters of the method of `keras.Model`, without `self` and `**kwargs`."""
    _, *found = inspect.signature(getattr(keras.Model, method)).parameters.values()
    return [parameter for parameter in found if parameter.kind is not parameter.VAR_KEYWORD]


@functools.cache
def all_calls():
    """The list of `Call`s."""
    return list(dict.fromkeys(generate()))


@functools.cache
def noted():
    """The names of the calls that fit accepts, as the last run with `--write` noted them."""
    return frozenset(ACCEPTED.read_text(encoding="utf-8").splitlines())


def sample(refused=200, accepted=30):
    """The `Call`s that the tests make: of those that fit refuses and of those that it accepts, so
    many at random, the same ones each time.
    """
    kinds = [], []
    for call in all_calls():
        kinds[str(call) in noted()].append(call)
    chosen = random.Random(0)
    taken = {*chosen.sample(kinds[0], refused), *chosen.sample(kinds[1], accepted)}
    return [call for call in all_calls() if call in taken]


def generate():
    for method in METHODS:
        for parameter in parameters(method):
            name = parameter.name
            needed = tuple(NEEDED.get(name, {}).items())
            for value in [*(FLAG if name in FLAGS else ANYTHING), *VALUES.get(name, ())]:
                default = name not in right("one", method) and value == repr(parameter.default)
                if not default and (name, value) not in ENDLESS:
                    yield Call("one", method, ((name, value), *needed))
            if "y" in right("one", method) or method == "compile":
                for value in OF_TWO.get(name, ()):
                    yield Call("two", method, ((name, value),))
        yield Call("one", method, (("nothing", "3"),))
        yield Call("one", method, (("*args", "range(20)"),))
        if "x" in right("one", method):
            yield Call("one", method, (("x", None),))
        if "y" in right("one", method):
            yield Call("one", method, (("x", None), ("y", None)))
        if method in ("fit", "evaluate", "predict"):
            yield from of_streams(method)


def of_streams(method):
    names = [parameter.name for parameter in parameters(method)]
    without_y = (("y", None),) if method != "predict" else ()
    for value in STREAMS:
        for name in filter(names.__contains__, BESIDE):
            others = without_y if name != "y" else ()
            yield Call("one", method, (("x", value), (name, BESIDE[name]), *others))
    for value in EMPTY:
        yield Call("one", method, (("x", value), *without_y))
    for batch in BATCH:
        for kind in ("generator", "Batches") if method == "fit" else ("generator",):
            source = f"{kind}({batch.replace('A', 'X')})"
            yield Call("one", method, (("x", source), *without_y))


class Outcome(NamedTuple):
    """What a call did.

    Attributes:
        error: name of the class; None if it was accepted.
        message: of the error.
        changed: whether a weight or a variable of the optimizer has changed.
        seen: dict of all that is to be seen; None after an error.
    """

    error: str | None
    message: str
    changed: bool
    seen: Any


@functools.cache
def pair(model):
    """A `Pair` of trainers that all calls of other methods than `compile` begin with."""
    compile = right(model, "compile")
    return Pair(MODELS[model], lambda: {name: eval(source) for name, source in compile.items()})


def outcome(call, trainer):
    """What the call does with a trainer, compiled unless the call does that: `Outcome`."""
    given = arguments_of(call)
    before = values_of(trainer)
    try:
        seen = watch(run, trainer, call, given)
    except Exception as error:
        after = values_of(trainer)
        changed = first_difference(before, after[: len(before)]) is not None
        return Outcome(type(error).__name__, str(error), changed, None)
    return Outcome(None, "", False, seen)


def values_of(trainer):
    optimizer = getattr(trainer.model, "optimizer", None)  # none before `compile`
    found = [*trainer.model.variables, *getattr(optimizer, "variables", ())]
    return [variable.numpy() for variable in found]


def arguments_of(call):
    """All arguments, made anew: a dict; those without a name as `*args`."""
    sources = {**right(call.model, call.method), **dict(call.arguments)}
    if "*args" in sources:
        sources = {"*args": sources["*args"]}
    elif call.method in ("fit", "evaluate", "predict"):
        sources = {"verbose": "0", **sources}
    return {name: eval(source) for name, source in sources.items() if source is not None}


def run(trainer, call, given):
    """Make the call; after `compile`, train, for what is wrong may be found then."""
    given = dict(given)
    returned = getattr(trainer, call.method)(*given.pop("*args", ()), **given)
    if call.method == "compile":
        several = call.arguments[0][0] == "steps_per_execution"
        train = trainer.fit if several else trainer.train_on_batch
        returned = train(X, eval(LABELS[call.model]))
    if isinstance(returned, keras.callbacks.History):
        returned = returned.history
    return {"returned": returned, "variables": values_of(trainer)}


@functools.cache
def outcomes(call):
    """`(outcome of fit, outcome of the loop)`."""
    if call.method == "compile":
        trainers = []
        for Trainer in TRAINERS.values():
            keras.utils.set_random_seed(0)
            trainers.append(Trainer(MODELS[call.model]()))
    else:
        trainers = list(pair(call.model).restarted())
    return tuple(outcome(call, trainer) for trainer in trainers)


def difference(theirs, ours):
    """Where the loop breaks the rule, in words; None if it keeps it."""
    if theirs.error and not ours.error:
        return f"fit raises {theirs.error}, the loop accepts"
    if ours.error and not theirs.error:
        return f"fit accepts, the loop raises {ours.error}"
    if theirs.error != ours.error:
        return f"fit raises {theirs.error}, the loop {ours.error}"
    if ours.changed and not theirs.changed:
        return "fit refuses before a variable changes, the loop after"
    if not theirs.error:
        return first_difference(theirs.seen, ours.seen)
    return None


class Difference(NamedTuple):
    """Calls that the loop treats otherwise, and why.

    Attributes:
        calls: regular expressions of their names.
        fit: names of the classes that fit raises; None where it accepts.
        loop: of the class that the loop raises.
        title, reason: for the page.
    """

    calls: tuple
    fit: tuple
    loop: str
    title: str
    reason: str


EXCEPTIONS = [
    Difference(
        (r"fit\(validation_split=(-1|1\.5|2\.5|10\*\*30|float\(.inf.\)|tf\.constant\(2\))\)",),
        (None, "OverflowError", "TypeError"),
        "ValueError",
        "`validation_split` outside [0, 1)",
        "`fit` slices with it: with 1.5, it trains on the first half of the samples",
    ),
    Difference(
        (r".*steps(_per_epoch)?=float\(.(nan|inf).\).*", r".*batch_size=float\(.nan.\).*"),
        ("ValueError", "ZeroDivisionError"),
        "TypeError",
        "a number of samples or steps that is NaN or infinite",
        "as for any number that is not an integer, the error names the argument",
    ),
    Difference(
        (r".*batch_size=10\*\*30.*",),
        ("OverflowError",),
        "ValueError",
        "a `batch_size` of more than 64 bits",
        "each raises what the first op raises that takes it",
    ),
    Difference(
        (
            r"fit\(validation_data=\{\}\)",
            r"predict\(x=(\{\}|\[\]|None)\)",
            r"(fit|evaluate)\(\) without x and y",
        ),
        ("KeyError",),
        "ValueError",
        "no data at all",
        "`KeyError: 'pop from an empty set'` does not say so",
    ),
    Difference(
        (r"predict\(x=(X\[:0\]|dataset\(\)\.take\(0\))\)",),
        ("UnboundLocalError",),
        "ValueError",
        "`predict` without a batch",
        "`UnboundLocalError: batch_outputs` does not say so",
    ),
    Difference(
        (r"compile\(loss=\[\]\)",),
        ("IndexError",),
        "ValueError",
        "an empty list of losses",
        "`IndexError: list index out of range` does not say so",
    ),
]


def exception(call):
    """The row of `EXCEPTIONS` that a call belongs to, or None."""
    rows = (row for row in EXCEPTIONS if re.fullmatch("|".join(row.calls), str(call)))
    return next(rows, None)


def breaks_the_rule(call):
    """How, in words; None if it does not, or is an exception as `EXCEPTIONS` has it."""
    theirs, ours = outcomes(call)
    found, row = difference(theirs, ours), exception(call)
    if row is None:
        return found
    if (
        found
        and theirs.error in row.fit
        and ours.error == row.loop
        and ours.changed <= theirs.changed
    ):
        return None
    return f"an exception no more, or another one: {found or 'equal'}"


def tables():
    """The counts by method, and the exceptions, for docs/reliability.md."""
    counts = collections.defaultdict(collections.Counter)
    for call in all_calls():
        kind = "accepted" if str(call) in noted() else "refused"
        kind = "excepted" if exception(call) else kind
        for row in (f"`{call.method}`", "all"):
            counts[row][kind] += 1
    lines = [
        "| method | wrong calls | refused by both | accepted by both | exceptions |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for name in [*(f"`{method}`" for method in METHODS), "all"]:
        found = counts[name]
        each = [found.total(), found["refused"], found["accepted"], found["excepted"]]
        lines.append(f"| {name} | {' | '.join(f'{n:,}' for n in each)} |")
    lines += ["", "| exception | calls | `fit` | the loop | reason |"]
    lines += ["| :-- | --: | :-- | :-- | :-- |"]
    for row in EXCEPTIONS:
        calls = [call for call in all_calls() if exception(call) is row]
        fit = ", ".join(f"`{error}`" if error else "accepts" for error in row.fit)
        lines.append(f"| {row.title} | {len(calls)} | {fit} | `{row.loop}` | {row.reason} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    wrong = 0
    for call in all_calls():
        if broken := breaks_the_rule(call):
            wrong += 1
            print(f"{call}: {broken}", flush=True)
    if options.write:
        names = [str(call) for call in all_calls() if outcomes(call)[0].error is None]
        ACCEPTED.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        noted.cache_clear()
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")
    print(f"{len(all_calls())} calls, {wrong} of them break the rule")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
