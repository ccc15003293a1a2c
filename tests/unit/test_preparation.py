"""Preparing an image: what goes wrong, and where it is stopped, leaves nothing half-made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tango_cloud.core.errors import (
    Cancelled,
    ConfigurationError,
    InputError,
    MachineDamaged,
    MachineUnreachable,
    NotGoneInTime,
    PreparationFailed,
    ProviderUnavailable,
    ProvisioningError,
    TangoCloudError,
)
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.model import Shape
from tango_cloud.orchestration.burst import MachinePlan
from tango_cloud.orchestration.images import Images
from tango_cloud.orchestration.inventory import Inventory
from tango_cloud.orchestration.preparation import ImagePreparation, Order, Prepared
from tango_cloud.orchestration.site import Site, Sites
from tango_cloud.transports.protocol import RunLimits, RunOutcome

from .baking import NOW, BakingCloud, FakePreparer, image
from .conftest import Rig, build_rig
from .fakes import OUTCOME, Clock, FakeCloud, FakeSession, FakeTransport

ORDER = Order("course", Path("course.yml"))


@dataclass
class Kitchen:
    rig: Rig
    cloud: BakingCloud
    preparer: FakePreparer
    told: list[str] = field(default_factory=list)
    on_step: Callable[[ImagePreparation, str], None] = lambda *_: None
    default_image: str = ""
    gone_seconds: float = 10.0

    def prepare(self, order: Order = ORDER, sites: Sites | None = None) -> Prepared:
        clock = Clock()

        def pause(stop: threading.Event, seconds: float) -> bool:
            clock.now += seconds
            return stop.is_set()

        def tell(step: str) -> None:
            self.told.append(step)
            self.on_step(preparation, step)

        sites = sites or Sites({"fake": Site(self.cloud, Inventory(self.cloud, "prod"))})
        preparation = ImagePreparation(
            self.rig.fleet,
            self.rig.connections,
            Images("prod", self.rig.ledger, sites, NOW.timestamp),
            self.preparer,
            MachinePlan(Shape(self.default_image), 3600, 10, self.gone_seconds),
            RunLimits(wall_seconds=10),
            tell,
            clock=clock,
            pause=pause,
        )
        return preparation.run(order)

    def assert_nothing_left(self) -> None:
        assert not self.cloud.alive
        assert not self.rig.fleet.entries()
        assert not self.cloud.images_there


@pytest.fixture
def kitchen(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kitchen]:
    monkeypatch.setattr("tango_cloud.orchestration.offers._FIRST_PAUSE", 0.01)
    cloud, transport = BakingCloud(), FakeTransport()

    def run(session: FakeSession, limits: RunLimits) -> RunOutcome:
        cloud.did.append("job")
        return OUTCOME

    transport.on_run = run
    transport.output = b"Autodriver: Job exited with status 0\nthis machine runs jobs\n"
    rig = build_rig(ledger, cloud, transport, tmp_path)
    yield Kitchen(rig, cloud, FakePreparer(cloud))
    rig.fleet.close()


def test_an_image_is_made_of_a_machine_that_was_tried_out_before_it_was_sealed(
    kitchen: Kitchen,
) -> None:
    open_while: dict[str, bool] = {}

    def look(_preparation: ImagePreparation, step: str) -> None:
        open_while[step] = any(not one.closed for one in kitchen.rig.transport.sessions)

    kitchen.on_step = look
    prepared = kitchen.prepare()
    assert kitchen.cloud.did == ["check", "prepare", "job", "seal", "bake"]
    assert prepared.image == kitchen.cloud.images_there[0]
    assert prepared.image.ready
    assert (prepared.image.recipe.name, prepared.image.recipe.base) == ("course", "fake.img")
    assert (prepared.fresh, prepared.level) == (True, "limits")
    assert prepared.left_out == ("packages",)
    assert kitchen.preparer.endpoints[0].host_keys == ("ssh-ed25519 fresh",)
    assert (open_while["trying it out"], open_while["baking"]) == (True, False)
    assert "Install a compiler" in kitchen.told
    assert not kitchen.cloud.alive
    assert not kitchen.rig.fleet.entries()


def test_a_machine_that_shares_its_host_s_system_is_not_sealed(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kitchen.cloud, "sudo", False)
    kitchen.prepare()
    assert kitchen.cloud.did == ["check", "prepare", "job", "bake"]


def test_with_nothing_changed_nothing_is_made(kitchen: Kitchen) -> None:
    first = kitchen.prepare()
    again = kitchen.prepare()
    assert (again.image, again.fresh) == (first.image, False)
    assert kitchen.cloud.did.count("bake") == 1
    assert len(kitchen.cloud.applies) == 1
    kitchen.cloud.looks_until_ready = 1
    assert kitchen.prepare(replace(ORDER, force=True)).fresh
    kitchen.preparer.state = "changed"
    kitchen.cloud.looks_until_ready = 1
    assert kitchen.prepare().fresh
    assert len(kitchen.cloud.images_there) == 3


@pytest.mark.parametrize("base", ["below", "below.img"])
def test_an_image_made_of_one_of_ours_is_made_anew_when_that_is(
    kitchen: Kitchen, base: str
) -> None:
    kitchen.cloud.images_there = [image("below", 5)]
    order = replace(ORDER, base=base)
    assert kitchen.prepare(order).fresh
    assert not kitchen.prepare(order).fresh
    kitchen.cloud.images_there.append(image("below", 1))
    kitchen.cloud.looks_until_ready = 1
    assert kitchen.prepare(order).fresh


def fail(step: str, error: TangoCloudError) -> Callable[[Kitchen], None]:
    return lambda kitchen: kitchen.preparer.failures.update({step: error})


def refuse_machines(kitchen: Kitchen) -> None:
    kitchen.cloud.refuse = lambda _: ProvisioningError("no such network")


def break_the_job(kitchen: Kitchen) -> None:
    def run(_session: FakeSession, _limits: RunLimits) -> RunOutcome:
        raise MachineDamaged("left a daemon")

    kitchen.rig.transport.on_run = run


def fail_the_job(kitchen: Kitchen) -> None:
    kitchen.rig.transport.on_run = lambda *_: replace(OUTCOME, exit_status=2)


def lose_the_output(kitchen: Kitchen) -> None:
    kitchen.rig.transport.output = b"Autodriver: Job exited with status 0\n"


def refuse_to_bake(kitchen: Kitchen) -> None:
    kitchen.cloud.bake_failure = ConfigurationError([])


def break_off_as_it_begins(kitchen: Kitchen) -> None:
    kitchen.cloud.bake_failure = ProviderUnavailable("cut off")
    kitchen.cloud.begins_all_the_same = True


def never_become_ready(kitchen: Kitchen) -> None:
    kitchen.cloud.looks_until_ready = 10**9


def refuse_while_baking(kitchen: Kitchen) -> None:
    kitchen.cloud.looks_until_ready = 10**9
    kitchen.cloud.trouble_while_baking = [ProvisioningError("what is this?")]


@pytest.mark.parametrize(
    ("break_it", "kind", "machines"),
    [
        (fail("check", InputError([])), InputError, 0),
        (refuse_machines, ProvisioningError, 2),
        (fail("prepare", PreparationFailed("no such package")), PreparationFailed, 1),
        (fail("prepare", MachineUnreachable("cut off")), MachineUnreachable, 1),
        (break_the_job, MachineDamaged, 1),
        (fail_the_job, PreparationFailed, 1),
        (lose_the_output, PreparationFailed, 1),
        (fail("seal", PreparationFailed("no rights")), PreparationFailed, 1),
        (refuse_to_bake, ConfigurationError, 1),
        (break_off_as_it_begins, ProviderUnavailable, 1),
        (never_become_ready, PreparationFailed, 1),
        (refuse_while_baking, ProvisioningError, 1),
    ],
)
def test_what_fails_leaves_nothing(
    kitchen: Kitchen,
    break_it: Callable[[Kitchen], None],
    kind: type[TangoCloudError],
    machines: int,
) -> None:
    break_it(kitchen)
    with pytest.raises(kind):
        kitchen.prepare()
    assert sum(len(apply) for apply in kitchen.cloud.applies) <= machines
    assert bool(kitchen.cloud.applies) == bool(machines)
    kitchen.assert_nothing_left()


def test_an_image_that_its_cloud_calls_failed_is_not_waited_for(kitchen: Kitchen) -> None:
    never_become_ready(kitchen)
    kitchen.cloud.failure = "no room"
    with pytest.raises(PreparationFailed, match="course: no room"):
        kitchen.prepare()
    kitchen.assert_nothing_left()


@pytest.mark.parametrize(
    "step", ["a machine of fake.img", "applying", "trying it out", "sealing", "baking"]
)
def test_stopped_anywhere_it_leaves_nothing(kitchen: Kitchen, step: str) -> None:
    kitchen.cloud.looks_until_ready = 10

    def stop(preparation: ImagePreparation, now: str) -> None:
        if now == step:
            preparation.cancel()

    kitchen.on_step = stop
    with pytest.raises(Cancelled):
        kitchen.prepare()
    assert step in kitchen.told
    kitchen.assert_nothing_left()


def test_a_cloud_that_is_away_for_a_while_does_not_end_a_bake(kitchen: Kitchen) -> None:
    away: TangoCloudError = ProviderUnavailable("away")

    def go_away(_preparation: ImagePreparation, step: str) -> None:
        if step == "baking":
            kitchen.cloud.trouble_while_baking = [away, away]

    kitchen.on_step = go_away
    assert kitchen.prepare().image.ready


def test_a_machine_that_cannot_be_removed_is_told_and_the_reason_of_a_failure_first(
    kitchen: Kitchen, caplog: pytest.LogCaptureFixture
) -> None:
    def cling(_preparation: ImagePreparation, _step: str) -> None:
        kitchen.cloud.immortal |= kitchen.cloud.alive.keys()

    kitchen.on_step = cling
    kitchen.gone_seconds = 0.5
    with pytest.raises(NotGoneInTime):
        kitchen.prepare()
    assert [one.ready for one in kitchen.cloud.images_there] == [True]
    kitchen.preparer.failures["prepare"] = PreparationFailed("no such package")
    with pytest.raises(PreparationFailed, match="no such package"):
        kitchen.prepare(replace(ORDER, force=True))
    assert "is still there" in caplog.text


def test_what_a_killed_process_left_half_made_goes_once_nobody_can_be_at_it(
    kitchen: Kitchen,
) -> None:
    old, young = image("other", 2, ready=False), image("course", 0.5, ready=False)
    kitchen.cloud.images_there = [young, old]
    prepared = kitchen.prepare()
    assert kitchen.cloud.images_there == [prepared.image, young]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b", "-x", "x" * 64, "x\n"])
def test_a_name_that_is_no_file_s_is_refused_before_there_is_a_machine(
    kitchen: Kitchen, name: str
) -> None:
    with pytest.raises(InputError, match="image"):
        kitchen.prepare(replace(ORDER, name=name))
    assert not kitchen.cloud.applies


@pytest.mark.parametrize("base", ["course", "course.img"])
def test_an_image_is_not_made_of_itself(kitchen: Kitchen, base: str) -> None:
    with pytest.raises(InputError, match="of itself"):
        kitchen.prepare(replace(ORDER, base=base))


def test_by_itself_it_begins_with_what_the_settings_name_else_with_an_image_of_another(
    kitchen: Kitchen,
) -> None:
    kitchen.cloud.listed = ["other.img", "other@7", "fake.img"]
    kitchen.cloud.images_there = [image("other", 7)]
    assert kitchen.prepare().image.recipe.base == "fake.img"
    kitchen.default_image = "other"
    kitchen.cloud.looks_until_ready = 1
    assert kitchen.prepare().image.recipe.base == "other"
    kitchen.default_image = ""
    kitchen.cloud.listed = ["other.img"]
    with pytest.raises(InputError, match="--from"):
        kitchen.prepare()


def test_it_is_of_one_cloud_and_that_must_be_able_to(kitchen: Kitchen) -> None:
    one = Site(kitchen.cloud, Inventory(kitchen.cloud, "prod"))
    plain = FakeCloud("plain")
    other = Site(plain, Inventory(plain, "prod"))
    with pytest.raises(InputError, match="of one cloud"):
        kitchen.prepare(sites=Sites({"fake": one, "plain": other}))
    with pytest.raises(ConfigurationError, match=r"plain bakes no images .*fake"):
        kitchen.prepare(sites=Sites({"fake": one, "plain": other}, ["plain"]))
