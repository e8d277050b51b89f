"""A short training on each side, eagerly, with recording objects in it."""

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from fit_unfolded import workloads
from fit_unfolded.common.errors import InputError
from fit_unfolded.comparison.compare import IMPLEMENTATIONS, TRAINERS
from fit_unfolded.explain.decisions import (
    DEFAULTS,
    Births,
    Half,
    Looks,
    Resolution,
    halves,
    join,
    profiled,
)
from fit_unfolded.explain.events import Difference, Event, Explanation, Pair
from fit_unfolded.explain.lines import PACKAGES, overrides
from fit_unfolded.explain.recorder import Recording, all_layers
from fit_unfolded.workloads import Data, Workload
from fit_unfolded.workloads.user_file import DEFAULT_BATCH_SIZE, cut, is_dataset, rows
from manual_loop.compiled.lookup import to_snake_case

EPOCHS = 2
TRAIN_BATCHES = 3
VALIDATION_BATCHES = 2
EAGERLY = {"run_eagerly": True, "jit_compile": False}  # Keras warns of XLA without a graph


def explain(
    workload: Workload | Path | str, data: Data | None = None, seed: int = 0
) -> Explanation:
    """Trains `workload` for two epochs of three batches on each side, and notes what happens.

    The batches come from a `tf.data.Dataset`, where each one taken can be seen; from arrays, fit
    takes them in C++, and the loop on the device.

    Args:
        workload: one of `fit_unfolded.workloads`, its name, or a file with a model of your own.
        data: what `workload.load` gave, which is the default; the first rows are learned, the next
            ones validated on.
        seed: set before each model is built and again before it is trained.

    Returns:
        Explanation: in a notebook it shows itself as the page of `fit_unfolded.explain.html`.

    Raises:
        InputError: there is no such workload, the file cannot be used, or it has too few rows.
    """
    if not isinstance(workload, Workload):
        workload = workloads.get(str(workload))
    if data is None:
        data = workload.load(seed)
    if not is_dataset(data.x) and not batch_size_of(workload, data):
        raise InputError(f"{workload.name}: data() returns too few rows; use at least 5.")
    batches = few_batches(workload, data)
    own = workload.fit.get("callbacks") or []
    streams = [
        record(
            side,
            workload.build,
            workload.compile,
            batches,
            seed,
            callbacks=lambda: copy.deepcopy(own if isinstance(own, list) else [own]),
            class_weight=data.extra.get("class_weight"),
        )
        for side in IMPLEMENTATIONS
    ]
    events, difference = pair(*streams)
    made = [decide(side, workload.build, workload.compile, batches) for side in IMPLEMENTATIONS]
    return Explanation(
        workload=workload.name,
        title=workload.description,
        keras_version=keras.__version__,
        tensorflow_version=tf.__version__,
        compile=join(*made),
        events=events,
        difference=difference,
    )


def few_batches(workload: Workload, data: Data) -> Callable[[], list[tf.data.Dataset]]:
    """A function that returns new datasets: the batches to learn and those to validate on.

    Of a `tf.data.Dataset` the first batches are learned; those validated on are the first ones of
    the validation data, or else of the training set.
    """
    if is_dataset(data.x):
        held_out: Any = data.extra.get("validation_data")
        held_out = held_out if is_dataset(held_out) else data.x
        # cached, and read once: one that shuffles would give other batches at each reading
        kept = [data.x.take(TRAIN_BATCHES).cache(), held_out.take(VALIDATION_BATCHES).cache()]
        for batches in kept:
            for _ in batches:
                pass
        return lambda: [batches.take(-1) for batches in kept]

    batch_size = batch_size_of(workload, data)
    middle = TRAIN_BATCHES * batch_size
    end = middle + VALIDATION_BATCHES * batch_size
    given = [data.x, data.y, data.extra.get("sample_weight")]
    arrays = tuple(array for array in given if array is not None)
    parts = [cut(arrays, part) for part in (slice(0, middle), slice(middle, end))]
    # `x` alone is no tuple, as in fit: a step of the model's own sees the difference
    parts = [part[0] if len(part) == 1 else part for part in parts]
    return lambda: [tf.data.Dataset.from_tensor_slices(part).batch(batch_size) for part in parts]


