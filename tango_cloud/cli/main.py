"""The command line: `tango-cloud COMMAND`, one module for each."""

from __future__ import annotations

import logging
import os
import signal
import sys
from importlib import metadata
from types import FrameType
from typing import Annotated

import typer
from rich.logging import RichHandler

from tango_cloud.cli.destroy import destroy
from tango_cloud.cli.display import errors, out, print_error
from tango_cloud.cli.doctor import doctor
from tango_cloud.cli.exit_codes import ExitCode
from tango_cloud.cli.images import images
from tango_cloud.cli.inventory import inventory
from tango_cloud.cli.prepare import prepare
from tango_cloud.cli.reap import reap
from tango_cloud.cli.reconcile import reconcile, recover
from tango_cloud.cli.run import run
from tango_cloud.cli.vms import history, vms
from tango_cloud.core.errors import TangoCloudError, UserError
from tango_cloud.core.settings import load

_TERMINALS = [stream for stream in (1, 2) if os.isatty(stream)]

app = typer.Typer(
    name="tango-cloud",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run directories with a Makefile on machines that Terraform makes.

Settings come from `tango-cloud.toml` and `TANGO_CLOUD_*` variables (docs/settings.md).

**Exit codes:** 0 all well · 1 a job failed or timed out, or `doctor` found a fault ·
2 wrong usage, settings or input · 3 the machines, the cloud or Terraform failed · 130 interrupted.
""",
)


def _tell_version(asked: bool) -> None:
    if asked:
        out.print(f"tango-cloud {metadata.version('tango-cloud')}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_version, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """What stands before any command."""


app.command()(run)
app.command()(vms)
app.command()(inventory)
app.command()(destroy)
app.command()(prepare)
app.add_typer(images)
app.command()(doctor)
app.command()(history)
app.command()(reconcile)
app.command()(recover)
app.command()(reap)


def main() -> None:
    """The entry point. A user's mistake prints what to do, never a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _hang_up)
    try:
        _log_to_stderr()
        app(standalone_mode=True)
    except UserError as error:
        for fault in error.faults:
            print_error(str(fault))
        sys.exit(ExitCode.USAGE)
    except (TangoCloudError, OSError) as error:  # OSError: a full disk, say
        print_error(str(error))
        sys.exit(ExitCode.INFRASTRUCTURE)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """A polite kill is taken like Ctrl-C: what was made is destroyed."""
    raise KeyboardInterrupt


def _hang_up(_number: int, _frame: FrameType | None) -> None:
    """So is a closed terminal; what is still said goes nowhere, instead of failing on the way."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in _TERMINALS:
        os.dup2(null, stream)
    raise KeyboardInterrupt


def _log_to_stderr() -> None:
    handler = RichHandler(console=errors, show_path=False, show_time=False, markup=False)
    level = load().log_level.upper() if _wants_settings() else "WARNING"
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
    # Their errors reach us as exceptions; in their own words they only confuse.
    for noisy in ("paramiko", "alembic", "asyncssh"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _wants_settings() -> bool:
    """Help and completion must work with a broken settings file; `doctor` reports it itself."""
    asked = set(sys.argv[1:])
    return len(sys.argv) > 1 and not asked & {
        "-h",
        "--help",
        "--version",
        "--install-completion",
        "--show-completion",
        "doctor",
    }
