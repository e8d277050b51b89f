"""What `tf.function` and XLA make of a training step, on both sides."""

import functools
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from fit_unfolded.comparison.compare import IMPLEMENTATIONS, TRAINERS
from fit_unfolded.explain import terminal
from fit_unfolded.explain.events import Line
from fit_unfolded.explain.lines import PACKAGES, caller, qualified_name
from fit_unfolded.explain.recorder import become, brief
from fit_unfolded.explain.run import TRAIN_BATCHES, VALIDATION_BATCHES, batch_size_of, resolved
from fit_unfolded.workloads import Data, Workload
from manual_loop.execution.graph import nodes_of

LARGEST = 4  # fusions shown, of those from different operations


@dataclass(frozen=True)
class Trace:
    """One run of the step's Python to build a graph.

    Attributes:
        step: "train_step" or "test_step".
        shape: of x, as the model saw it: `[None, 128]`.
        because: why there was no graph to take.
        line: that called the model.
        graph: `tf.Graph` that was built.
    """

    step: str
    shape: str
    because: str
    line: Line
    graph: Any


@dataclass(frozen=True)
class Fusion:
    """Instructions that XLA compiled into one: no value in between is written to memory.

    Attributes:
        kind: XLA's word for its shape: "Loop", "Input", "Output".
        instructions: how many are in it.
        operations: the TensorFlow operations that they come from, each once, in order.
    """

    kind: str
    instructions: int
    operations: tuple[str, ...]


@dataclass(frozen=True)
class Graphs:
    """What one side's step became.

    Attributes:
        traces: in order.
        functions: how often each `tf.function` of the train function was traced, by its own count.
        captured: variables that the train step's graph reads or writes: "weights" -> how many.
        operations_before, operations_after: nodes in the train step's graph and in the functions
            that it calls, as traced, and as TensorFlow's optimiser leaves it.
        instructions: in the program that XLA makes of the step, fusions counted as one.
        fusions: the largest first.
    """

    traces: list[Trace]
    functions: dict[str, int]
    captured: dict[str, int]
    operations_before: int
    operations_after: int
    instructions: int
    fusions: list[Fusion]


def graphs(side: str, workload: Workload, data: Data, seed: int = 0) -> Graphs:
    """Trains for two epochs as a graph, and compiles the step with XLA, to look at both.

    The training has the batches of `run.explain` and half a batch more: a short last batch is the
    usual reason for a second trace.
    """
    size = batch_size_of(workload, data)
    train = TRAIN_BATCHES * size + size // 2
    test = train + VALIDATION_BATCHES * size
    x, y = data.x[:train], data.y[:train]

    trainer = _compiled(side, workload, seed, jit_compile=False)
    traces: list[Trace] = []
    _note_traces(trainer, side, traces)
    held_out = data.x[train:test], data.y[train:test]
    fit = {"batch_size": size, "epochs": 2, "validation_data": held_out, "verbose": 0}
    before, after = _operations(lambda: trainer.fit(x, y, **fit))
    step = next(trace.graph for trace in reversed(traces) if trace.step == "train_step")

    compiled = _compiled(side, workload, seed, jit_compile=True)
    compiled.optimizer.build(compiled.model.trainable_variables)
    batch = tf.convert_to_tensor(x[:size], keras.config.floatx()), tf.convert_to_tensor(y[:size])
    instructions, fusions = _parse(_program(_train_function(compiled, side), batch))
    return Graphs(
        traces=traces,
        functions={
            _name(function.python_function): count
            for function in tf_functions(_train_function(trainer, side))
            if (count := function.experimental_get_tracing_count())
        },
        captured=_captured(step, trainer),
        operations_before=before,
        operations_after=after,
        instructions=instructions,
        fusions=fusions,
    )


def _compiled(side: str, workload: Workload, seed: int, **arguments: Any) -> Any:
    keras.utils.set_random_seed(seed)
    trainer = TRAINERS[side](workload.build())
    trainer.compile(**workload.compile() | arguments)
    return trainer


