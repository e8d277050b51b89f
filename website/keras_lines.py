"""Which lines of Keras each detail of docs/details.md shows: the few that decide it.

By number of the detail: how the first of the lines begins, and how many there are. They are looked
up in the functions that the detail names, in the Keras that is installed when the site is built.
Where one line's beginning is not enough, those of the lines after it follow, each after a newline.
"""

import ast
import importlib.util
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fit_unfolded.common import statements
from fit_unfolded.common.keras_source import keras_source

# The folder in which `keras/src/...` lies, found without importing Keras.
KERAS = Path(importlib.util.find_spec("keras").origin or "").parents[1]  # type: ignore[union-attr]
TAG = keras_source()

TRACED = ("one_step_on_data = tf.function(", 5)
LOSS_TRACKED = "self._loss_tracker.update_state("
ONE_STEP = ("if self.steps_per_execution == 1:", 4)
TRAINING = ("if self._call_has_training_arg:", 4)

LINES: dict[int, tuple[tuple[str, int], ...]] = {
    1: (("is_binary = y_p_last_dim == 1", 4),),
    2: (("if isinstance(identifier, str):", 2), ("metric_obj.name = metric_name", 1)),
    3: (("return loss_values[0]", 1), ("if len(self._flat_losses) > 1:", 6)),
    4: (("if loss is not None:", 5), ("self._compile_config = serialization_lib", 3)),
    5: (("if (\nauto_scale_loss", 9),),
    6: (("raise ValueError(msg)", 2),),
    7: (("split_at = int(", 1), ("train_arrays = ", 6)),
    8: (("if not batch_size:", 2),),
    9: (("inputs = array_slicing.convert_to_sliceable(", 3),),
    10: (("indices = tf.range(", 3), ('if shuffle == "batch":', 2)),
    11: (
        ("indices = tf.random.shuffle(indices)", 1),
        ("indices_dataset = indices_dataset.map(permutation)", 1),
    ),
    12: (("if self._partial_batch_size:", 7),),
    13: (("if is_non_floatx_float(x.dtype):", 2), ("return np.expand_dims(", 1)),
    14: (('if shuffle:\nwarnings.warn(\n"`shuffle\n"data `x` was provided as a tf.data', 8),),
    15: (("batches = [", 4), ("for i in indices:", 2)),
    16: (("for dims in zip(", 3), ("if batch_axis_to_none:", 2)),
    17: (("batches = list(", 5), ("return batches, lambda", 1)),
    18: (("for batch in self.generator():", 5), ("ds = ds.prefetch(", 1)),
    19: (("y_numpy = np.round(", 4),),
    20: (("class_weight_tensor = ", 6),),
    21: (("(\n(x, y, sample_weight),\nvalidation_data", 6), ("class_weight=class_weight,", 1)),
    22: (("initial_epoch = self._initial_epoch", 2),),
    23: (("if self._distribute_strategy is None:", 5),),
    24: (("if self._current_iterator is None or", 3),),
    25: (("except StopIteration:", 4),),
    26: (ONE_STEP, ("opt_outputs = multi_step_on_iterator(iterator)", 3)),
    27: (ONE_STEP,),
    28: (("for m in self.metrics:", 2),),
    29: (
        ("callbacks.on_train_batch_end(end_step, logs)", 3),
        ("callbacks.on_epoch_end(epoch, epoch_logs)", 4),
    ),
    30: (("return _MAX_EPOCHS", 1), ("return _MAX_STEPS_PER_EPOCH", 1)),
    31: (TRAINING,),
    32: (("for loss in self.losses:", 2),),
    33: (("total_loss = ops.sum(losses)", 1),),
    34: (("y_true_y_pred = ", 3),),
    35: (("if has_keras_logits:", 3), ("output_ = output.op.inputs[0]", 2)),
    36: (("y_pred = tree.map_structure(", 3),),
    37: (("y_true = tree.map_structure(", 3),),
    38: (("divisor = ops.cast(\nops.prod(", 6), ("loss = ops.divide_no_nan(", 1)),
    39: (("values, sample_weight = squeeze", 4), ("if x1_rank == x2_rank + 1:", 2)),
    40: (("valid = ops.sum(", 3),),
    41: ((LOSS_TRACKED, 2), ("self.optimizer.apply_gradients(", 1)),
    42: (("metric.update_state(", 4), ("total_loss = sum(loss_values)", 1)),
    43: (("self.step_counter.assign(0)", 2),),
    44: (
        ("self._backend_apply_gradients(grads, trainable_variables)", 1),
        ("for variable in trainable_variables:", 3),
        ("self._iterations.assign_add(1)", 1),
    ),
    45: (
        ("if self.gradient_accumulation_steps:", 4),
        ("return self._learning_rate(self._iterations)", 1),
    ),
    46: (("if self.use_ema:", 4),),
    47: (("for metric in self.metrics:", 6),),
    48: (("for m, y_t, y_p in zip(", 3), ("m.update_state(y_t, y_p, s_w)", 1)),
    49: (("for name in metric_names:", 6),),
    50: ((LOSS_TRACKED, 6),),
    51: (("def on_train_batch_end(", 5),),
    52: (("self._history = History()", 2), ("for callback in self.callbacks:", 2)),
    53: (("yield (", 5),),
    54: (("if m.name == metric_name:", 6),),
    55: (('epoch = training_metadata["epoch"]', 2),),
    56: (("self._overwrite_model_variables_with_average_value(var_list)", 1),),
    57: (
        ("self.optimizer.finalize_variable_values(", 1),
        ("callbacks.on_train_end(logs", 1),
    ),
    58: (("self.reset_metrics()", 1), ("logs = pythonify_logs(self._get", 1)),
    59: (("self._current_iterator = None", 5),),
    60: (("epoch = epoch + 1", 5),),
    61: (("else:", 6),),
    62: (TRAINING,),
    63: (("devices = tf.config", 4),),
    64: (TRACED,),
    65: (TRACED, ("multi_step_on_iterator = tf.function(", 3)),
    66: (("_, final_optional_outputs, _ = tf.while_loop(", 5),),
    67: (("def multi_step_on_iterator(iterator):", 5),),
    68: (TRACED,),
    69: (("@tf.autograph.experimental.do_not_convert\ndef one_step_on_data", 2),),
    70: (
        ("outputs = append_to_outputs(", 1),
        ("outputs = tree.map_structure_up_to(\nbatch_outputs, potentially", 4),
    ),
    71: (
        ("model.optimizer.build(model._trainable_variables)", 1),
        ("model.optimizer.set_weights(", 1),
    ),
    72: (("training_config = model._compile_config.config", 2),),
    73: (("self.state = self.backend.Variable(", 8),),
    74: (("auto_scale_loss\nand self.dtype_policy", 4),),
    75: (("loss = scale_loss_for_distribution(loss)", 1), ("num_replicas = tf.distribute", 5)),
    76: (("if isinstance(logs, dict) and set", 5),),
    77: (("def data():", 4),),
    78: (("self.reset_metrics()", 1), ("def data():", 2), ("logs = self.train_function(", 1)),
    79: (("use_cached_eval_dataset = kwargs.pop", 5),),
    80: (TRACED,),
}


