"""Open sessions, one for each machine, kept for the next job on it."""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

from tango_cloud.core.errors import MachineUnreachable
from tango_cloud.core.model import Endpoint, Machine
from tango_cloud.orchestration.site import Sites
from tango_cloud.transports.protocol import Session, Transport


class Connections:
    """This process' sessions, by machine uid. Safe for many threads."""

    def __init__(
        self, transport: Transport, sites: Sites, client_key_file: str, connect_seconds: float
    ) -> None:
        self._transport = transport
        self._sites = sites
        self._client_key_file = client_key_file
        self._connect_seconds = connect_seconds
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._connecting: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        """There as long as somebody connects, or waits for who does."""

    def checked(self, machine: Machine, seconds: float) -> Session:
        """The machine's session, proved to answer right now: one round trip, or a new connection
        within `seconds`. Raises MachineUnreachable, HostKeyMismatch or AuthenticationError.
        """
        kept = self._sessions.get(machine.uid)
        if kept is not None and not kept.alive():
            self._drop(machine.uid, kept)
        return self.get(machine, seconds)

    def get(self, machine: Machine, seconds: float | None = None) -> Session:
        """The session kept for the machine, not asked whether it still answers, else a new one
        within `seconds` (default: the setting). Raises as `checked`.
        """
        with self._lock:
            connecting = self._connecting.setdefault(machine.uid, threading.Lock())
        with connecting:
            kept = self._sessions.get(machine.uid)
            if kept is not None:
                return kept
            limit = min(self._connect_seconds, seconds or self._connect_seconds)
            session = self._transport.connect(self._endpoint(machine), limit)
            with self._lock:
                self._sessions[machine.uid] = session
            self._drop_ended()
            return session

    def listens(self, machine: Machine, seconds: float) -> bool:
        """Whether its SSH port accepts connections, of whomever."""
        limit = min(self._connect_seconds, seconds)
        return self._transport.listens(machine.address, machine.port, limit)

    def broken(self, machine: Machine, session: Session) -> None:
        """A session failed its user: the next one who wants the machine connects anew."""
        self._drop(machine.uid, session)

    def close(self, uid: str) -> None:
        """Close the machine's session, if there is one. A job that runs on it is stopped."""
        session = self._sessions.get(uid)
        if session is not None:
            self._drop(uid, session)

    def close_all(self) -> None:
        with self._lock:
            uids = list(self._sessions)
        for uid in uids:
            self.close(uid)

    def _drop_ended(self) -> None:
        """Of machines that another process has removed, or this one while a thread connected:
        nobody comes back to close their sessions."""
        with self._lock:
            ended = [(uid, one) for uid, one in self._sessions.items() if not one.open]
        for uid, session in ended:
            self._drop(uid, session)

    def _drop(self, uid: str, session: Session) -> None:
        with self._lock:
            if self._sessions.get(uid) is session:
                del self._sessions[uid]
        session.close()

    def _endpoint(self, machine: Machine) -> Endpoint:
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
