"""`fit-unfolded gpu-check`."""

from pathlib import Path
from typing import Annotated

import typer

from fit_unfolded.cli import options
from fit_unfolded.common.files import check_directory, check_file
from fit_unfolded.common.tf_import import import_tensorflow

REPORT = Path("results/gpu-check.md")


def check_gpu(
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Report in Markdown.  [default: results/gpu-check.md]"),
    ] = None,
    device: options.Device = "gpu",
    memory_growth: options.MemoryGrowth = False,
    data: options.DataFile = None,
) -> None:
    """Check parity, tolerances and throughput on this machine's GPU, and write a report.

    The workload mnist is included if --data is given.

    Exit status: 0 if every check passes, 1 if not, 2 for invalid arguments or without a GPU.
    """
    path = out or REPORT
    if out is None:
        check_directory(path.parent, "--out", create_parents=True)
    else:
        check_file(path, "--out")
    options.check_data("mnist", data)
    import_tensorflow()
    from fit_unfolded.common.device import use

    used = use(device, memory_growth)
    from fit_unfolded.bench import gpu_check

    good = gpu_check.check(path, used, data)
    print(f"Written: {path}")
    if not good:
        raise typer.Exit(1)