def batch_size_of(workload: Workload, data: Data) -> int:
    """The workload's own, or less where the data are too few."""
    own = workload.fit.get("batch_size") or DEFAULT_BATCH_SIZE
    return min(own, rows(data.x) // (TRAIN_BATCHES + VALIDATION_BATCHES))


def record(
    side: str,
    build: Callable[[], Any],
    compile_arguments: Callable[[], dict[str, Any]],
    batches: Callable[[], Iterable[tf.data.Dataset]],
    seed: int = 0,
    callbacks: Callable[[], list[Any]] = list,
    epochs: int = EPOCHS,
    class_weight: dict[int, float] | None = None,
) -> list[Event]:
    """Trains on one side and returns its events.

    Args:
        side: "keras_fit" or "manual_loop".
        build: gives a new model; `compile_arguments` the arguments for it, all objects in them new.
        batches: gives the batches to learn and those to validate on.
        callbacks: gives new callbacks, called before the recording one.
        class_weight: of fit.
    """
    keras.utils.set_random_seed(seed)
    trainer = TRAINERS[side](build())
    trainer.compile(**compile_arguments() | EAGERLY)
    training, validation = batches()
    can_evaluate = has_loss(trainer.model)
    if can_evaluate:
        # which loss and metrics "acc" or a dict mean is known when the first batch was seen
        trainer.evaluate(training.take(1), verbose=0)

    recording = Recording(PACKAGES[side].with_methods(overrides(trainer.model)))
    layers = list(all_layers(trainer.model))
    recording.layers(layers, layer_names(layers))
    recording.losses(resolved(trainer, keras.losses.Loss))
    recording.metrics(resolved(trainer, keras.metrics.Metric))
    own = list(reachable(trainer.model.metrics, keras.metrics.Metric))
    recording.metrics([*own, *(metric for layer in layers[1:] for metric in layer.metrics)])
    recording.optimizer(trainer.optimizer)
    keras.utils.set_random_seed(seed)
    with recording.tapes():
        trainer.fit(
            recording.data(training),
            validation_data=recording.data(validation) if can_evaluate else None,
            epochs=epochs,
            shuffle=False,
            class_weight=class_weight,
            verbose=0,
            callbacks=[*callbacks(), recording.callback],
        )
    return recording.events


def decide(
    side: str,
    build: Callable[[], Any],
    compile_arguments: Callable[[], dict[str, Any]],
    batches: Callable[[], Iterable[tf.data.Dataset]],
) -> list[Half]:
    """What one side makes of the arguments of `compile`; the arguments are those of `record`.

    Compiled twice: as it was asked, for what `compile` itself decides, and eagerly, with one batch
    to look at, for what depends on shapes.
    """
    package = PACKAGES[side]
    given = compile_arguments()
    flags = DEFAULTS | {name: given[name] for name in DEFAULTS if name in given}
    looks = Looks(package, flags)
    model = build()
    trainer = TRAINERS[side](model)
    resolution = Resolution(package)
    with profiled(resolution.see):
        trainer.compile(**compile_arguments() | looks.values)
        if side == "keras_fit":
            model.make_train_function()
        else:
            trainer._function("train")

    eager = TRAINERS[side](build())
    with Births(package) as births:
        eager.compile(**given | looks.values | EAGERLY)
        training, _ = batches()
        if has_loss(eager.model):
            eager.evaluate(training.take(1), verbose=0)
    return halves(
        given,
        eager.optimizer,
        list(resolved(eager, keras.losses.Loss)),
        list(compiled_metrics(eager)),
        births,
        model,
        looks,
        resolution,
    )


def has_loss(model: Any) -> bool:
    """Whether a compiled model can be evaluated: one may train by a step that needs no `loss`."""
    own = {code.co_name for code in overrides(model)}
    return model._compile_loss is not None or bool(own & {"test_step", "compute_loss"})


def layer_names(layers: list[Any]) -> list[str]:
    """The layers' names; those that Keras made up are counted within the model, from `dense` on.

    Keras itself counts on from one model to the next, so that both sides' names would differ.
    """
    counts: Counter[str] = Counter()
    names = []
    for layer in layers:
        base = to_snake_case(type(layer).__name__)
        if re.fullmatch(rf"{base}(_\d+)?", layer.name):
            names.append(f"{base}_{counts[base]}" if counts[base] else base)
            counts[base] += 1
        else:
            names.append(layer.name)
    return names


def resolved(trainer: Any, kind: type) -> Iterator[Any]:
    """The losses or metrics that `compile` made of its arguments, each once.

    On both sides they are in Keras's containers, `CompileLoss` and `CompileMetrics`
    (`keras/src/trainers/compile_utils.py`).
    """
    model = trainer.model
    roots = [model._loss_tracker, model._compile_loss, model._compile_metrics]
    return reachable(roots, kind)


def compiled_metrics(trainer: Any) -> Iterator[Any]:
    """The metrics among them that `metrics` and `weighted_metrics` asked for, in order."""
    roots = [trainer.model._compile_metrics]
    return reachable(roots, keras.metrics.Metric)


def reachable(roots: Iterable[Any], kind: type) -> Iterator[Any]:
    """Objects of `kind`, each once, in Keras's containers and in their attributes."""
    seen: set[int] = set()

    def walk(thing):
        if id(thing) in seen:
            return
        seen.add(id(thing))
        parts: Iterable[Any] = ()
        if isinstance(thing, dict):
            parts = thing.values()
        elif isinstance(thing, list | tuple):
            parts = thing
        elif type(thing).__module__.startswith("keras.src.trainers."):
            parts = vars(thing).values()
        elif isinstance(thing, kind):
            yield thing
        for part in parts:
            yield from walk(part)

    return walk(list(roots))


def pair(fit: list[Event], loop: list[Event]) -> tuple[list[Pair], Difference | None]:
    """Both sides' events as pairs, up to the first that differs."""
    pairs: list[Pair] = []
    for number, (a, b) in enumerate(zip_longest(fit, loop), start=1):
        if a is None or b is None or a.what != b.what:
            return pairs, Difference(number, a, b)
        pairs.append(Pair(a, a.line, b.line, a.stack, b.stack))
    return pairs, None
