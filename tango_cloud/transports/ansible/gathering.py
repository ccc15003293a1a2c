"""One run of a playbook for all machines whose turn comes while the one before it starts.

Starting Ansible is most of what a step costs. Who comes alone is served at once; who comes while
a run of the same playbook starts shares the next one, which begins as soon as that one has begun
with its tasks. Nobody waits for the tasks of others: machines do not wait for each other within a
run either, and each caller is told of its own machine alone.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

from tango_cloud.transports.ansible import playbooks
from tango_cloud.transports.ansible.playbooks import Result

_MOST = 50
"""Machines of a run: each takes a process of some ten megabytes while it lasts."""


class Run(Protocol):
    """As `playbooks.run`."""

    def __call__(
        self,
        playbook: str,
        hosts: Mapping[str, Mapping[str, Any]],
        on_begun: Callable[[], None],
        on_result: Callable[[Result], None],
        stopped: Callable[[], bool],
    ) -> None: ...


class Gathering:
    """Runs playbooks for many callers. Safe for many threads."""

    def __init__(self, run: Run = playbooks.run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._waiting: defaultdict[str, list[_Share]] = defaultdict(list)
        self._starting: set[str] = set()

    def play(
        self, playbook: str, variables: Mapping[str, Any], stopped: Callable[[], bool]
    ) -> Generator[Result, None, None]:
        """Run the playbook on a machine with these variables; its results as they come.

        They end when `stopped`, asked every so often, says so. A run that nobody wants to hear of
        any more is ended too, but what it started on a machine is not. Raises MachineUnreachable
        when Ansible itself failed.
        """
        share = _Share(variables, stopped)
        with self._lock:
            self._waiting[playbook].append(share)
        self._next(playbook)
        return self._told(share)

    def _told(self, share: _Share) -> Generator[Result, None, None]:
        try:
            while (told := share.told.get()) is not None:
                if isinstance(told, BaseException):
                    raise told
                yield told
        finally:
            share.left.set()

    def _next(self, playbook: str) -> None:
        """Start a run for who waits, unless one is starting."""
        with self._lock:
            if playbook in self._starting:
                return
            # Who has been stopped meanwhile must not have anything begun on its machine any more.
            wanted = [share for share in self._waiting[playbook] if not share.unwanted()]
            shares, self._waiting[playbook] = wanted[:_MOST], wanted[_MOST:]
            if not shares:
                return
            self._starting.add(playbook)
        # It may outlast the calls that it serves.
        threading.Thread(
            target=self._serve, args=(playbook, shares), name=f"ansible-{playbook}"
        ).start()

    def _serve(self, playbook: str, shares: list[_Share]) -> None:
        by_host = {f"machine-{number}": share for number, share in enumerate(shares)}
        begun = threading.Event()

        def on_begun() -> None:
            if not begun.is_set():
                begun.set()
                with self._lock:
                    self._starting.discard(playbook)
                self._next(playbook)

        try:
            self._run(
                playbook,
                {host: share.variables for host, share in by_host.items()},
                on_begun,
                lambda result: by_host[result.host].told.put(result),
                lambda: not [share for share in shares if not share.unwanted()],
            )
        except BaseException as error:
            for share in shares:
                share.told.put(error)
        finally:
            on_begun()
            for share in shares:
                share.told.put(None)


class _Share:
    """One caller's machine in a run."""

    def __init__(self, variables: Mapping[str, Any], stopped: Callable[[], bool]) -> None:
        self.variables = variables
        self._stopped = stopped
        self.told: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
        self.left = threading.Event()
        """The caller does not listen any more."""

    def unwanted(self) -> bool:
        """Whether the caller has gone, or is to go, which it is told then."""
        if not self.left.is_set() and self._stopped():
            self.left.set()
            self.told.put(None)
        return self.left.is_set()
