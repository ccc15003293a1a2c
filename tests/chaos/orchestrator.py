"""An orchestrator for walks: a process that does through the VMMS what it is told, and can be
killed at it. Its clouds are folders (`shared_cloud`), its books the real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from tango_cloud.core.errors import MachineUnreachable, TangoCloudError
from tango_cloud.orchestration import offers, readiness
from tango_cloud.transports.protocol import RunLimits, RunOutcome
from tango_cloud.vmms import TangoCloud, adapter

from ..deployment import ledger_in
from ..shared_cloud import SharedCloud
from ..unit.conftest import Rig, build_rig, deployment_of
from ..unit.fakes import OUTCOME, FakeSession, FakeTransport
from .journal import note
from .steps import steps

DEPLOYMENT = "walk"
APPLY_SECONDS, JOB_SECONDS, PATIENCE = 0.05, 0.05, 4.0
_THREADS = 12
_READY = "ready"
_CLOSING_SECONDS = 60

Order = tuple[Sequence[str], int]
"""Methods of the VMMS (or `reconcile`), one after another, and the id of the machine."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@dataclass(frozen=True, slots=True)
class Place:
    """Where orchestrators meet."""

    folder: Path

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def ran(self) -> Path:
        return self.folder / "ran"

    def cloud(self) -> SharedCloud:
        return SharedCloud(self.folder / "cloud", APPLY_SECONDS, poll_interval=0.05)

    def rig(self, cloud: SharedCloud) -> Rig:
        """A process' view of the deployment."""
        transport = FakeTransport()
        transport.reachable = cloud.reachable
        transport.on_run = partial(self._run, cloud)
        return build_rig(ledger_in(self.folder), cloud, transport, self.folder, DEPLOYMENT)

    def _run(self, cloud: SharedCloud, session: FakeSession, limits: RunLimits) -> RunOutcome:
        """A job notes that it runs; its machine may end meanwhile."""
        try:
            note(self.ran, str(cloud.number(session.endpoint)))
        except FileNotFoundError as error:
            raise MachineUnreachable("it ended") from error
        time.sleep(JOB_SECONDS)
        if not cloud.reachable(session.endpoint):
            raise MachineUnreachable("it ended under its job")
        return OUTCOME


class Orchestrator:
    """The process, from outside. It takes orders all at the same time."""

    def __init__(self, place: Place) -> None:
        self._orders, theirs = _processes.Pipe()
        self._process = _processes.Process(target=_serve, args=(place, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._orders.recv() == _READY

    def ask(self, order: Order) -> None:
        self._orders.send(order)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Once all that was asked for is done."""
        self._orders.close()
        self._process.join(_CLOSING_SECONDS)
        assert self._process.exitcode == 0, f"an orchestrator ended by {self._process.exitcode}"


def _serve(place: Place, orders: Connection) -> None:
    os.chdir(place.folder)
    os.environ |= {
        "TANGO_CLOUD_PREFIX": DEPLOYMENT,
        "TANGO_CLOUD_PROVIDER": "fake",
        "TANGO_CLOUD_MACHINE__GONE_SECONDS": str(PATIENCE),
    }
    vars(offers)["_FIRST_PAUSE"] = 0.01
    vars(readiness)["_DOUBT_SECONDS"] = 0.1
    rig = place.rig(place.cloud())
    vars(adapter)["build_deployment"] = lambda _settings: deployment_of(rig)
    vmms = TangoCloud()
    orders.send(_READY)
    with ThreadPoolExecutor(_THREADS) as pool:
        done = []
        while (order := _received(orders)) is not None:
            done.append(pool.submit(_take, place, vmms, rig, order))
        for one in done:
            one.result()
    rig.fleet.close()


def _received(orders: Connection) -> Order | None:
    try:
        order: Order = orders.recv()
    except EOFError:
        return None
    return order


def _take(place: Place, vmms: TangoCloud, rig: Rig, order: Order) -> None:
    names, number = order
    each: dict[str, Callable[[], object]] = {
        **steps(vmms, number, [], place.folder / f"{number}.out", PATIENCE),
        "reconcile": lambda: _reconcile(rig),
    }
    for name in names:
        note(place.journal, f"{number} {name} begins")
        note(place.journal, f"{number} {name} {each[name]()}")


def _reconcile(rig: Rig) -> str:
    try:
        return "; ".join(str(outcome) for outcome in rig.reconciler.run()) or "agreed"
    except TangoCloudError as error:
        return f"{type(error).__name__}: {error}"
