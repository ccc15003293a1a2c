"""The reaper: what has expired goes, whatever else is there, and nothing but that."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pytest
from typer.testing import CliRunner, Result

from tango_cloud.cli.main import app
from tango_cloud.core.errors import AuthenticationError, ProviderUnavailable, TangoCloudError
from tango_cloud.core.model import Instance, InstanceStatus, MachineKey
from tango_cloud.orchestration.reaper import GRACE, Fate, Harvest, Reaper

from .fakes import Clock, FakeCloud

MINUTE = dt.timedelta(minutes=1)


class Time:
    """Passes while somebody sleeps. `pauses` tells of each sleep."""

    def __init__(self, *clouds: FakeCloud) -> None:
        self.clock = Clock()
        self.clouds = clouds
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds
        for cloud in self.clouds:
            cloud.between_looks()


class Dull(FakeCloud):
    """It terminates nothing as long as it has an error to raise."""

    def __init__(self, error: TangoCloudError) -> None:
        super().__init__("dull")
        self.error: TangoCloudError | None = error

    def terminate(self, instance_ids: Iterable[str]) -> None:
        if self.error is not None:
            raise self.error
        super().terminate(instance_ids)


def reaper(*clouds: FakeCloud) -> tuple[Reaper, Time]:
    time = Time(*clouds)
    made = Reaper("prod", clouds, clock=time.clock, timer=time.clock, sleep=time.sleep)
    return made, time


def make(cloud: FakeCloud, name: str, ago: dt.timedelta, deployment: str = "prod") -> Instance:
    """An instance that expired so long ago."""
    now = dt.datetime.fromtimestamp(Clock().now, dt.UTC)
    made = cloud.alive[name] = Instance(
        instance_id=name,
        key=MachineKey(deployment, 1000, "pool"),
        uid="a" * 12,
        wave="b" * 12,
        image="fake.img",
        status=InstanceStatus.RUNNING,
        address="192.0.2.1",
        port=22,
        username="tango",
        zone="here",
        instance_type="small",
        created=now - dt.timedelta(days=1),
        expires=now - ago,
    )
    return made


def fates(harvest: Harvest) -> dict[str, Fate]:
    return {sighting.instance.instance_id: sighting.fate for sighting in harvest.sightings}


def test_what_has_expired_goes_and_nothing_else() -> None:
    cloud = FakeCloud()
    make(cloud, "due", GRACE)
    make(cloud, "dying", GRACE - dt.timedelta(seconds=1))
    make(cloud, "young", -MINUTE)
    make(cloud, "other", 2 * GRACE, "prod-2")
    damaged = make(cloud, "hand-made", 2 * GRACE)
    cloud.alive["hand-made"] = replace(damaged, faults=("tango-uid",))
    harvest = reaper(cloud)[0].run(60)
    assert fates(harvest) == {
        "due": Fate.GONE,
        "dying": Fate.KEPT,
        "young": Fate.KEPT,
        "hand-made": Fate.DAMAGED,
    }
    assert cloud.terminated == ["due"]
    assert not harvest.expired


def test_a_look_changes_nothing() -> None:
    cloud = FakeCloud()
    make(cloud, "due", GRACE)
    assert fates(reaper(cloud)[0].look()) == {"due": Fate.EXPIRED}
    assert not cloud.terminated


def test_it_waits_until_the_cloud_shows_it_gone() -> None:
    cloud = FakeCloud()
    make(cloud, "due", GRACE)
    cloud.slow.add("due")
    made, time = reaper(cloud)
    cloud.between_looks = lambda: cloud.slow.clear() if len(time.pauses) == 3 else None
    assert fates(made.run(60)) == {"due": Fate.GONE}
    assert time.pauses == [1.0, 2.0, 4.0]


def test_it_waits_no_longer_than_it_may() -> None:
    cloud = FakeCloud()
    make(cloud, "due", GRACE)
    cloud.slow.add("due")
    made, time = reaper(cloud)
    [left] = made.run(5).expired
    assert left.instance.status is InstanceStatus.STOPPING
    assert sum(time.pauses) == 5
    assert made.run(0).expired
    assert sum(time.pauses) == 5


def test_what_was_refused_once_is_asked_for_again() -> None:
    cloud = Dull(ProviderUnavailable("too fast"))
    make(cloud, "due", GRACE)
    made, _ = reaper(cloud)
    cloud.between_looks = lambda: setattr(cloud, "error", None)
    assert fates(made.run(60)) == {"due": Fate.GONE}


def test_what_only_a_person_can_allow_is_not_waited_for() -> None:
    cloud = Dull(AuthenticationError("not allowed"))
    make(cloud, "due", GRACE)
    made, time = reaper(cloud)
    [left] = made.run(60).expired
    assert str(left.error) == "not allowed"
    assert not time.pauses


def test_a_cloud_that_breaks_down_meanwhile_has_removed_nothing_that_is_known() -> None:
    cloud = FakeCloud()
    make(cloud, "due", GRACE)
    cloud.slow.add("due")
    made, _ = reaper(cloud)
    cloud.between_looks = lambda: setattr(cloud, "unavailable", True)
    [left] = made.run(5).expired
    assert isinstance(left.error, ProviderUnavailable)


def test_a_cloud_that_cannot_be_asked_does_not_keep_the_others() -> None:
    away, here = FakeCloud("away"), FakeCloud("here")
    away.unavailable = True
    make(here, "due", GRACE)
    harvest = reaper(away, here)[0].run(60)
    assert fates(harvest) == {"due": Fate.GONE}
    assert set(harvest.failures) == {"away"}


@pytest.mark.parametrize("status", [InstanceStatus.UNKNOWN, InstanceStatus.STOPPING])
def test_what_was_stopped_still_costs_its_disk_and_goes_too(status: InstanceStatus) -> None:
    cloud = FakeCloud()
    cloud.alive["due"] = replace(make(cloud, "due", GRACE), status=status)
    assert fates(reaper(cloud)[0].run(60)) == {"due": Fate.GONE}


def test_what_is_gone_is_not_seen() -> None:
    cloud = FakeCloud()
    cloud.alive["due"] = replace(make(cloud, "due", GRACE), status=InstanceStatus.GONE)
    assert not reaper(cloud)[0].run(60).sightings


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`tango-cloud reap ARGUMENTS` of these clouds."""

    def run(*arguments: str, clouds: Sequence[FakeCloud]) -> Result:
        monkeypatch.setattr("tango_cloud.cli.reap.build_reaper", lambda _: reaper(*clouds)[0])
        return CliRunner().invoke(app, ["reap", *arguments])

    return run


def test_the_command_says_what_it_saw_and_whether_something_is_left(
    command: Callable[..., Result],
) -> None:
    cloud, away = FakeCloud(), FakeCloud("away")
    away.unavailable = True
    make(cloud, "due", GRACE)
    stuck = make(cloud, "stuck", GRACE)
    cloud.immortal.add("stuck")
    cloud.alive["hand-made"] = replace(stuck, instance_id="hand-made", faults=("tango-uid",))
    assert command("--dry-run", clouds=[cloud]).exit_code == 1
    done = command("--wait", "5", clouds=[cloud, away])
    assert done.exit_code == 3
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[1] for row in rows if "gone" in row] == ["due"]
    assert [row[1] for row in rows if "expired" in row] == ["stuck"]
    assert [row[1] for row in rows if row[-1] == "tango-uid"] == ["hand-made"]
    assert "away: the fake cloud is away" in done.stderr
    cloud.alive.clear()
    assert command("--dry-run", clouds=[cloud]).stdout == "no machines\n"
    make(cloud, "young", dt.timedelta(hours=-1))
    assert command(clouds=[cloud]).stdout == "", "a cron sends a mail for every word"
    assert command(clouds=[away]).exit_code == 3
