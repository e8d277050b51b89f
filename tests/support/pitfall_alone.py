"""Measures one pitfall, in a process of its own, and writes the result as a pickle."""

import dataclasses
import pickle
import sys

from fit_unfolded.common.tf_import import import_tensorflow


def main(name):
    """All of the `Result` but the pitfall and the trainers."""
    import_tensorflow()
    from fit_unfolded import pitfalls
    from fit_unfolded.pitfalls.experiment import measure

    result = measure(pitfalls.get(name))
    runs = {side: dataclasses.replace(run, trainer=None) for side, run in result.runs.items()}
    found = {**vars(result), "runs": runs}
    del found["pitfall"]
    sys.stdout.buffer.write(pickle.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
