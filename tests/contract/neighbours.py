"""An account full of others' things, and what of it we may touch: nothing.

A cloud's test module has a class that inherits `NeighboursContract`, and a fixture `account`; the
fixture `neighbours` fills the account, and asserts at its end that all is as it was.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tango_cloud.core import tags
from tango_cloud.core.settings import load
from tango_cloud.providers.protocol import Provider, Strays
from tango_cloud.wiring import build_provider

from ..chaos.invariants import AT_ONCE
from ..deployment import Deployment
from ..waiting import wait_until

PREFIX = "prod"
_HOUR = 3600

Labels = Mapping[str, str]


def ours(number: int = 1000, life: int = -_HOUR, **changes: str | None) -> Labels:
    """The tags of a machine that has so many seconds to live; `changes` to them, None takes one
    away."""
    now = int(time.time())
    labels = {
        tags.DEPLOYMENT: PREFIX,
        tags.ID: str(number),
        tags.NAME: "pool",
        tags.UID: f"{number:012x}",
        tags.WAVE: "b" * 12,
        tags.IMAGE: "course",
        tags.CREATED: str(now - 2 * _HOUR),
        tags.EXPIRES: str(now + life),
    } | {f"tango-{tag}": text for tag, text in changes.items()}
    return {tag: text for tag, text in labels.items() if text is not None}


FOREIGN: Sequence[Labels] = [
    {},
    {"deployment": PREFIX, "expires": "0"},
    *(ours(deployment=text) for text in ("prod-2", "prod2", "pro", "_50_rod", "xprod", "prod_2d_")),
]
"""Of no deployment, or of others."""
ALIKE: Sequence[Labels] = [
    {tags.DEPLOYMENT: PREFIX},
    {tags.DEPLOYMENT: PREFIX, tags.EXPIRES: "0"},
    ours(uid=None),
    ours(uid="a" * 11),
    ours(uid="my-own-machine"),
    ours(wave=None),
    ours(wave="by-hand"),
    ours(id="one"),
    ours(name=""),
    ours(expires=None),
    ours(expires="tomorrow"),
]
"""Made by hand, with our deployment's tag."""


class Account(ABC):
    """An account with the deployment `prod`, whose tools see it by `deployment`."""

    deployment: Deployment

    @abstractmethod
    def make(self, labels: Labels) -> str:
        """An instance, whose volume or disk has the same tags; its id."""

    @abstractmethod
    def leave(self, labels: Labels) -> str:
        """The volume or disk that an instance with these tags has left; its id."""

    @abstractmethod
    def strays(self) -> Collection[str]:
        """One of each kind that the deployment's machines may leave; their ids."""

    @abstractmethod
    def things(self) -> Mapping[str, object]:
        """All that there is, by id, as the cloud describes it: instances that are not gone, and
        their parts."""

    @abstractmethod
    def remove(self, things: Collection[str]) -> None:
        """Those that are still there."""

    @property
    def nowhere(self) -> dict[str, str]:
        """An environment in which nothing of ours can be kept, asked or run but the cloud."""
        file = self.deployment.folder / "file"
        file.touch()
        return {
            "TANGO_CLOUD_STATE_DIR": str(file / "state"),
            "TANGO_CLOUD_LEDGER_URL": "postgresql+psycopg://nobody@127.0.0.1:9/none",
            "PATH": str(file),
        }

    @contextmanager
    def provider(self) -> Iterator[Provider]:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.deployment.environment.items():
                patch.setenv(name, value)
            settings = load()
            yield build_provider(settings, settings.provider[0])


@dataclass
class Neighbours:
    """What somebody else has; `alike` are the instances that bear our deployment's tag."""

    account: Account
    alike: frozenset[str]
    before: Mapping[str, object] = field(repr=False)

    def assert_untouched(self) -> None:
        now = self.account.things()
        assert {thing: now.get(thing) for thing in self.before} == self.before


@contextmanager
def living(account: Account) -> Iterator[Neighbours]:
    """They must be as they were at the end."""
    there = account.things()
    try:
        for labels in FOREIGN:
            account.make(labels)
        alike = frozenset(account.make(labels) for labels in ALIKE)
        for labels in (*FOREIGN[:4], *ALIKE[:4]):
            account.leave(labels)
        neighbours = Neighbours(account, alike, account.things())
        yield neighbours
        neighbours.assert_untouched()
    finally:
        account.remove(account.things().keys() - there.keys())


class NeighboursContract:
    """Inherit this; the module needs a fixture `account`."""

    @pytest.fixture
    def neighbours(self, account: Account) -> Iterator[Neighbours]:
        with living(account) as neighbours:
            yield neighbours

    def test_reap_ends_what_is_ours_and_has_expired_with_nothing_but_credentials(
        self, account: Account, neighbours: Neighbours
    ) -> None:
        due = {account.make(ours(number)) for number in (1, 2)}
        young = account.make(ours(3, _HOUR))
        planned = account.deployment.run("reap", "--dry-run", "--json", **account.nowhere)
        assert planned.returncode == 1, planned.stderr
        assert due < account.things().keys()
        done = account.deployment.run("reap", "--json", **account.nowhere)
        assert done.returncode == 0, done.stderr
        results = {row["instance_id"]: row["result"] for row in json.loads(done.stdout)}
        assert results == {
            **dict.fromkeys(due, "gone"),
            young: "kept",
            **dict.fromkeys(neighbours.alike, "damaged tags"),
        }
        left = account.things()
        assert young in left
        assert not due & left.keys()

    def test_strays_are_found_and_removed_but_not_what_is_attached_or_anothers(
        self, account: Account, neighbours: Neighbours
    ) -> None:
        before = account.things().keys()
        machine = account.make(ours(1, _HOUR))
        attached = account.things().keys() - before
        assert len(attached) > 1, f"{machine} has parts"
        strays = set(account.strays())
        with account.provider() as provider:
            assert isinstance(provider, Strays)
            assert {stray.id for stray in provider.strays(PREFIX)} == strays
            for _ in range(2):
                provider.remove_strays(strays)
                wait_until(lambda: not strays & account.things().keys())
            assert provider.strays(PREFIX) == []
        assert attached <= account.things().keys()

    def test_reconcile_and_destroy_take_what_is_ours_and_only_tell_of_what_is_alike(
        self, account: Account, neighbours: Neighbours
    ) -> None:
        orphan, strays = account.make(ours(1, _HOUR)), set(account.strays())
        done = account.deployment.run("reconcile", "--json", **AT_ONCE)
        assert done.returncode == 0, done.stderr
        found = {row["subject"]: row["action"] for row in json.loads(done.stdout)}
        assert found == {
            orphan: "destroy",
            **dict.fromkeys(strays, "delete"),
            **dict.fromkeys(neighbours.alike, "tell"),
        }
        assert not {orphan, *strays} & account.things().keys()

        orphan = account.make(ours(2, _HOUR))
        done = account.deployment.run("destroy", "--all")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("left alone: ") == len(neighbours.alike)
        assert orphan not in account.things()
