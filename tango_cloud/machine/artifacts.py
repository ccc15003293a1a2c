"""A job's artifacts, kept for `collect`: packed before its files are removed, by a child that is
the job's user, into a file that only the agent can open."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tango_cloud.machine.children import become, die_with_agent, reset_signals
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.failures import DAMAGED, REFUSED, Failure
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.launch import read_rest

if TYPE_CHECKING:
    from tango_cloud.machine.packing import Packed

_TICK_SECONDS = 1.0
_WRONG_PARTS = ("", ".", "..")


class Wanted(NamedTuple):
    """What to keep of a job: paths below the job directory, and bytes of their content in all."""

    paths: tuple[str, ...]
    limit: int

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Wanted:
        """Raises Failure (refused) for a path that leaves the job directory, or a limit that is
        none."""
        paths = tuple(map(str, told.get("artifacts", ())))
        for path in paths:
            if any(part in _WRONG_PARTS or "\0" in part for part in path.split("/")):
                raise Failure(REFUSED, f"the artifact {path!r} is no path below the job directory")
        limit = told.get("artifact_bytes", 0)
        if not isinstance(limit, int) or limit < 0:
            raise Failure(REFUSED, f"artifact_bytes is {limit!r}, not a count")
        return cls(paths, limit)


def keep(
    wanted: Wanted, sink: int, facts: Facts, folders: Folders, on_wait: Callable[[], None]
) -> list[Packed]:
    """Pack what a job that is over has made into the file open as `sink`; what became of each path.

    `on_wait` is called once a second meanwhile. Raises Failure (damaged).
    """
    from tango_cloud.machine import packing  # most jobs have no artifacts, and it takes a while

    folders.prepare()  # the job may have taken the rights to its directory away
    with folders.opened() as tops:
        reader, writer = os.pipe()
        agent = os.getpid()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _pack(packing.pack, wanted, facts, agent, (tops[0], sink, writer))
        os.close(writer)
        try:
            while not select.select([reader], [], [], _TICK_SECONDS)[0]:
                on_wait()
            told = json.loads(read_rest(reader) or '["it was killed"]')
        finally:
            os.close(reader)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if isinstance(told[0], str):
        raise Failure(DAMAGED, f"the job's artifacts cannot be kept: {told[0]}")
    return [packing.Packed(*fields) for fields in told]


def _pack(
    pack: Callable[[int, Sequence[str], int, int], list[Packed]],
    wanted: Wanted,
    facts: Facts,
    agent: int,
    files: tuple[int, int, int],
) -> None:
    """The child. Never returns."""
    top, sink, answer = files
    try:
        reset_signals()
        if facts.separate:
            become(facts.job_user)
        die_with_agent(agent)
        told: list[Any] = list(pack(top, wanted.paths, wanted.limit, sink))
    except BaseException as error:  # a forked child must not return into the agent's code
        told = [f"{type(error).__name__}: {error}"]
    try:
        os.write(answer, json.dumps(told).encode())
    finally:
        os._exit(0)
