"""Open sessions, one for each machine and transport, kept for the next job on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

from tango_cloud.core.errors import MachineUnreachable
from tango_cloud.core.model import Endpoint, Machine
from tango_cloud.orchestration.site import Sites
from tango_cloud.transports.protocol import Session, Transport

_Way = tuple[str, str]
"""A machine's uid, and the name of a transport."""


class Connections:
    """This process' sessions. Safe for many threads.

    `transports` gives the transport of a name. Everything goes by `default` that does not name one.
    """

    def __init__(
        self,
        transports: Callable[[str], Transport],
        default: str,
        sites: Sites,
        client_key_file: str,
        connect_seconds: float,
    ) -> None:
        self._transports = transports
        self._default = default
        self._sites = sites
        self._client_key_file = client_key_file
        self._connect_seconds = connect_seconds
        self._lock = threading.Lock()
        self._sessions: dict[_Way, Session] = {}
        self._connecting: WeakValueDictionary[_Way, threading.Lock] = WeakValueDictionary()
        """There as long as somebody connects, or waits for who does."""

    def checked(self, machine: Machine, seconds: float) -> Session:
        """The machine's session, proved to answer right now: one round trip, or a new connection
        within `seconds`. Raises MachineUnreachable, HostKeyMismatch or AuthenticationError.
        """
        kept = self._sessions.get((machine.uid, self._default))
        if kept is not None and not kept.alive():
            self._drop(kept)
        return self.get(machine, seconds)

    def get(
        self, machine: Machine, seconds: float | None = None, transport: str | None = None
    ) -> Session:
        """The session kept for the machine, not asked whether it still answers, else a new one
        within `seconds` (default: the setting). Raises as `checked`.
        """
        name = transport or self._default
        way = machine.uid, name
        with self._lock:
            connecting = self._connecting.setdefault(way, threading.Lock())
        with connecting:
            kept = self._sessions.get(way)
            if kept is not None and kept.open:
                return kept
            limit = min(self._connect_seconds, seconds or self._connect_seconds)
            session = self._transports(name).connect(self.endpoint(machine), limit)
            with self._lock:
                self._sessions[way] = session
            self._drop_ended()
            return session

    def listens(self, machine: Machine, seconds: float) -> bool:
        """Whether its SSH port accepts connections, of whomever."""
        limit = min(self._connect_seconds, seconds)
        return self._transports(self._default).listens(machine.address, machine.port, limit)

    def broken(self, session: Session) -> None:
        """A session failed its user: the next one who wants the machine connects anew."""
        self._drop(session)

    def close(self, uid: str) -> None:
        """Close the machine's sessions. A job that runs on one of them is stopped."""
        with self._lock:
            sessions = [session for (of, _), session in self._sessions.items() if of == uid]
        for session in sessions:
            self._drop(session)

    def close_all(self) -> None:
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            self._drop(session)

    def _drop_ended(self) -> None:
        """Of machines that another process has removed, or this one while a thread connected:
        nobody comes back to close their sessions."""
        with self._lock:
            ended = [session for session in self._sessions.values() if not session.open]
        for session in ended:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        with self._lock:
            for way in [way for way, kept in self._sessions.items() if kept is session]:
                del self._sessions[way]
        session.close()

    def endpoint(self, machine: Machine) -> Endpoint:
        keys = tuple(key for key in (machine.host_key_next, machine.host_key) if key)
        if not machine.address or not keys:
            raise MachineUnreachable(f"{machine.key} has no address yet ({machine.state})")
        provider = self._sites[machine.provider].provider
        return Endpoint(
            address=machine.address,
            port=machine.port,
            username=machine.username,
            host_keys=keys,
            client_key_file=self._client_key_file,
            compress=provider.compress,
            sudo=provider.sudo,
        )
