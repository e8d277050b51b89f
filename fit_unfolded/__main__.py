"""The command line: `fit-unfolded`, or `python -m fit_unfolded`."""

from fit_unfolded.common.interruption import end_interrupted, interruptible


def main() -> None:
    """Entry point. Typer takes a while to import too, so that Ctrl-C is handled before."""
    with interruptible():
        try:
            from fit_unfolded import cli
        except KeyboardInterrupt:
            end_interrupted()
        cli.main()


if __name__ == "__main__":
    main()
