"""The table of epochs: one row for equal epochs, three for those that differ."""

import io

import numpy as np
import pytest
from rich.console import Console

from fit_unfolded.comparison.compare import Run
from fit_unfolded.comparison.report import print_epochs


def trained(name, losses, **history):
    history = {"loss": [float(np.float32(loss)) for loss in losses]} | history
    return Run(name, None, [], history, [], [], {}, None)


def lines(*runs, full=False, columns=80):
    page = io.StringIO()
    print_epochs(Console(file=page, width=columns), list(runs), full)
    rows = page.getvalue().splitlines()
    assert max(map(len, rows)) <= columns
    return [line.split() for line in rows if line.strip()][2:]


def test_equal_epochs_have_one_row_and_others_three():
    one_more = float(np.nextafter(np.float32(0.25), np.float32(1)))
    fit = trained("keras_fit", [0.5, 0.25], acc=[1.0, 1.0])
    loop = trained("manual_loop", [0.5, one_more], acc=[1.0, 1.0])
    assert lines(fit, loop) == [
        ["1", "both,", "0", "ULP", "0.5", "1.0"],
        ["2", "keras_fit", "0.25", "1.0"],
        ["manual_loop", "0.25000003", "1.0"],
        ["ULP", "apart", "1", "0"],
    ]


def test_one_run_has_one_row_an_epoch():
    assert lines(trained("keras_fit", [0.5, 0.25])) == [
        ["1", "keras_fit", "0.5"],
        ["2", "keras_fit", "0.25"],
    ]


@pytest.mark.parametrize("differing", [(), (6, 7)])
def test_many_epochs_are_folded_unless_full(differing):
    losses = np.linspace(1, 2, 13)
    fit = trained("keras_fit", losses)
    loop = trained("manual_loop", [x + (i in differing) for i, x in enumerate(losses)])
    folded = lines(fit, loop)
    assert len(folded) == 5 + 1 + 5
    note = ["3", "epochs,", "2", "differ"] if differing else ["3", "epochs"]
    assert folded[5] == ["...", *note, "..."]
    assert len(lines(fit, loop, full=True)) == 13 + 2 * len(differing)


def test_the_metrics_of_the_workloads_fit_80_columns():
    metrics = {name: [0.123456789] for name in ("accuracy", "val_accuracy", "val_loss")}
    run = trained("keras_fit", [0.123456789], **metrics)
    ((*_, loss, _, _, _),) = lines(run, run)
    assert loss == "0.12345679"  # not folded
