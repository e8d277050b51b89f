"""Looking up the names that `compile` takes."""

import contextlib
import difflib
import re

# What these mean depends on the shapes of labels and predictions: see `configuration.py`.
BY_SHAPE = {"loss": ("crossentropy", "ce"), "metric": ("accuracy", "acc"), "optimizer": ()}


def look_up(module, argument, identifier):
    """`module.get(identifier)`; an unknown name is answered with the nearest ones.

    Args:
        module: `keras.losses`, `keras.metrics` or `keras.optimizers`.
        argument: what `compile` calls it, for the message: "loss", "metric", "optimizer".
        identifier: name, config, class, function or object.

    Raises:
        ValueError: as `module.get` does (`keras/src/losses/__init__.py`, `get`, and its siblings).
    """
    with nearest_names(module, argument, [identifier]):
        return module.get(identifier)


@contextlib.contextmanager
def nearest_names(module, argument, identifiers):
    """Add to the ValueError of a look-up the names nearest to the unknown one.

    Args:
        module, argument: see `look_up`.
        identifiers: list of what is looked up in this block.
    """
    try:
        yield
    except ValueError as error:
        names = [i for i in identifiers if isinstance(i, str) and i not in BY_SHAPE[argument]]
        unknown = next((name for name in names if not _is_known(module, name)), None)
        if unknown is None:
            raise
        names = [name for name in vars(module) if not name.startswith("_")]
        names += ["acc", "bce", "kld", "mae", "mape", "mse", "msle"]  # not in the module itself
        names += [spell(name) for name in names for spell in (str.lower, to_snake_case)]
        near = difflib.get_close_matches(unknown, dict.fromkeys(names), n=8)
        near = [repr(name) for name in near if _is_known(module, name)]
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"Unknown {argument}: {unknown!r}.{hint}\n{error}") from error


def _is_known(module, name):
    try:
        return module.get(name) is not None
    except (TypeError, ValueError):  # a class that wants arguments, or a name that is none
        return False


def to_snake_case(name):
    """`"MeanSquaredError"` -> `"mean_squared_error"`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
