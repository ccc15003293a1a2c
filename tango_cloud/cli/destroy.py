"""`tango-cloud destroy`: remove machines, and prove that they are gone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from tango_cloud.api import Cloud
from tango_cloud.cli.display import errors, out
from tango_cloud.cli.exit_codes import ExitCode
from tango_cloud.core.errors import Fault, InputError, TangoCloudError
from tango_cloud.orchestration.fleet import Entry

_SIDE_BY_SIDE = 32


def destroy(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID...", help="Machine ids or instance names, as `vms` shows them."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All machines of this deployment, and no other's.")
    ] = False,
    envelope: Annotated[
        bool,
        typer.Option("--envelope", help="Then also what they shared: network, rules, template."),
    ] = False,
) -> None:
    """Destroy machines; returns once the cloud itself shows them gone.

    **Examples:** `tango-cloud destroy 100000 100001` · `tango-cloud destroy --all --envelope`
    """
    if (ids and everything) or not (ids or everything or envelope):
        raise InputError([Fault("destroy", "say what", "either machine ids, or --all")])
    with Cloud() as cloud:
        entries = cloud.machines()
        chosen = _ours(entries) if everything else _choose(entries, ids or [])
        failed = _destroy(cloud, chosen)
        if envelope and not failed:
            with errors.status("destroying the envelope"):
                cloud.destroy_envelope()
            out.print("gone: the envelope")
    for error in failed:
        errors.print(f"error: {error}", markup=False, highlight=False)
    if failed:
        raise typer.Exit(ExitCode.INFRASTRUCTURE)


def _ours(entries: Sequence[Entry]) -> list[Entry]:
    for entry in entries:
        if entry.damaged:
            errors.print(
                f"left alone: {entry.key.instance_name} is tagged as if it were ours; destroy it "
                "by its name if it is",
                markup=False,
                highlight=False,
            )
    return [entry for entry in entries if not entry.damaged]


def _choose(entries: Sequence[Entry], wanted: Sequence[str]) -> list[Entry]:
    chosen: list[Entry] = []
    faults = []
    for name in wanted:
        found = [e for e in entries if name in (str(e.key.id), e.key.instance_name)]
        if not found:
            faults.append(Fault(name, "no such machine", "an id from: tango-cloud vms"))
        elif len({e.key for e in found}) > 1:
            names = ", ".join(e.key.instance_name for e in found)
            faults.append(Fault(name, "several machines have this id", names))
        chosen += found
    if faults:
        raise InputError(faults)
    return chosen


def _destroy(cloud: Cloud, entries: Sequence[Entry]) -> list[TangoCloudError]:
    """Side by side, so that they share calls. Returns what went wrong."""
    if not entries:
        out.print("no machines")
        return []
    failed: list[TangoCloudError] = []

    def one(entry: Entry) -> None:
        try:
            if entry.damaged:
                cloud.end_instance(entry)
            else:
                cloud.destroy(entry.key)
            out.print(f"gone: {entry.key.instance_name}", markup=False, highlight=False)
        except TangoCloudError as error:
            failed.append(error)

    keys = {entry.key: entry for entry in entries}
    with (
        errors.status(f"destroying {len(keys)}"),
        ThreadPoolExecutor(min(_SIDE_BY_SIDE, len(keys))) as pool,
    ):
        list(pool.map(one, keys.values()))
    return failed
