"""`tango-cloud vms` and `history`: what there is, and how it came about."""

from __future__ import annotations

import datetime as dt
import time
from typing import Annotated, Any

import typer

from tango_cloud.api import Cloud
from tango_cloud.cli.display import duration, out, print_json, print_table
from tango_cloud.core.errors import Fault, InputError
from tango_cloud.orchestration.fleet import Entry


def vms(
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List this deployment's machines, as the cloud and the ledger show them.

    `orphan` means: in the cloud, unknown to the ledger; `lost`: in the ledger, absent from the
    cloud; `damaged`: tagged as if it were ours.

    **Examples:** `tango-cloud vms` · `tango-cloud vms --json | jq -r '.[].id'`
    """
    with Cloud() as cloud:
        entries = cloud.machines()
    if as_json:
        print_json(_row(entry) for entry in entries)
        return
    if not entries:
        out.print("no machines")
        return
    now = time.time()
    print_table(
        (
            "id",
            "name",
            "state",
            "cloud",
            "instance",
            "address",
            "type",
            "age",
            "expires in",
            "note",
        ),
        [_cells(entry, now) for entry in entries],
    )


def history(
    machine: Annotated[str, typer.Argument(metavar="ID", help="A machine's id or instance name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell a machine's story, from request to removal.

    **Example:** `tango-cloud history 100000`
    """
    with Cloud() as cloud:
        events = cloud.history(machine)
    if not events:
        raise InputError([Fault(machine, "no machine ever bore this id or name", "one that did")])
    if as_json:
        print_json(
            {
                "at": _iso(e.at),
                "machine": e.machine,
                "uid": e.uid,
                "event": e.event,
                "detail": e.detail,
            }
            for e in events
        )
        return
    print_table(
        ("at", "machine", "uid", "event", "detail"),
        [(_iso(e.at), e.machine, e.uid, e.event, e.detail) for e in events],
    )


def _row(entry: Entry) -> dict[str, Any]:
    machine, instance = entry.machine, entry.instance
    return {
        "id": entry.key.id,
        "name": entry.key.name,
        "instance_name": entry.key.instance_name,
        "state": entry.state,
        "provider": entry.provider,
        "instance_id": instance.instance_id if instance else None,
        "address": instance.address if instance else None,
        "port": instance.port if instance else None,
        "instance_type": instance.instance_type if instance else None,
        "zone": instance.zone if instance else None,
        "image": machine.shape.image if machine else instance.image if instance else None,
        "created": _iso(_created(entry)),
        "expires": _iso(_expires(entry)),
        "reason": machine.reason if machine else "",
        "detail": machine.detail if machine else "",
    }


def _cells(entry: Entry, now: float) -> tuple[str, ...]:
    machine, instance = entry.machine, entry.instance
    note = f"{machine.reason}: {machine.detail}" if machine and machine.reason else ""
    return (
        str(entry.key.id),
        entry.key.name,
        entry.state,
        entry.provider,
        instance.instance_id if instance else "",
        f"{instance.address}:{instance.port}" if instance and instance.address else "",
        instance.instance_type if instance else "",
        duration(now - _created(entry)),
        duration(_expires(entry) - now),
        note,
    )


def _created(entry: Entry) -> float:
    if entry.machine is not None:
        return entry.machine.created_at
    return entry.instance.created.timestamp() if entry.instance else 0.0


def _expires(entry: Entry) -> float:
    if entry.machine is not None:
        return entry.machine.expires_at
    return entry.instance.expires.timestamp() if entry.instance else 0.0


def _iso(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds")
