"""The one module that wires concrete parts together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.model import Rate
from tango_cloud.core.settings import Settings
from tango_cloud.orchestration.background import Background
from tango_cloud.orchestration.committer import Committer
from tango_cloud.orchestration.connections import Connections
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.group_commit import Window
from tango_cloud.orchestration.host_keys import HostKeys
from tango_cloud.orchestration.images import Images
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.orchestration.keys import client_key
from tango_cloud.orchestration.mending import Mending
from tango_cloud.orchestration.offers import Offers
from tango_cloud.orchestration.reaper import Reaper
from tango_cloud.orchestration.reconcile import Reconciler
from tango_cloud.orchestration.signals import Signals
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.orchestration.stacks import Stacks
from tango_cloud.orchestration.waves import Waves
from tango_cloud.providers.protocol import Provider
from tango_cloud.transports.protocol import Preparer, Transport
from tango_cloud.transports.ssh import SshTransport

PROVIDER_GROUP = "tango_cloud.providers"
"""The entry-point group through which a third party adds a cloud: a callable from Settings."""
_INSTALL_ANSIBLE = "pip install ansible-core ansible-runner"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What there is of one deployment in one process. `background` is not started yet."""

    fleet: Fleet
    connections: Connections
    images: Images
    stacks: Stacks
    reconciler: Reconciler
    background: Background

    def close(self) -> None:
        """Finish what was begun. Machines stay."""
        self.background.stop()
        self.fleet.close()


def build_deployment(settings: Settings) -> Deployment:
    """Everything that one deployment needs, on the books and in the state folder of `settings`.

    Raises ConfigurationError when the settings name something that is not there. Terraform is
    looked for when it is needed first.
    """
    folder = state_folder(settings)
    ledger = Ledger(ledger_url(settings), settings.state_dir)
    key = client_key(folder)
    ledger.clients.enter(settings.prefix, key.public)
    sites = _build_sites(settings, ledger.machines.providers(settings.prefix))
    offers = Offers(sites, settings.prices)
    signals = Signals()
    transports = cache(build_transport)
    transports(settings.transport)  # a fault of the settings is told now
    connections = Connections(
        transports, settings.transport, sites, str(key.file), settings.ssh.connect_seconds
    )
    stacks = Stacks(settings, folder, sites)
    host_keys = HostKeys(ledger, folder)
    waves = Waves(
        ledger, sites, offers, stacks, connections, host_keys, signals, settings.wave.attempts
    )
    committer = Committer(
        settings.prefix,
        ledger,
        waves,
        window=Window(settings.wave.gather_seconds, settings.wave.gather_limit_seconds),
        concurrent_applies=settings.wave.concurrent_applies,
        machines=settings.wave.machines,
        rates={
            name: rate
            for name, site in sites.items()
            if (rate := site.provider.creation_rate) is not None
        },
    )
    fleet = Fleet(
        settings.prefix,
        ledger,
        sites,
        offers,
        connections,
        host_keys,
        committer,
        signals,
        spare_seconds=settings.machine.spare_seconds,
    )
    mending = Mending(
        ledger, sites, stacks, waves, committer, fleet, host_keys, settings.machine.gone_seconds
    )
    reconciler = Reconciler(
        settings.prefix,
        ledger,
        sites,
        stacks,
        waves,
        host_keys,
        mending,
        minimum_age=settings.reconcile.minimum_age_seconds,
        recheck=settings.reconcile.recheck_seconds,
    )
    return Deployment(
        fleet,
        connections,
        Images(settings.prefix, ledger, sites),
        stacks,
        reconciler,
        _background(settings, ledger, reconciler),
    )


def _background(settings: Settings, ledger: Ledger, reconciler: Reconciler) -> Background:
    every = settings.reconcile.every_seconds

    def turn() -> bool:
        # A bucket that holds one pass: of all processes of the deployment, one makes it.
        once = Rate(1, 1 / every)
        return ledger.buckets.draw(f"{settings.prefix}/reconcile", once, 1) == 1

    return Background(reconciler, every, turn)


def _build_sites(settings: Settings, before: Iterable[str] = ()) -> Sites:
    """Those that the settings name, and those that have machines of `before`."""
    sites = {}
    for name in dict.fromkeys([*settings.provider, *before]):
        provider = build_provider(settings, name)
        sites[name] = Site(provider, Inventory(provider, settings.prefix))
    return Sites(sites, settings.provider)


def build_reaper(settings: Settings) -> Reaper:
    """Of the providers of `settings`. Neither ledger nor state folder is touched.

    Raises ConfigurationError when there is no provider of that name.
    """
    names = dict.fromkeys(settings.provider)
    return Reaper(settings.prefix, [build_provider(settings, name) for name in names])


def build_provider(settings: Settings, name: str) -> Provider:
    """Raises ConfigurationError when there is none of that name."""
    found = {entry.name: entry for entry in entry_points(group=PROVIDER_GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none installed"
        raise ConfigurationError([Fault("provider", f"no such provider: {name}", known)])
    return cast(Provider, found[name].load()(settings))


def build_transport(name: str) -> Transport:
    """Raises ConfigurationError when there is none of that name, or it is not installed."""
    if name == "ssh":
        return SshTransport()
    if name != "ansible":
        raise ConfigurationError([Fault("transport", f"no such transport: {name}", "ssh, ansible")])
    try:
        from tango_cloud.transports.ansible.transport import AnsibleTransport
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            [Fault("transport", str(error), f"ssh, or: {_INSTALL_ANSIBLE}")]
        ) from error
    return AnsibleTransport()


def build_preparer() -> Preparer:
    """Raises ConfigurationError when it is not installed."""
    try:
        from tango_cloud.transports.ansible import preparing
    except ModuleNotFoundError as error:
        raise ConfigurationError([Fault("prepare", str(error), _INSTALL_ANSIBLE)]) from error
    return preparing


def ledger_url(settings: Settings) -> str:
    return settings.ledger_url or f"sqlite:///{settings.state_dir / 'ledger.sqlite3'}"


def state_folder(settings: Settings) -> Path:
    """The deployment's own folder, made with mode 0700 if need be.

    Raises ConfigurationError when it cannot be made, or belongs to somebody else.
    """
    folder = settings.state_dir / settings.prefix
    try:
        for path in (settings.state_dir, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_uid != os.geteuid():
                raise PermissionError(f"{path} belongs to another user")
    except OSError as error:
        raise ConfigurationError(
            [Fault("state_dir", str(error), "a folder of your own that can be written")]
        ) from error
    return folder
