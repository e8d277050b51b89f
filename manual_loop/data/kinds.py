"""Which library an array comes from, recognized by its class: the library is not imported.

(`keras/src/trainers/data_adapters/data_adapter_utils.py`, `is_torch_tensor`, `is_jax_sparse`,
`is_scipy_sparse`, Keras 3.15.)
"""


def is_instance(x, library, name):
    """Whether `x` is of the class `name` of a library, or of a subclass."""
    return any(
        cls.__name__ == name and cls.__module__.split(".")[0] == library for cls in type(x).__mro__
    )


def is_data_frame(x):
    """Whether `x` is a `pandas.DataFrame`."""
    return is_instance(x, "pandas", "DataFrame")


def is_series(x):
    """Whether `x` is a `pandas.Series`."""
    return is_instance(x, "pandas", "Series")


def is_torch_tensor(x):
    """Whether `x` is a `torch.Tensor`."""
    return is_instance(x, "torch", "Tensor")


def is_torch_data_loader(x):
    """Whether `x` is a `torch.utils.data.DataLoader`."""
    return is_instance(x, "torch", "DataLoader")


def is_scipy_sparse(x):
    """Whether `x` is a sparse array or matrix of SciPy."""
    return type(x).__module__.startswith("scipy.sparse") and hasattr(x, "tocoo")


def is_jax_sparse(x):
    """Whether `x` is a sparse array of JAX, such as `jax.experimental.sparse.BCOO`."""
    return type(x).__module__.startswith("jax.experimental.sparse")
