"""Each workload as described; data files that cannot be used."""

import io
import zipfile

import numpy as np
import pytest

from fit_unfolded import workloads
from fit_unfolded.common.errors import InputError

OFFLINE = [name for name in workloads.names() if name != "mnist"]


def mnist_arrays(**changes):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, [40, 28, 28], dtype=np.uint8),
        "y_train": rng.integers(0, 10, 40, dtype=np.uint8),
        "x_test": rng.integers(0, 256, [10, 28, 28], dtype=np.uint8),
        "y_test": rng.integers(0, 10, 10, dtype=np.uint8),
    }
    return {name: a for name, a in (arrays | changes).items() if a is not None}


@pytest.fixture
def mnist_file(tmp_path):
    def write(**changes):
        path = tmp_path / "mnist.npz"
        np.savez(path, **mnist_arrays(**changes))
        return path

    return write


def test_all_workloads_are_found_and_described():
    assert workloads.names() == [
        "digits",
        "digits-mlp",
        "lesson",
        "lesson-onehot",
        "mnist",
        "segmentation",
    ]
    for name in workloads.names():
        assert workloads.summary(name).description.endswith(".")


@pytest.mark.parametrize("name", OFFLINE)
def test_data_fit_the_model_and_the_loss(name):
    workload = workloads.get(name)
    data = workload.load(seed=0)
    model = workload.build()
    model.compile(**workload.compile())
    assert len(data.x) == len(data.y)
    assert len(data.x_test) == len(data.y_test)
    model.evaluate(data.x[:8], data.y[:8], verbose=0)
    assert {"epochs", "batch_size"} <= set(workload.fit)


@pytest.mark.parametrize("name", OFFLINE)
def test_the_same_seed_draws_the_same_data(name):
    workload = workloads.get(name)
    for a, b in zip(workload.load(seed=3), workload.load(seed=3), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [n for n in OFFLINE if n != "lesson"])
def test_another_seed_draws_other_data(name):
    workload = workloads.get(name)
    assert not np.array_equal(workload.load(seed=0).x, workload.load(seed=1).x)


@pytest.mark.parametrize("name", workloads.names())
def test_compile_arguments_are_new_each_time(name):
    workload = workloads.get(name)
    a, b = workload.compile()["optimizer"], workload.compile()["optimizer"]
    assert isinstance(a, str) or a is not b


def test_the_lesson_is_unchanged():
    workload = workloads.get("lesson")
    data = workload.load(seed=0)
    assert data.x.shape == (100, 128)
    assert data.y.shape == (100, 1)
    assert np.all(data.x == 1)
    assert np.all(data.y == 1)
    assert workload.fit == {"epochs": 100, "validation_split": 0.3, "batch_size": 16}
    assert workload.compile() == {
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["acc"],
    }
    units = [layer.units for layer in workload.build().layers]
    assert units == [64, 3]


def test_digits_hold_out_a_part_that_is_not_trained_on():
    data = workloads.get("digits").load(seed=0)
    assert data.x.shape == (1437, 8, 8, 1)
    assert data.x_test.shape == (360, 8, 8, 1)
    assert 0 <= data.x.min() < data.x.max() <= 1


def test_segmentation_labels_are_the_ink_of_the_clean_image():
    data = workloads.get("segmentation").load(seed=0)
    clean = workloads.get("digits").load(seed=0)
    assert data.x.shape == data.y.shape
    np.testing.assert_array_equal(data.y, clean.x >= 0.5)
    assert np.std(data.x - clean.x) == pytest.approx(0.3, rel=0.05)


def test_mnist_reads_a_file(mnist_file):
    data = workloads.get("mnist").load(seed=0, data_path=mnist_file())
    assert data.x.shape == (40, 28, 28, 1)
    assert data.x_test.shape == (10, 28, 28, 1)
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.x[..., 0] * 255, mnist_arrays()["x_train"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_test": None}, "lacks the array y_test"),
        ({"x_train": np.zeros([40, 30, 30])}, r"x_train must be \[samples, 28, 28\]"),
        ({"x_test": np.zeros([0, 28, 28]), "y_test": np.zeros(0, int)}, "x_test must be"),
        ({"y_train": np.zeros(39, int)}, r"y_train must be \[40\]"),
        ({"y_train": np.zeros([40, 10], int)}, r"y_train must be \[40\]"),
        ({"y_train": np.zeros(40)}, "y_train integers"),
        ({"y_train": np.full(40, 10)}, "y_train must lie in 0 to 9"),
        ({"y_test": np.full(10, "a", dtype=object)}, "'y_test.npy' holds pickled objects"),
    ],
)
def test_mnist_refuses_other_arrays(mnist_file, changes, words):
    with pytest.raises(InputError, match=words) as caught:
        workloads.get("mnist").load(seed=0, data_path=mnist_file(**changes))
    assert "--data" in str(caught.value)
    assert "digits" in str(caught.value)


def test_mnist_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="no file"):
        workloads.get("mnist").load(seed=0, data_path=tmp_path / "none.npz")


@pytest.mark.parametrize("kept", [0, 10, 1000, -30])
def test_mnist_refuses_a_truncated_file(mnist_file, kept):
    path = mnist_file()
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="cannot be read"):
        workloads.get("mnist").load(seed=0, data_path=path)


def test_mnist_without_network_names_the_way_out(monkeypatch):
    def no_network():
        raise Exception("URL fetch failure")

    monkeypatch.setattr("keras.datasets.mnist.load_data", no_network)
    with pytest.raises(InputError, match=r"--data.*digits"):
        workloads.get("mnist").load(seed=0)


def test_other_workloads_take_no_file(tmp_path):
    with pytest.raises(InputError, match="brings its own data"):
        workloads.get("digits").load(seed=0, data_path=tmp_path / "x.npz")


@pytest.mark.parametrize(("wrong", "near"), [("digit", "digits"), ("minst", "mnist")])
def test_an_unknown_workload_lists_the_nearest(wrong, near):
    with pytest.raises(InputError, match=f"'{wrong}'.*{near}"):
        workloads.get(wrong)


def huge():
    file = io.BytesIO()
    array = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "File is not a zip file"),
        (huge(), r"has less than its shape \(1099511627776,\)"),
        (bytes(1 << 27), "a decompression bomb"),
    ],
)
def test_mnist_refuses_hostile_files(content, words, tmp_path):
    path = tmp_path / "mnist.npz"
    if content:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x_train.npy", content)
    else:
        path.touch()
    with pytest.raises(InputError, match=f"--data: .* cannot be read as .npz .*{words}"):
        workloads.get("mnist").load(seed=0, data_path=path)