def _train_function(trainer: Any, side: str) -> Any:
    if side == "manual_loop":
        return trainer._function("train")
    trainer.model.make_train_function()
    return trainer.model.train_function


def _note_traces(trainer: Any, side: str, traces: list[Trace]) -> None:
    """Makes the model note each call that builds a graph; a call that only runs one is unseen."""
    model, package = trainer.model, PACKAGES[side]
    original = type(model).call
    variables: list[int] = []  # how many there were when each trace began

    @functools.wraps(original)
    def call(self, x, *args, **kwargs):
        if not tf.executing_eagerly():
            frame = caller()
            names = [line.function.rpartition(".")[2] for line in package.stack(frame)]
            step = next((name for name in names if name.endswith("_step")), names[0])
            line, _ = package.nearest(frame)
            graph = tf.compat.v1.get_default_graph()
            variables.append(_count_variables(trainer, side))
            made = variables[-1] - variables[-2] if len(variables) > 1 else 0
            because = _why([t.shape for t in traces if t.step == step], brief(x), made)
            traces.append(Trace(step, brief(x), because, line, graph))
        return original(self, x, *args, **kwargs)

    become(model, {"call": call})


def _count_variables(trainer: Any, side: str) -> int:
    metrics = resolved(trainer, keras.metrics.Metric)
    return len(trainer.optimizer.variables) + sum(len(metric.variables) for metric in metrics)


def _why(before: list[str], shape: str, made: int) -> str:
    """Why a step is traced.

    Args:
        before: the shapes of x in its earlier traces.
        shape: the one of x now.
        made: variables that the trace just before this one made.
    """
    if not before:
        return "the first call"
    if shape not in before:
        return f"x was {' and '.join(dict.fromkeys(before))} before"
    if made:
        return f"the trace before made {made} variables; this graph takes them as they are"
    return "inside another graph"


def _captured(graph: Any, trainer: Any) -> dict[str, int]:
    found = {id(variable) for variable in graph.variables}
    groups = {"weights": trainer.model.variables, "optimizer": trainer.optimizer.variables}
    counts = {
        name: sum(id(variable.value) in found for variable in variables)
        for name, variables in groups.items()
    }
    return counts | {"metrics": len(found) - sum(counts.values())}


def _count(definition: Any) -> int:
    return len(list(nodes_of(definition)))


def _operations(call: Any) -> tuple[int, int]:
    """Operations of the largest graph run by `call`, before and after optimisation."""
    with tempfile.TemporaryDirectory() as directory:
        writer = tf.summary.create_file_writer(directory)
        tf.summary.trace_on(graph=True, profiler=False)
        call()
        with writer.as_default():
            tf.summary.trace_export("step", step=0)
        writer.close()
        files = list(map(str, Path(directory).iterdir()))
        metadata = [
            tf.compat.v1.RunMetadata.FromString(value.tensor.string_val[0])
            for record in tf.data.TFRecordDataset(files)
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
            if value.metadata.plugin_data.plugin_name.startswith("graph_run_metadata")
        ]
    pairs = [
        (_count(graphs.pre_optimization_graph), _count(graphs.post_optimization_graph))
        for run in metadata
        for graphs in run.function_graphs
    ]
    return max(pairs)


def tf_functions(function: Any) -> Iterator[Any]:
    """The `tf.function`s that a function reaches through its closures, each once."""
    seen: set[int] = set()

    def walk(thing):
        if id(thing) in seen:
            return
        seen.add(id(thing))
        parts: list[Any] = []
        if hasattr(thing, "experimental_get_tracing_count"):
            yield thing
            parts = [thing.python_function]
        elif isinstance(thing, FunctionType):
            parts = [cell.cell_contents for cell in thing.__closure__ or ()]
        elif isinstance(thing, functools.partial):
            parts = [thing.func, *thing.args]
        elif isinstance(thing, list | tuple):
            parts = list(thing)
        elif type(thing).__module__.startswith("manual_loop."):
            parts = list(vars(thing).values())
        for part in parts:
            yield from walk(part)

    return walk(function)


