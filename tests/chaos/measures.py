"""What a process and its deployment hold at a moment, and whether they came back to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import linear_regression

import psutil

from ..deployment import Deployment

MIB = 1 << 20
MEMORY_MIB = 8
"""What a process may have grown by, beyond what SQLite keeps of the ledger, which grows by its
events: up to 2 MB for each of five pooled connections."""
SLOPE_MIB = 0.25
"""And in a minute, over the second half."""
IN_USE_MIB = 1
"""And by which the C library may have given out more, which is what a leak would be."""
BLOCKS = 10_000
"""And of these, Python's own small pieces. There are some 400,000."""
LEDGER_HANDLES = 31
"""The pool may hold fifteen connections, of two files each, and one file for all of them."""
OBJECTS = 200
"""Of any one class: there are caches that fill, none of them for each machine."""
BUILTINS = 1000
"""Of tuples, functions and the like, which caches are made of. A connection to SQLite also keeps
weak references to up to 200 cursors that are no more."""
ENVELOPE = "envelope.json"
"""Is not counted: a fault removes it, and the next wave makes it again."""
_BOUNDED = {"memory", "sqlite", "malloc", "blocks", "ledger", "ledger_handles", "sockets"}
_BASIC = ("builtins.", "weakref.")
_LEDGER = "ledger.sqlite3"


@dataclass(frozen=True, slots=True)
class Held:
    """What a process says of its memory, in bytes: `malloc` is what the C library has given out,
    `sqlite` SQLite's part of that. `blocks` are Python's small pieces, which it gives out itself.
    """

    sqlite: int
    malloc: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Measures(Held):
    """`memory` (resident) and `ledger` (on disk) are in bytes; `handles` are what the process has
    open but the ledger's and its sockets; `processes` all that were started for the deployment.
    `alive` are the ledger's rows that somebody still has to deal with: machines not gone, waves
    being applied.
    """

    memory: int
    ledger: int
    threads: int
    handles: int
    ledger_handles: int
    sockets: int
    processes: int
    machines: int
    alive: int
    owners: int
    states: int
    host_keys: int
    files: int

    @property
    def own_memory(self) -> int:
        """Resident, without what SQLite keeps of the ledger."""
        return self.memory - self.sqlite

    @property
    def in_use(self) -> int:
        """Given out by the C library, but to SQLite."""
        return self.malloc - self.sqlite


def measure(deployment: Deployment, process: psutil.Process, held: Held) -> Measures:
    """Raises psutil.NoSuchProcess when the process has ended."""
    with process.oneshot():
        memory, threads = process.memory_info().rss, process.num_threads()
    ledgers = sum(_LEDGER in file.path for file in process.open_files())
    sockets = len(process.net_connections())
    alive, owners = _booked(deployment)
    return Measures(
        **asdict(held),
        memory=memory,
        ledger=(deployment.state / _LEDGER).stat().st_size,
        threads=threads,
        handles=process.num_fds() - ledgers - sockets,
        ledger_handles=ledgers,
        sockets=sockets,
        processes=len(deployment.processes()),
        machines=len(deployment.instances()),
        alive=alive,
        owners=owners,
        states=len(deployment.waves()),
        host_keys=len(list((deployment.state / deployment.prefix / "known_hosts").glob("*"))),
        files=sum(len({*files} - {ENVELOPE}) for _, _, files in os.walk(deployment.state)),
    )


def least(looks: Sequence[Measures]) -> Measures:
    """Of several looks at what rests: a background pass comes and goes."""
    rows = [asdict(look) for look in looks]
    return Measures(**{name: min(row[name] for row in rows) for name in rows[0]})


def changes(before: Measures, after: Measures, pooled: int = 0) -> Sequence[str]:
    """What is not as it was, though nothing is under way at either moment. The process may keep
    `pooled` connections to its cloud."""
    was, now = asdict(before), asdict(after)
    found = [
        f"{name}: {was[name]} before, {now[name]} after"
        for name in was
        if name not in _BOUNDED and now[name] != was[name]
    ]
    if after.sockets > pooled:
        found.append(f"sockets: {after.sockets}, {pooled} are the pools'")
    grown = (after.own_memory - before.own_memory) / MIB
    if grown > MEMORY_MIB:
        found.append(f"memory: {grown:.1f} MiB more than before")
    in_use = (after.in_use - before.in_use) / MIB
    if in_use > IN_USE_MIB:
        found.append(f"memory in use: {in_use:.1f} MiB more than before")
    if after.blocks - before.blocks > BLOCKS:
        found.append(f"blocks: {before.blocks} before, {after.blocks} after")
    if after.ledger_handles > LEDGER_HANDLES:
        found.append(f"ledger_handles: {after.ledger_handles}, {LEDGER_HANDLES} are the pool's")
    return found


def more_objects(before: Mapping[str, int], after: Mapping[str, int]) -> Sequence[str]:
    """The types of which there are many more objects than before."""
    return [
        f"{kind}: {before.get(kind, 0)} objects before, {count} after"
        for kind, count in sorted(after.items())
        if count - before.get(kind, 0) > (BUILTINS if kind.startswith(_BASIC) else OBJECTS)
    ]


def slope(minutes: Sequence[float], memory: Sequence[int]) -> float:
    """By how many MiB a minute the memory grew over the second half; 0 of less than three looks."""
    half = len(minutes) // 2
    if len(minutes) - half < 3:
        return 0.0
    return linear_regression(minutes[half:], memory[half:]).slope / MIB


def _booked(deployment: Deployment) -> tuple[int, int]:
    """The ledger's rows that somebody still has to deal with, and its owners."""
    path = deployment.state / _LEDGER
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:

        def count(what: str) -> int:
            return int(connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0])

        alive = count("machines WHERE state <> 'gone'") + count("waves WHERE state = 'applying'")
        return alive, count("owners")
