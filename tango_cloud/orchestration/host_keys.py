"""The machines' host keys: on the books, and beside them in files that survive their loss.

Each machine has a file in the folder `known_hosts`, in OpenSSH's format, with its uid in the place
of a host's name. They are of use only to who has the deployment's client key, which is beside them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tango_cloud.core.ledger import Ledger
from tango_cloud.core.model import Machine

_FOLDER = "known_hosts"


class HostKeys:
    """Safe for many threads and processes."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self._ledger = ledger
        self._folder = folder / _FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)

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
        try:
            lines = (self._folder / uid).read_text(encoding="ascii").splitlines()
        except (FileNotFoundError, ValueError):
            return None
        # A line that a crash cut short is no key.
        keys = [key for _, _, key in (line.partition(" ") for line in lines) if key]
        return (keys[-1], keys[-2] if len(keys) > 1 else "") if keys else None

    def uids(self) -> set[str]:
        """The machines whose keys are kept."""
        return {file.name for file in self._folder.iterdir()}

    def forget(self, uids: Collection[str]) -> None:
        """Drop the keys of machines that are no more."""
        for uid in uids:
            (self._folder / uid).unlink(missing_ok=True)

    def _append(self, uid: str, key: str) -> None:
        with (self._folder / uid).open("a", encoding="ascii") as file:
            file.write(f"{uid} {key}\n")
