"""Parts of an orchestration that lives in memory, but for its ledger in a temporary folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tango_cloud.core.ledger import Ledger
from tango_cloud.core.lifecycle import State
from tango_cloud.core.model import Machine, MachineKey, Shape
from tango_cloud.orchestration.committer import Committer
from tango_cloud.orchestration.connections import Connections
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.group_commit import Window
from tango_cloud.orchestration.host_keys import HostKeys
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.orchestration.mending import Mending
from tango_cloud.orchestration.offers import Offers
from tango_cloud.orchestration.reconcile import Reconciler
from tango_cloud.orchestration.signals import Signals
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.orchestration.stacks import Stacks
from tango_cloud.orchestration.waves import Waves

from . import google_api
from .fakes import FakeCloud, FakeStacks, FakeTransport

KEY = MachineKey("prod", 1000, "local")
SHAPE = Shape("fake.img")
MINIMUM_AGE = 600.0


@dataclass
class Rig:
    """One process' view of a deployment. Build several on one ledger for several processes."""

    fleet: Fleet
    committer: Committer
    waves: Waves
    ledger: Ledger
    cloud: FakeCloud
    transport: FakeTransport
    other: FakeTransport
    """That of jobs that name `ansible`."""
    connections: Connections
    host_keys: HostKeys
    reconciler: Reconciler
    ahead: float = 0.0
    """How many seconds later it is for the reconciler."""


def build_rig(
    ledger: Ledger,
    cloud: FakeCloud,
    transport: FakeTransport,
    folder: Path,
    deployment: str = "prod",
    others: Sequence[FakeCloud] = (),
    spare_seconds: float = 0.0,
) -> Rig:
    sites = Sites({one.name: Site(one, Inventory(one, deployment)) for one in (cloud, *others)})
    rig: Rig
    offers, stacks = Offers(sites, {}), cast(Stacks, FakeStacks(cloud, *others))
    signals = Signals()
    transports = {"ssh": transport, "ansible": FakeTransport()}
    connections = Connections(transports.__getitem__, "ssh", sites, "/dev/null", 1.0)
    host_keys = HostKeys(ledger, folder)
    waves = Waves(ledger, sites, offers, stacks, connections, host_keys, signals, attempts=3)
    committer = Committer(
        deployment, ledger, waves, window=Window(0.0, 0.0), concurrent_applies=2, machines=200
    )
    fleet = Fleet(
        deployment,
        ledger,
        sites,
        offers,
        connections,
        host_keys,
        committer,
        signals,
        spare_seconds=spare_seconds,
    )
    mending = Mending(ledger, sites, stacks, waves, committer, fleet, host_keys, 10.0)

    def sleep(_seconds: float) -> None:
        cloud.between_looks()

    reconciler = Reconciler(
        deployment,
        ledger,
        sites,
        stacks,
        waves,
        host_keys,
        mending,
        minimum_age=MINIMUM_AGE,
        recheck=1.0,
        clock=lambda: time.time() + rig.ahead,
        sleep=sleep,
    )
    rig = Rig(
        fleet,
        committer,
        waves,
        ledger,
        cloud,
        transport,
        transports["ansible"],
        connections,
        host_keys,
        reconciler,
    )
    return rig


def deployment_of(rig: Rig) -> Any:
    """What the wiring gives to the VMMS, as far as that uses it."""
    return SimpleNamespace(fleet=rig.fleet, background=SimpleNamespace(start=lambda: None))


@pytest.fixture
def now() -> Callable[[], float]:
    """The ledger's clock; a module that has one of its own overrides it."""
    return time.time


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


@pytest.fixture
def ledger(url: str, tmp_path: Path, now: Callable[[], float]) -> Iterator[Ledger]:
    ledger = Ledger(url, tmp_path, now)
    yield ledger
    ledger.close()


@pytest.fixture
def rig(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr("tango_cloud.orchestration.offers._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("tango_cloud.orchestration.readiness._DOUBT_SECONDS", 0.0)
    rig = build_rig(ledger, FakeCloud(), FakeTransport(), tmp_path)
    yield rig
    rig.fleet.close()


def request(rig: Rig, key: MachineKey = KEY) -> Machine:
    return rig.fleet.request(key, SHAPE, 3600)


def ready(rig: Rig, key: MachineKey = KEY) -> Machine:
    request(rig, key)
    return rig.fleet.wait(key, 10)


def state_of(rig: Rig, machine: Machine) -> State:
    now = rig.ledger.machines.get(machine.uid)
    assert now is not None
    return now.state


def book(rig: Rig, key: MachineKey) -> Machine:
    return rig.ledger.machines.request(key, "fake", SHAPE, 3600)[0]


@pytest.fixture
def aws_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No account of the person who runs the tests; gives the configuration file."""
    path = tmp_path / "aws-config"
    for name in ("REGION", "DEFAULT_REGION", "PROFILE", "ENDPOINT_URL", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return path


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> google_api.Google:
    """No credentials of the person who runs the tests, and nobody but it to ask."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", google_api.ENDPOINT)
    return google_api.install(monkeypatch.setattr)
