"""`tango-cloud reap`: end what has expired, where nothing but credentials is left."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import typer

from tango_cloud.cli.display import duration, errors, out, print_json, print_table, unwatched
from tango_cloud.cli.exit_codes import ExitCode
from tango_cloud.core.sections import LONGEST_SECONDS
from tango_cloud.core.settings import load
from tango_cloud.orchestration.reaper import Fate, Sighting
from tango_cloud.wiring import build_reaper


def reap(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what has expired; exit code 1 if anything has."),
    ] = False,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=LONGEST_SECONDS,
            help="How long to wait until it is gone. [default: machine.gone_seconds]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was seen as JSON.")] = False,
) -> None:
    """End machines that have outlived their expiry, by the cloud's tags alone.

    Needs credentials and the prefix, and neither ledger nor Terraform nor state folder: made for
    cron, on any host, beside a living orchestrator too.

    **Examples:** `tango-cloud reap --dry-run` · `*/10 * * * * tango-cloud reap`
    """
    settings = load()
    reaper = build_reaper(settings)
    with errors.status("looking" if dry_run else "reaping"):
        seconds = settings.machine.gone_seconds if wait is None else wait
        harvest = reaper.look() if dry_run else reaper.run(seconds)
    if as_json:
        print_json(_row(sighting) for sighting in harvest.sightings)
    else:
        quiet = unwatched() and not dry_run
        told = [s for s in harvest.sightings if not (quiet and s.fate is Fate.KEPT)]
        if told:
            print_table(
                ("cloud", "instance", "machine", "status", "expires in", "result", "note"),
                [_cells(sighting) for sighting in told],
            )
        elif not quiet:
            out.print("no machines")
    for name, failure in harvest.failures.items():
        errors.print(f"error: {name}: {failure}", markup=False, highlight=False)
    if harvest.failures or (harvest.expired and not dry_run):
        raise typer.Exit(ExitCode.INFRASTRUCTURE)
    if harvest.expired:
        raise typer.Exit(ExitCode.JOB_FAILED)


def _row(sighting: Sighting) -> dict[str, Any]:
    instance = sighting.instance
    return {
        "provider": sighting.provider,
        "instance_id": instance.instance_id,
        "instance_name": instance.key.instance_name,
        "uid": instance.uid,
        "status": instance.status,
        "created": instance.created.isoformat(),
        "expires": instance.expires.isoformat(),
        "result": sighting.fate,
        "faults": instance.faults,
        "error": str(sighting.error) if sighting.error else None,
    }


def _cells(sighting: Sighting) -> tuple[str, ...]:
    instance = sighting.instance
    left = instance.expires - dt.datetime.now(dt.UTC)
    note = (
        ", ".join(instance.faults) if sighting.fate is Fate.DAMAGED else str(sighting.error or "")
    )
    return (
        sighting.provider,
        instance.instance_id,
        instance.key.instance_name,
        instance.status,
        duration(left.total_seconds()),
        sighting.fate,
        note,
    )
