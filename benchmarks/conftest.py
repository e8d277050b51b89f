"""Trainers of both implementations, and what is said about the machine."""

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()

import pytest  # noqa: E402

from fit_unfolded.bench.cases import TRAINERS, Case, Variant, settle  # noqa: E402
from fit_unfolded.bench.environment import environment  # noqa: E402
from fit_unfolded.bench.models import MODELS  # noqa: E402


@pytest.fixture(scope="module", params=["lesson", "mlp"])
def model(request):
    return MODELS[request.param]


@pytest.fixture(scope="module", params=list(TRAINERS))
def trainer(request, model):
    """Compiled without an argument about execution, and trained until its speed is steady."""
    found = Case(model, ("default",)).trainer(Variant(request.param, "default"))
    x, y = model.data()
    if request.param == "loop":
        settle(found, x, y, model)
    found.fit(x, y, batch_size=model.batch_size, verbose=0)
    return found


@pytest.fixture(scope="module")
def data(model):
    return model.data()


@pytest.fixture(scope="module")
def batch(model, data):
    return tuple(array[: model.batch_size] for array in data)


def pytest_benchmark_update_machine_info(machine_info):
    for name in ("node", "release"):  # a file that is sent names no host
        machine_info.pop(name, None)
    machine_info.update(environment())
