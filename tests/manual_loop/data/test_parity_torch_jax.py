"""Data of PyTorch and of JAX; each test needs one of the two installed."""

import keras
import numpy as np
import pytest
from cases import X, Y, compile_with, plain
from parity import TRAINERS, Pair, assert_same, covers, fit, watch

POSITIVE = np.where(X > 0, X, 0)


@pytest.fixture(scope="module")
def pair():
    return Pair(plain, compile_with(optimizer="sgd"))


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def jax():
    return pytest.importorskip("jax")


@pytest.fixture
def BCOO(jax):
    return pytest.importorskip("jax.experimental.sparse").BCOO


@covers("data: PyTorch tensors")
@pytest.mark.parametrize("split", [0.0, 0.3])
@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "int32", "bool"]
)
def test_tensors_of_pytorch(torch, pair, dtype, split):
    data = {"x": torch.tensor(X).to(getattr(torch, dtype)), "y": torch.tensor(Y)}
    pair.assert_parity(data, script=fit, batch_size=8, validation_split=split)


@covers("data: PyTorch tensors")
def test_labels_and_weights_of_bfloat16(torch, pair):
    labels, weights = (torch.tensor(a).bfloat16() for a in (Y, X[:, :1] ** 2))
    data = {"x": X, "y": labels, "sample_weight": weights}
    pair.assert_parity(data, script=fit, batch_size=8)


@covers("data: PyTorch tensors")
def test_a_generator_of_pytorch_tensors(torch, pair):
    def data():
        return {"x": ((torch.tensor(X[i : i + 8]), torch.tensor(Y[i : i + 8])) for i in (0, 8))}

    pair.assert_parity(data, script=fit)


@covers("errors: PyTorch tensors")
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda tensor: tensor.requires_grad_(), RuntimeError),
        (lambda tensor: tensor.to_sparse(), TypeError),
    ],
    ids=["with a gradient", "sparse"],
)
def test_tensors_of_pytorch_that_fit_refuses(torch, pair, make, error):
    for trainer in pair.restarted():
        with pytest.raises(error):
            trainer.fit(make(torch.tensor(X)), Y, verbose=0)


def loader(torch, *arrays, **arguments):
    dataset = torch.utils.data.TensorDataset(*map(torch.tensor, arrays or (X, Y)))
    return torch.utils.data.DataLoader(dataset, batch_size=8, **arguments)


@covers("data: torch DataLoader")
@pytest.mark.parametrize(
    "arguments",
    [{}, {"shuffle": True}, {"drop_last": True}, {"shuffle": True, "steps_per_epoch": 2}],
    ids=str,
)
def test_a_loader(torch, pair, arguments):
    how = dict(arguments)
    steps = how.pop("steps_per_epoch", None)

    def data():
        torch.manual_seed(0)
        return {"x": loader(torch, **how), "validation_data": loader(torch)}

    pair.assert_parity(data, script=fit, epochs=3, steps_per_epoch=steps)


@covers("data: torch DataLoader")
def test_a_loader_with_weights_and_one_of_unknown_length(torch, pair):
    class Samples(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from zip(X, Y, X[:, :1] ** 2, strict=True)

    def data():
        return {"x": torch.utils.data.DataLoader(Samples(), batch_size=8)}

    pair.assert_parity(data, script=fit, epochs=2)


@covers("errors: torch DataLoader", promise="the type that fit raises, and what to do")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"y": Y}, "When providing `x` as a torch DataLoader, `y` should not be passed"),
        (
            {"sample_weight": Y},
            "When providing `x` as a torch DataLoader, `sample_weights` should not be passed",
        ),
        ({"class_weight": {0: 1.0}}, "`class_weight` is not supported for.* torch DataLoader"),
    ],
    ids=["y", "sample_weight", "class_weight"],
)
def test_arguments_beside_a_loader(torch, pair, arguments, words):
    for trainer in pair.restarted():
        with pytest.raises(ValueError, match=words):
            trainer.fit(loader(torch), **arguments, verbose=0)


@covers("errors: torch DataLoader", promise="the type that fit raises, and what to do")
@pytest.mark.filterwarnings("ignore:`shuffle=True`")
def test_loaders_that_fit_refuses(torch, pair):
    single = torch.utils.data.DataLoader(torch.tensor(X), batch_size=8)
    empty = loader(torch, X[:0], Y[:0])
    for trainer in pair.restarted():
        with pytest.raises(TypeError):
            trainer.fit(single, verbose=0)
        with pytest.raises(ValueError, match="at least one"):
            trainer.fit(empty, verbose=0)


@covers("data: JAX arrays")
@pytest.mark.parametrize("split", [0.0, 0.3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32"])
def test_arrays_of_jax(jax, pair, dtype, split):
    data = {"x": jax.numpy.asarray(X, dtype), "y": jax.numpy.asarray(Y)}
    pair.assert_parity(data, script=fit, batch_size=8, validation_split=split)


@covers("data: JAX BCOO")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32"])
def test_sparse_arrays_of_jax(jax, BCOO, pair, dtype):
    data = {"x": BCOO.fromdense(jax.numpy.asarray(POSITIVE, dtype)), "y": Y}
    pair.assert_parity(data, script=fit, batch_size=8)


@covers("data: JAX BCOO")
def test_a_generator_of_sparse_arrays_of_jax(BCOO, pair):
    def data():
        return {"x": ((BCOO.fromdense(POSITIVE[i : i + 8]), Y[i : i + 8]) for i in (0, 8))}

    pair.assert_parity(data, script=fit)


@covers("data: JAX BCOO, split", promise="as SciPy's sparse matrix; fit raises ValueError")
def test_sparse_arrays_of_jax_are_split(BCOO, pair):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    how = {"batch_size": 8, "validation_split": 0.3, "verbose": 0}
    theirs, _ = pair.restarted()
    with pytest.raises(ValueError, match="nrows"):
        theirs.fit(BCOO.fromdense(POSITIVE), Y, **how)
    seen = []
    for x in (BCOO.fromdense(POSITIVE), scipy_sparse.csr_array(POSITIVE)):
        *_, ours = pair.restarted()
        seen.append(watch(fit, ours, {"x": x, "y": Y}, **how))
    assert_same(*seen)


@covers("errors: other sparse formats of JAX", promise="ValueError that names BCOO")
@pytest.mark.parametrize("name", ["BCSR", "COO"])
def test_other_sparse_formats_of_jax(BCOO, name):
    formats = pytest.importorskip("jax.experimental.sparse")
    trainer = TRAINERS["manual_loop"](plain())
    trainer.compile("sgd", "mse")
    with pytest.raises(ValueError, match=f"BCOO.*{name}"):
        trainer.fit(getattr(formats, name).fromdense(POSITIVE), Y, verbose=0)


@covers("data: PyTorch tensors, at another floatx")
def test_doubles_stay_doubles(torch):
    keras.config.set_floatx("float64")
    try:
        from manual_loop.data.arrays import to_array

        third = torch.tensor([1.0], dtype=torch.float64) / 3
        assert to_array(third).dtype == np.float64
        assert to_array(third)[0] == 1 / 3
    finally:
        keras.config.set_floatx("float32")
