"""What `Backup(every=50)` costs a training: how much longer it takes, with a 95 % interval.

    python benchmarks/backup_cost.py [--model mlp] [--every 50] [--seconds 150]

Two trainers of one model train in turns, one with a `Backup`, one without; a turn is a call of
`fit`, whose first epoch is not counted. Each pair of turns gives one ratio, and the median is over
these. Nothing else should run meanwhile.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fit_unfolded.common.tf_import import import_tensorflow

import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from scipy import stats  # noqa: E402

from fit_unfolded.bench.cases import Case, Variant, settle  # noqa: E402
from fit_unfolded.bench.measure import Stopwatch, check_variables  # noqa: E402
from fit_unfolded.bench.models import MODELS  # noqa: E402
from manual_loop.saving.backup import Backup  # noqa: E402

STEPS = 500  # of a turn, at least
TURNS = 20  # at least


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--every", type=int, default=50, help="batches from one backup to the next")
    parser.add_argument("--seconds", type=float, default=150)
    options = parser.parse_args()
    model = MODELS[options.model]
    x, y = model.data()
    trainers = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        trainers.append(Case(model, ("default",)).trainer(Variant("loop", "default")))
        settle(trainers[-1], x, y, model)
    epochs = 1 - (-STEPS * model.batch_size // len(x))  # one more, which is not counted
    with tempfile.TemporaryDirectory() as folder:

        def turn(number):
            watch = Stopwatch()
            callbacks = [watch]
            if number:
                callbacks.append(Backup(Path(folder) / "backup.npz", every=options.every))
            how = {"batch_size": model.batch_size, "verbose": 0, "shuffle": False}
            trainers[number].fit(x, y, epochs=epochs, callbacks=callbacks, **how)
            return sum(watch.seconds[1:])

        deadline, ratios = time.monotonic() + options.seconds, []
        while len(ratios) < TURNS or time.monotonic() < deadline:
            order = (0, 1) if len(ratios) % 2 else (1, 0)
            seconds = {number: turn(number) for number in order}
            ratios.append(seconds[1] / seconds[0])
    check_variables(*zip(("without", "with a backup"), trainers, strict=True))
    interval = stats.bootstrap((ratios,), np.median, method="percentile").confidence_interval
    median, low, high = (100 * (ratio - 1) for ratio in (np.median(ratios), *interval))
    print(
        f"{options.model}, a backup every {options.every} steps: {median:.2f} % "
        f"[{low:.2f}, {high:.2f}] longer, from {len(ratios)} pairs of turns"
    )


if __name__ == "__main__":
    sys.exit(main())
