"""The command line `fit-unfolded`: a module for each command.

TensorFlow takes seconds to import: a command checks its arguments first, and imports it inside.
"""

import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperCommand

from fit_unfolded.cli import (
    bench,
    check,
    compare,
    explain,
    gap,
    gpu_check,
    launch,
    pitfalls,
    train,
    workloads,
)
from fit_unfolded.common.errors import InputError
from fit_unfolded.common.interruption import end_interrupted, interruptible

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Command(TyperCommand):
    """A command whose summary, in the list of commands, is not cut but wrapped."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first paragraph of the help."""
        return " ".join((self.help or "").partition("\n\n")[0].split())


app.command("workloads", cls=Command)(workloads.list_workloads)
app.command("compare", cls=Command)(compare.compare)
app.command("train", cls=Command)(train.train)
app.command("launch", cls=Command)(launch.launch)
app.command("bench", cls=Command)(bench.bench)
app.command("check", cls=Command)(check.check)
app.command("explain", cls=Command)(explain.explain)
app.command("gap", cls=Command)(gap.gap)
app.command("pitfalls", cls=Command)(pitfalls.list_pitfalls)
app.command("gpu-check", cls=Command)(gpu_check.check_gpu)


def _print_version(asked: bool) -> None:
    if asked:
        packages = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras"))
        print(f"fit-unfolded {version('fit-unfolded')} ({packages})")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Train the same Keras model with compile + fit and with an explicit loop, and compare them."""


def main() -> None:
    """Run a command; every error is one line on standard error, with exit status 2 or 1."""
    with interruptible():
        try:
            arguments = sys.argv[1:] or ["--help"]
            status = app(arguments, prog_name="fit-unfolded", standalone_mode=False)
        except InputError as error:
            status = _fail(str(error), 2)
        except typer.TyperException as error:
            status = _fail(_usage_error(error), 2)
        except ConnectionError as error:  # a worker is gone
            status = _fail(str(error), 1)
        except KeyboardInterrupt:
            status = 130
    if status == 130:
        with suppress(OSError):  # nobody reads it
            sys.stdout.flush()
        end_interrupted()
    sys.exit(status)


def _fail(message: str, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status


def _usage_error(error: typer.TyperException) -> str:
    """Typer's message as one line in this project's style."""
    if isinstance(error, typer.BadParameter) and error.message:
        hint = error.param_hint or (error.param.get_error_hint() if error.param else "")
        message = f"{str(hint).strip(chr(39))}: {error.message}"
    else:
        message = error.format_message()
        message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "fit-unfolded"
    return f"{' '.join(message.split()).rstrip('.')}; see `{command} -h`."
