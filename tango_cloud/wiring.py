"""The one module that wires concrete parts together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.settings import Settings
from tango_cloud.orchestration.committer import Committer
from tango_cloud.orchestration.connections import Connections
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.group_commit import Window
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.orchestration.keys import client_key
from tango_cloud.orchestration.offers import Offers
from tango_cloud.orchestration.signals import Signals
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.orchestration.stacks import Stacks
from tango_cloud.orchestration.waves import Waves
from tango_cloud.providers.protocol import Provider
from tango_cloud.transports.ssh import SshTransport

PROVIDER_GROUP = "tango_cloud.providers"
"""The entry-point group through which a third party adds a cloud: a callable from Settings."""


def build_fleet(settings: Settings) -> Fleet:
    """Everything that one deployment needs, on the books and in the state folder of `settings`.

    Raises ConfigurationError when the settings name something that is not there, TerraformUnusable
    when there is no Terraform.
    """
    folder = state_folder(settings)
    ledger = Ledger(ledger_url(settings), settings.state_dir)
    key = client_key(folder)
    ledger.clients.enter(settings.prefix, key.public)
    sites = _build_sites(settings, ledger.machines.providers(settings.prefix))
    offers = Offers(sites, settings.prices)
    signals = Signals()
    connections = Connections(SshTransport(), sites, str(key.file), settings.ssh.connect_seconds)
    stacks = Stacks(settings, folder, sites)
    waves = Waves(ledger, sites, offers, stacks, connections, signals, settings.wave.attempts)
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
    return Fleet(settings.prefix, ledger, sites, offers, connections, committer, signals)


def build_stacks(settings: Settings) -> Stacks:
    """Terraform's side of the deployment alone. Raises ConfigurationError."""
    return Stacks(settings, state_folder(settings), _build_sites(settings))


def _build_sites(settings: Settings, before: Iterable[str] = ()) -> Sites:
    """Those that the settings name, and those that have machines of `before`."""
    sites = {}
    for name in dict.fromkeys([*settings.provider, *before]):
        provider = build_provider(settings, name)
        sites[name] = Site(provider, Inventory(provider, settings.prefix))
    return Sites(sites, settings.provider)


def build_provider(settings: Settings, name: str) -> Provider:
    """Raises ConfigurationError when there is none of that name."""
    found = {entry.name: entry for entry in entry_points(group=PROVIDER_GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none installed"
        raise ConfigurationError([Fault("provider", f"no such provider: {name}", known)])
    return cast(Provider, found[name].load()(settings))


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
