"""Waves and their owners on the books."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Row, delete, exists, insert, select, update

from tango_cloud.core.ledger.database import Database
from tango_cloud.core.ledger.records import Clock
from tango_cloud.core.ledger.schema import machines, owners, waves
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Wave, WaveState

SILENT_SECONDS = 30.0
"""An owner on another host counts as dead after this long without a heartbeat."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Waves:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def get(self, wave: str) -> Wave | None:
        with self._database.read() as connection:
            row = connection.execute(select(waves).where(waves.c.wave == wave)).first()
            return _wave(row) if row else None

    def applying(self, deployment: str) -> Sequence[Wave]:
        """The waves that somebody is applying, or died applying."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(waves).where(
                    waves.c.deployment == deployment, waves.c.state == WaveState.APPLYING
                )
            )
            return [_wave(row) for row in rows]

    def adopt(self, wave: str, deployment: str, provider: str) -> None:
        """Have a wave on the books whose machines were found in the cloud. Idempotent."""
        with self._database.write() as connection:
            if connection.execute(select(waves.c.wave).where(waves.c.wave == wave)).first():
                return
            connection.execute(
                insert(waves).values(
                    wave=wave,
                    deployment=deployment,
                    provider=provider,
                    state=WaveState.APPLIED,
                    owner="",
                    created_at=self._clock(),
                )
            )

    def record_terraform(self, wave: str, pid: int) -> None:
        """Note which process applies the wave: nobody may finish it while that process lives."""
        with self._database.write() as connection:
            connection.execute(
                update(waves)
                .where(waves.c.wave == wave)
                .values(terraform_pid=pid, terraform_started=process_started(pid))
            )

    def applied(self, wave: str) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(waves)
                .where(waves.c.wave == wave, waves.c.state == WaveState.APPLYING)
                .values(state=WaveState.APPLIED)
            )

    def take_over(self, wave: Wave, owner: str) -> bool:
        """Become the owner of a dead owner's wave. False when somebody else was faster."""
        with self._database.write() as connection:
            return bool(
                connection.execute(
                    update(waves)
                    .where(
                        waves.c.wave == wave.wave,
                        waves.c.owner == wave.owner,
                        waves.c.state == WaveState.APPLYING,
                    )
                    .values(owner=owner)
                ).rowcount
            )

    def close(self, wave: str) -> bool:
        """Mark a wave without live machines as gone. True for the one caller that did it."""
        with self._database.write() as connection:
            return bool(
                connection.execute(
                    update(waves)
                    .where(
                        waves.c.wave == wave,
                        waves.c.state == WaveState.APPLIED,
                        ~exists().where(machines.c.wave == wave, machines.c.state != State.GONE),
                    )
                    .values(state=WaveState.GONE)
                ).rowcount
            )


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that may hold waves."""

    owner: str
    host: str
    pid: int
    started: float
    heartbeat_at: float

    def alive(self, now: float) -> bool:
        """On this host: whether the process lives. Elsewhere: whether its heartbeat is fresh."""
        if self.host == _this_host():
            return process_started(self.pid) == self.started
        return now - self.heartbeat_at < SILENT_SECONDS


class Owners:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def beat(self, owner: str) -> None:
        """Be on the books as alive; also again, where they were lost or are those of a backup."""
        now = self._clock()
        with self._database.write() as connection:
            known = connection.execute(
                update(owners).where(owners.c.owner == owner).values(heartbeat_at=now)
            ).rowcount
            if not known:
                connection.execute(
                    insert(owners).values(
                        owner=owner,
                        host=_this_host(),
                        pid=os.getpid(),
                        started=process_started(os.getpid()),
                        heartbeat_at=now,
                    )
                )

    def leave(self, owner: str) -> None:
        """Strike the owner off, unless it still holds a wave that somebody has to finish."""
        with self._database.write() as connection:
            connection.execute(
                delete(owners).where(
                    owners.c.owner == owner,
                    ~exists().where(waves.c.owner == owner, waves.c.state == WaveState.APPLYING),
                )
            )

    def forget_dead(self) -> None:
        """Strike off those whose process on this host has ended without `leave`: killed. Dead is
        also who is not on the books, so nothing else changes by it.
        """
        with self._database.read() as connection:
            rows = connection.execute(select(owners).where(owners.c.host == _this_host()))
            dead = [row.owner for row in rows if not Owner(*row).alive(self._clock())]
        if dead:
            with self._database.write() as connection:
                connection.execute(delete(owners).where(owners.c.owner.in_(dead)))

    def alive(self, owner: str) -> bool:
        found = self._get(owner)
        return found is not None and found.alive(self._clock())

    def heartbeat_elsewhere(self, owner: str) -> float | None:
        """When an owner on another host was last heard of, in seconds since the epoch by its clock;
        None for one of this host, also of before it was started anew."""
        found = self._get(owner)
        if found is None or found.host.split()[0] == _this_host().split()[0]:
            return None
        return found.heartbeat_at

    def _get(self, owner: str) -> Owner | None:
        with self._database.read() as connection:
            row = connection.execute(select(owners).where(owners.c.owner == owner)).first()
        return Owner(*row) if row is not None else None


def process_started(pid: int) -> float:
    """When the process started, in seconds after this host did; 0.0 when there is none (or a
    zombie).

    With pid and host this names a process for all time: pids are used again. Not in seconds since
    the epoch: whenever the clock is set, that is another number.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return 0.0
        return round(process.create_time() - psutil.boot_time(), 2)
    except (psutil.Error, ValueError):
        return 0.0


def _this_host() -> str:
    """As long as it runs: started again it is another one, where no process of before lives."""
    try:
        return f"{socket.gethostname()} {_BOOT.read_text(encoding='ascii').strip()}"
    except OSError:  # not on Linux
        return socket.gethostname()


def _wave(row: Row[Any]) -> Wave:
    return Wave(
        wave=row.wave,
        deployment=row.deployment,
        provider=row.provider,
        state=WaveState(row.state),
        owner=row.owner,
        terraform_pid=row.terraform_pid,
        terraform_started=row.terraform_started,
        created_at=row.created_at,
    )
