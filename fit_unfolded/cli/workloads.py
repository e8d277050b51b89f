"""`fit-unfolded workloads`."""

from fit_unfolded import workloads


def list_workloads() -> None:
    """List the workloads."""
    for name in workloads.names():
        print(f"{name:<16}{workloads.summary(name).description}")