class Excerpt(NamedTuple):
    """Lines of one function, without the indentation that they share."""

    function: str
    first: int
    lines: list[str]


def excerpts(number: int, file: Path, functions: Sequence[str]) -> list[Excerpt]:
    """The lines of a detail, in the file and the functions that it names.

    Raises:
        LookupError: no function holds them, or one holds them twice.
    """
    text = file.read_text(encoding="utf-8")
    nodes = {name: definition(ast.parse(text), name) for name in functions}
    source = text.splitlines()
    return [_find(source, nodes, begins, count) for begins, count in LINES[number]]


def _find(
    source: list[str],
    nodes: dict[str, ast.FunctionDef | ast.ClassDef],
    begins: str,
    count: int,
) -> Excerpt:
    starts = begins.split("\n")
    for name, node in nodes.items():
        found = [
            at
            for at in range(node.lineno - 1, node.end_lineno or 0)
            if all(
                line.strip().startswith(start)
                for line, start in zip(source[at : at + len(starts)], starts, strict=True)
            )
        ]
        if len(found) > 1:
            raise LookupError(f"{name} has {len(found)} lines that begin with {begins!r}")
        if found:
            lines = [line for line in source[found[0] : found[0] + count] if line.strip()]
            indent = min(len(line) - len(line.lstrip()) for line in lines)
            return Excerpt(name, found[0] + 1, [line[indent:] for line in lines])
    raise LookupError(f"none of {', '.join(nodes)} has a line that begins with {begins!r}")


def statement(file: Path, line: int) -> str:
    """The statement that a line is in; of an `if`, a loop or a function, its first lines."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return textwrap.dedent("\n".join(lines[n - 1] for n in statements.statement(str(file), line)))


def definition(tree: ast.AST, path: str) -> ast.FunctionDef | ast.ClassDef:
    """A function or class of a module, methods as `Class.method`.

    Raises:
        LookupError: it is not there.
    """
    node = tree
    for name in path.split("."):
        found = [child for child in ast.iter_child_nodes(node) if _name(child) == name]
        if not found:
            raise LookupError(f"there is no {path}")
        node = found[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    return node


def _name(node: ast.AST) -> str | None:
    return node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
