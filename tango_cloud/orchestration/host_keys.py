"""The machines' host keys: on the books, and beside them in a file that survives their loss.

The file `known_hosts` has OpenSSH's format, with the machine's uid in the place of its name. It is
of use only to who has the deployment's client key, which is in the same folder.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from filelock import FileLock

from tango_cloud.core.ledger import Ledger
from tango_cloud.core.model import Machine

_FILE = "known_hosts"


class HostKeys:
    """Safe for many threads and processes."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self._file = folder / _FILE
        self._lock = FileLock(folder / f"{_FILE}.lock")

    def expect(self, uid: str, key: str) -> Machine | None:
        """The machine is to prove itself with `key`."""
        self._append(uid, key)
        return self._ledger.machines.record(uid, host_key=key)

    def announce(self, uid: str, key: str) -> None:
        """The machine is about to change to `key`: until it has, both will do."""
        self._append(uid, key)
        self._ledger.machines.record(uid, host_key_next=key)

    def settle(self, uid: str, key: str) -> None:
        """The machine has changed to `key`."""
        self._ledger.machines.record(uid, host_key=key, host_key_next="")

    def known(self, uid: str) -> tuple[str, str] | None:
        """The machine's key and the one before, which it may still have (empty if there is none);
        None when it is not known here."""
        keys = [key for bearer, key in self._entries() if bearer == uid]
        return (keys[-1], keys[-2] if len(keys) > 1 else "") if keys else None

    def forget_all_but(self, uids: Collection[str]) -> None:
        """Drop the keys of machines that are no more."""
        with self._lock:
            kept = [f"{uid} {key}\n" for uid, key in self._entries() if uid in uids]
            scratch = self._file.with_suffix(".new")
            scratch.write_text("".join(kept), encoding="ascii")
            scratch.replace(self._file)

    def _append(self, uid: str, key: str) -> None:
        with self._lock, self._file.open("a", encoding="ascii") as file:
            file.write(f"{uid} {key}\n")

    def _entries(self) -> list[tuple[str, str]]:
        try:
            lines = self._file.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return []
        # A line that a crash cut short is no key.
        return [(uid, key) for uid, _, key in (line.partition(" ") for line in lines) if key]
