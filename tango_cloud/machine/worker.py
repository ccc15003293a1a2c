"""The files worker: a child of the agent that is the job's user, and does what is done in the job's
directories, so that root never touches anything that a job has made.

It lives as long as the agent, because a fork costs as much as all that it does for a small job. A
job of the same user cannot read or trace it (a process that gave up root is out of reach for that),
only signal it: killed, it is replaced; stopped, it is woken before it is used.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import zlib
from collections.abc import Callable
from typing import Any

from tango_cloud.machine import frames, syscalls, wipe
from tango_cloud.machine.children import become, die_with_agent, reset_signals
from tango_cloud.machine.extract import ArchiveRefused, extract
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.failures import DAMAGED, REFUSED, Failure
from tango_cloud.machine.folders import Folders
from tango_cloud.machine.frames import DataStream, ReadSome

EMPTY = "empty"
"""Remove all that is in the job's directories."""
FILL = "fill"
"""Empty them and unpack the DATA frames that come now into the first; all or nothing. Afterwards
the next frame is the one behind them, also when it fails."""
FILL_GZIP = "fill-gzip"
"""The same with frames that are compressed."""

_TICK_SECONDS = 1.0
_CHUNK = 1 << 18
_GZIP = 31
"""zlib's code for a gzip wrapper and the largest window."""


class FilesWorker:
    def __init__(self, facts: Facts, folders: Folders, read: ReadSome) -> None:
        """`read` gives the frames that come from the other end; the worker takes those of a filling
        itself."""
        self._facts = facts
        self._folders = folders
        self._read = read
        self._stamp: tuple[int, ...] = ()
        self._process = 0
        self._asked = ""
        self._line: socket.socket | None = None

    def ready(self) -> None:
        """Start it if it does not run, or if the directories that it holds are not there any more.

        Raises Failure (damaged).
        """
        if self._line is not None and self._stamp == self._folders.stamp():
            return
        self.close()
        with self._folders.opened() as tops:
            agent = os.getpid()
            ours, line = socket.socketpair()
            self._process = os.fork()
            if self._process == 0:
                ours.close()
                _serve(self._facts, line, tops, self._read, agent)
            line.close()
        self._line, self._stamp = ours, self._folders.stamp()

    def do(self, what: str, on_wait: Callable[[], None]) -> None:
        """Do `what`, one of this module's words. Raises what `begin` and `finish` raise."""
        self.begin(what)
        self.finish(on_wait)

    def begin(self, what: str) -> None:
        """Have it begin, and return; `finish` must follow. Raises Failure (damaged)."""
        self.ready()
        self._asked = what
        self._tell()

    def finish(self, on_wait: Callable[[], None]) -> None:
        """Return once what was begun is done; `on_wait` is called once a second meanwhile.

        Raises Failure: refused for an archive that is not ours, damaged when something stays, or
        there is no room for what came.
        """
        answer = self._answer(on_wait)
        if not answer and self._asked == EMPTY:  # nothing is lost by doing that twice
            self.close()
            self.ready()
            self._tell()
            answer = self._answer(on_wait)
        if not answer:
            self.close()
            if self._asked == EMPTY:
                raise Failure(DAMAGED, "what removes the last job's files is killed each time")
            raise frames.StreamBroken("the files worker died with frames in its hands")
        failure = json.loads(answer)
        if failure:
            raise Failure(*failure)

    def processes(self) -> tuple[int, ...]:
        """The worker's process, if it runs."""
        return () if self._line is None else (self._process,)

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._process, 0)

    def _tell(self) -> None:
        assert self._line is not None  # noqa: S101 - `ready` was called
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGCONT)
        with contextlib.suppress(OSError):  # it is dead: there will be no answer
            self._line.sendall(self._asked.encode() + b"\n")

    def _answer(self, on_wait: Callable[[], None]) -> bytes:
        """What it says to what it was told; nothing when it died."""
        assert self._line is not None  # noqa: S101 - `ready` was called
        while not select.select([self._line], [], [], _TICK_SECONDS)[0]:
            on_wait()
        with contextlib.suppress(OSError):
            return self._line.recv(65536)
        return b""


def _serve(
    facts: Facts, line: socket.socket, tops: tuple[int, ...], read: ReadSome, agent: int
) -> None:
    """The child: does what is asked for until the agent hangs up. Never returns."""
    try:
        reset_signals()
        if facts.separate:
            become(facts.job_user)
        die_with_agent(agent)
        os.umask(0o022)
        while True:
            what = line.recv(100).decode().strip()
            if not what:
                break
            line.sendall(json.dumps(_do(what, tops, read, facts.separate)).encode())
    finally:
        os._exit(0)


def _do(what: str, tops: tuple[int, ...], read: ReadSome, separate: bool) -> Any:
    """The failure, as its two words; None when there is none."""
    try:
        if separate:
            _forget_keys()
        if what == EMPTY:
            _empty(tops)
        else:
            _fill(tops, DataStream(read), what == FILL_GZIP)
    except Failure as failure:
        return [failure.kind, failure.message]
    except frames.StreamBroken as error:
        return [REFUSED, f"the archive was cut short: {error}"]
    return None


def _forget_keys() -> None:
    """A user who is here for jobs alone keeps nothing from one to the next."""
    try:
        syscalls.clear_user_keyrings()
    except OSError as error:
        raise Failure(DAMAGED, f"cannot remove the keys of the last job: {error}") from error


def _empty(tops: tuple[int, ...]) -> None:
    try:
        for top in tops:
            wipe.empty(top)
    except OSError as error:
        raise Failure(DAMAGED, f"cannot remove what the last job left: {error}") from error


def _fill(tops: tuple[int, ...], stream: DataStream, gzip: bool) -> None:
    try:
        _empty(tops)
        extract(_gunzip(stream) if gzip else stream.read, tops[0])
    except ArchiveRefused as error:
        _empty(tops)
        raise Failure(REFUSED, f"the archive was refused: {error}") from error
    except frames.StreamBroken:
        _empty(tops)
        if not stream.aborted:
            raise
    except OSError as error:
        _empty(tops)
        raise Failure(DAMAGED, f"the job directory cannot be filled: {error}") from error
    finally:
        stream.drain()


def _gunzip(stream: DataStream) -> ReadSome:
    """`stream` decompressed, never more at a time than is asked for."""
    decompress = zlib.decompressobj(_GZIP)

    def read(limit: int) -> bytes:
        while True:
            source = decompress.unconsumed_tail or stream.read(_CHUNK)
            try:
                data = decompress.decompress(source, limit)
            except zlib.error as error:
                raise ArchiveRefused(f"not compressed as it should be: {error}") from error
            if data or not source:
                return data

    return read