def _name(function: Any) -> str:
    """A function's name; of a lambda, with the function around it."""
    name = function.__name__
    return qualified_name(function.__code__) if name == "<lambda>" else name


def _program(train_function: Any, batch: Any) -> str:
    """The program that XLA makes of one step, as text (HLO)."""
    for function in tf_functions(train_function):
        try:
            return function.experimental_get_compiler_ir(batch)(stage="optimized_hlo")
        except (TypeError, ValueError):  # not compiled with XLA, or with other arguments
            continue
    raise LookupError("No function of the step is compiled with XLA.")


def _parse(program: str) -> tuple[int, list[Fusion]]:
    """Instructions of the main computation, and the fusions in it."""
    bodies: dict[str, list[str]] = {}
    entry = ""
    name = None
    for line in program.split("\n"):
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = head[2]
            bodies[name] = []
            entry = name if head[1] else entry
        elif line.startswith("}"):
            name = None
        elif name is not None and " = " in line:
            bodies[name].append(line)
    fusions = []
    for body in bodies.values():
        for line in body:
            if called := re.search(r" fusion\(.*kind=k(\w+), calls=%?([\w.\-]+)", line):
                inside = list(filter(_computes, bodies[called[2]]))
                types = [found for line in inside for found in re.findall(r'op_type="(\w+)"', line)]
                fusions.append(Fusion(called[1], len(inside), tuple(dict.fromkeys(types))))
    fusions.sort(key=lambda fusion: -fusion.instructions)
    return sum(map(_computes, bodies[entry])), fusions


def _computes(instruction: str) -> bool:
    return not re.search(r" = .*? (parameter|constant)\(", instruction)


def print_graphs(console: Console, workload: Workload, data: Data, seed: int) -> None:
    """Both sides' graphs: figures side by side, why each trace happened, the largest fusions."""
    both = [graphs(side, workload, data, seed) for side in IMPLEMENTATIONS]
    console.print("\n[bold]What tf.function and XLA make of a step[/bold]", highlight=False)
    terminal.print_figures(console, [(name, str(a), str(b)) for name, a, b in _figures(*both)])
    sides = dict(zip(("fit", "loop"), both, strict=True))
    _print_lists(console, "Traces", {side: _traces(found) for side, found in sides.items()})
    counts = {
        side: ", ".join(f"{name} {count}" for name, count in found.functions.items())
        for side, found in sides.items()
    }
    lines = [f"{side}: {counted}" for side, counted in counts.items()]
    terminal.print_list(console, "Traces of each tf.function", lines)
    _print_lists(console, "Largest fusions", {side: _largest(f) for side, f in sides.items()})


def _print_lists(console: Console, heading: str, sides: dict[str, list[str]]) -> None:
    """One list where both sides have the same, else one for each."""
    fit, loop = sides.values()
    if fit == loop:
        terminal.print_list(console, f"{heading}, the same in both", fit)
        return
    for side, lines in sides.items():
        terminal.print_list(console, f"{heading} of {side}", lines)


def _traces(found: Graphs) -> list[str]:
    return [f"{trace.step}, x {trace.shape}: {trace.because}" for trace in found.traces]


def _largest(found: Graphs) -> list[str]:
    different = {fusion.operations: fusion for fusion in reversed(found.fusions)}
    largest = sorted(different.values(), key=lambda fusion: -fusion.instructions)[:LARGEST]
    return [f"{f.instructions} instructions of {', '.join(f.operations)}" for f in largest]


def _figures(fit: Graphs, loop: Graphs) -> Iterator[tuple[str, int, int]]:
    yield "traces of the model", len(fit.traces), len(loop.traces)
    for name in fit.captured:
        yield f"variables in the train step: {name}", fit.captured[name], loop.captured[name]
    yield "operations, as traced", fit.operations_before, loop.operations_before
    yield "operations, optimized", fit.operations_after, loop.operations_after
    yield "XLA instructions", fit.instructions, loop.instructions
    yield "of them fusions", len(fit.fusions), len(loop.fusions)
