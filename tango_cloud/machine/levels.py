"""Which isolation this machine really gives: each level is tried, strongest first."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from typing import NamedTuple

from tango_cloud.machine.bubblewrap import Bubblewrap
from tango_cloud.machine.cgroups import Groups, own_place, systemds_place
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.failures import DAMAGED, Failure
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.grouped import Grouped
from tango_cloud.machine.launch import Launch, Level, Sandbox, read_rest
from tango_cloud.machine.namespaces import Namespaces
from tango_cloud.machine.plain import Plain
from tango_cloud.machine.rlimits import Limits

STRONGEST_FIRST: tuple[Level, ...] = (
    Grouped("systemd", Groups(systemds_place)),
    Grouped("cgroup", Groups(own_place)),
    Bubblewrap(),
    Namespaces(),
    Plain(),
)
_TRIAL_SECONDS = 4.0
_TRIAL = ("/bin/sh", "-c", 'test -w . && test -w "$TMPDIR"')


class Choice(NamedTuple):
    """The level to use. `missing` says what stands in the way of a stronger one."""

    level: Level
    network_control: bool
    missing: tuple[str, ...]


def choose(facts: Facts, folders: Folders, on_wait: Callable[[], None]) -> Choice:
    """Try the levels until one works; `on_wait` is called before each trial.

    Raises Failure (damaged) when none does.
    """
    missing = []
    for level in STRONGEST_FIRST:
        if facts.levels is not None and level.name not in facts.levels:
            missing.append(f"{level.name}: this machine was told not to use it")
            continue
        fault = ""
        for network in (False, True) if level.own_network else (True,):
            on_wait()
            found = trial(level, facts, folders, network)
            if not found:
                if network and level.own_network:
                    missing.append(f"network control: {fault}")
                elif network:
                    missing.append("network control: only the stronger levels can cut it off")
                return Choice(level, not network, tuple(missing))
            fault = found
        missing.append(f"{level.name}: {fault}")
    raise Failure(DAMAGED, "no job can be run here: " + "; ".join(missing))


def trial(level: Level, facts: Facts, folders: Folders, network: bool) -> str:
    """Run a small job under `level`; why that does not work, in words, or an empty string."""
    limits = Limits.parse({"wall_seconds": _TRIAL_SECONDS, "network": network})
    try:
        sandbox = Sandbox(level, Launch(facts, folders, network, _TRIAL))
    except OSError as error:
        return str(error)
    with contextlib.suppress(BrokenPipeError):  # it failed already; `fault` says why
        sandbox.go(limits)
    if not select.select([sandbox.output], [], [], _TRIAL_SECONDS)[0]:
        sandbox.discard()
        return f"no answer within {_TRIAL_SECONDS:.0f} s"
    _, ended = os.waitpid(sandbox.process, 0)
    said = read_rest(sandbox.output).decode(errors="replace").strip()
    fault = sandbox.fault()
    sandbox.discard()
    if fault:
        return f"{fault}: {said}" if said else fault
    if ended != 0:
        return f"a trial job failed: {said or 'its directory is not writable'}"
    return ""
