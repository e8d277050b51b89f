"""The rules about dependencies, checked on the source itself."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What fit is made of: the loop must not lean on it.
MODEL_METHODS = {
    "compile",
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
    "train_step",
    "test_step",
    "predict_step",
    "make_train_function",
    "make_test_function",
    "make_predict_function",
    "train_function",
    "test_function",
    "predict_function",
}


def sources(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


def imported_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_packages(tree):
    return {module.partition(".")[0] for module in imported_modules(tree)}


def model_methods(tree):
    """Attributes of that name, except a trainer's own (`self.fit`), and names given to getattr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in MODEL_METHODS:
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "re")
            if not own:
                yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr":
            name = node.args[1]
            if isinstance(name, ast.Constant) and name.value in MODEL_METHODS:
                yield name.value


def private_keras(tree):
    """Imports of keras.src, the attribute, and the name in a string that is no docstring."""
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("keras.src"):
            yield ast.unparse(node)
        elif (
            isinstance(node, ast.Constant)
            and id(node) not in prose
            and "keras.src" in str(node.value)
        ):
            yield node.value
    yield from (m for m in imported_modules(tree) if (m + ".").startswith("keras.src."))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("keras_fit", {"manual_loop", "fit_unfolded"}),
        ("manual_loop", {"keras_fit", "fit_unfolded"}),
    ],
)
def test_dependencies_are_one_way(package, forbidden):
    for file in sources(package):
        assert not imported_packages(ast.parse(file.read_text())) & forbidden, file


def test_the_loop_stands_on_public_keras():
    for file in sources("manual_loop"):
        assert not list(private_keras(ast.parse(file.read_text()))), file


def test_the_loop_does_not_train_by_fit():
    """In the source. What a model overrides is called by name: that Keras's own is not, is seen in
    `manual_loop/test_parity_overrides.py::test_only_what_a_model_overrides_is_called`.
    """
    for file in sources("manual_loop"):
        allowed = {"compile"} if file.name in ("trainer.py", "model_files.py") else set()
        assert set(model_methods(ast.parse(file.read_text()))) <= allowed, file


def test_one_page_imports_nothing_of_this_project():
    tree = ast.parse((ROOT / "manual_loop" / "one_page.py").read_text())
    assert not imported_packages(tree) & {"keras_fit", "manual_loop", "fit_unfolded"}


@pytest.mark.parametrize(
    "code",
    ["model.fit(x)", "self.model.train_step(d)", "f = m.predict", "getattr(model, 'evaluate')(x)"],
)
def test_the_rule_about_fit_sees_through(code):
    assert list(model_methods(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "import keras.src.trainers",
        "from keras import src",
        "from keras.src.trainers import trainer",
        "import keras\nkeras.src.backend",
        "importlib.import_module('keras.src')",
    ],
)
def test_the_rule_about_private_keras_sees_through(code):
    assert list(private_keras(ast.parse(code)))


def test_the_rules_let_a_trainer_call_itself_and_cite_keras():
    tree = ast.parse('"""As keras.src does."""\nself.evaluate(x)')
    assert not list(model_methods(tree))
    assert not list(private_keras(tree))


# What of Keras's private state the loop uses, and where: see the modules' docstrings.
PRIVATE = {
    "compiled/configuration.py": {
        "_compile_loss",
        "_compile_metrics",
        "_loss_tracker",
        "_user_loss",
        "_user_metrics",
        "_user_weighted_metrics",
        "_flat_losses",
        "_flat_metrics",
        "_flat_weighted_metrics",
        "_flatten_y",
        "_y_true_build_structure",
        "_y_pred_build_structure",
    },
    "distribution/multi_worker.py": {"_initial_epoch"},
    "on_batch.py": {"_manual_loop"},  # its own, on the model
    "saving/backup.py": {"_initial_epoch"},
    "saving/resume.py": {"_initial_epoch"},
    "saving/training_state.py": {"_seed", "_rng"},  # of TensorFlow's eager context
}


def private_attributes(tree):
    """Private attributes of anything but `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
            if not of_self:
                yield node.attr


def test_private_attributes_of_keras_are_read_in_one_place():
    for file in sources("manual_loop"):
        allowed = PRIVATE.get(file.relative_to(ROOT / "manual_loop").as_posix(), set())
        assert set(private_attributes(ast.parse(file.read_text()))) <= allowed, file


CORE = ["trainer.py", "steps.py", "one_page.py", "compiled", "data", "saving/model_files.py"]


@pytest.mark.parametrize("part", CORE)
def test_the_core_knows_nothing_of_replicas_and_workers(part):
    path = ROOT / "manual_loop" / part
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        imported = set(imported_modules(ast.parse(file.read_text())))
        assert not {m for m in imported if re.search("replicas|multi_worker|rendezvous", m)}, file
