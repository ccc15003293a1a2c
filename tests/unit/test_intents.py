"""Intents: nobody gets one twice, everybody gets a turn, and no cloud is asked too fast."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tango_cloud.core.ledger import Ledger, new_uid
from tango_cloud.core.lifecycle import Reason, State
from tango_cloud.core.model import Machine, MachineKey, Rate, Shape, WaveState

from .fakes import Clock

SHAPE = Shape("local.img", cores=2)
KEY = MachineKey("prod", 1000, "local")
RATE = Rate(burst=5, per_second=2.0)
LOCAL = ["local"]
RATES = {"local": RATE}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def now(clock: Clock) -> Clock:
    return clock


def _request(ledger: Ledger, key: MachineKey = KEY) -> Machine:
    return ledger.machines.request(key, "local", SHAPE, 3600)[0]


def _ask(ledger: Ledger, count: int, deployment: str = "prod", image: str = "local.img") -> None:
    for _ in range(count):
        ledger.machines.request_next(deployment, "local", "local", Shape(image), 60)


def _take(ledger: Ledger, deployment: str = "prod", most: int | None = None) -> Counter[str]:
    """Claim what may be claimed now; how many of each image that was."""
    claimed = ledger.intents.claim(deployment, "local", new_uid(), "owner", rate=RATE, most=most)
    return Counter(machine.shape.image for machine in claimed)


def _claim(ledger: Ledger, deployment: str = "prod") -> int:
    return _take(ledger, deployment).total()


def test_one_claim_takes_all_that_wait_and_nothing_else(ledger: Ledger) -> None:
    mine = [_request(ledger, MachineKey("prod", n, "local")) for n in range(3)]
    _request(ledger, MachineKey("prod-2", 0, "local"))
    claimed = ledger.intents.claim("prod", "local", "wave1", "owner")
    assert {m.uid for m in claimed} == {m.uid for m in mine}
    assert {m.state for m in claimed} == {State.CREATING}
    assert not ledger.intents.claim("prod", "local", "wave2", "owner")
    assert ledger.waves.get("wave2") is None
    wave = ledger.waves.get("wave1")
    assert wave is not None
    assert (wave.state, wave.owner) == (WaveState.APPLYING, "owner")


_CLAIMER = """
import sys, pathlib
from tango_cloud.core.ledger import Ledger, new_uid
url, folder = sys.argv[1:]
ledger = Ledger(url, pathlib.Path(folder))
sys.stdin.readline()
while claimed := ledger.intents.claim("prod", "local", new_uid(), "owner"):
    print(*(m.uid for m in claimed), flush=True)
"""


def test_processes_claiming_at_once_never_share_an_intent(
    ledger: Ledger, url: str, tmp_path: Path
) -> None:
    wanted = {_request(ledger, MachineKey("prod", n, "local")).uid for n in range(200)}
    command = [sys.executable, "-c", _CLAIMER, url, str(tmp_path)]
    claimers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    outputs = [claimer.communicate(timeout=60)[0].split() for claimer in claimers]
    assert [claimer.returncode for claimer in claimers] == [0] * 4
    claimed = [uid for output in outputs for uid in output]
    assert len(claimed) == len(set(claimed)) == 200
    assert set(claimed) == wanted


def test_a_delayed_intent_waits_its_time(ledger: Ledger, clock: Clock) -> None:
    first = _request(ledger)
    ledger.intents.claim("prod", "local", "wave1", "owner")
    second = ledger.machines.supersede(
        first,
        reason=Reason.NO_CAPACITY,
        detail="none left",
        provider="elsewhere",
        offer=1,
        delay=5.0,
    )
    assert second is not None
    assert (second.key, second.provider, second.offer) == (KEY, "elsewhere", 1)
    assert second.attempt == 1
    assert second.uid != first.uid
    assert ledger.intents.waiting("prod", ["elsewhere"]) == {}
    assert ledger.intents.next_due("prod", ["elsewhere"], {}) == clock.now + 5.0
    assert ledger.intents.next_due("prod", LOCAL, {}) is None, "not ours to make"
    assert not ledger.intents.claim("prod", "elsewhere", "wave2", "owner")
    clock.now += 5.0
    claimed = ledger.intents.claim("prod", "elsewhere", "wave2", "owner")
    assert [machine.uid for machine in claimed] == [second.uid]
    assert ledger.machines.providers("prod") == ["elsewhere"]


def test_no_more_is_claimed_than_a_cloud_lets_us_ask_for(ledger: Ledger, clock: Clock) -> None:
    _ask(ledger, 12)
    assert _claim(ledger) == 5
    assert _claim(ledger) == 0
    assert ledger.intents.next_due("prod", LOCAL, RATES) == pytest.approx(clock.now + 2.5)
    clock.now += 1.0
    assert _claim(ledger) == 0, "two at a time would cost an apply each"
    clock.now += 1.5
    assert _claim(ledger) == 5
    clock.now += 1.0
    assert _claim(ledger) == 2, "all that is left"
    clock.now += 3600
    _ask(ledger, 12)
    assert _claim(ledger) == 5, "a bucket holds no more"


def test_a_lone_machine_is_claimed_at_once(ledger: Ledger, clock: Clock) -> None:
    for _ in range(5):
        _ask(ledger, 1)
        assert ledger.intents.next_due("prod", LOCAL, RATES) == clock.now
        assert _claim(ledger) == 1


def test_deployments_of_one_account_take_turns(ledger: Ledger, clock: Clock) -> None:
    _ask(ledger, 100)
    _ask(ledger, 1, "other")
    assert (_claim(ledger), _claim(ledger, "other")) == (4, 1)
    _ask(ledger, 100, "other")
    got = Counter[str]()
    for _ in range(20):
        clock.now += 2.5
        for deployment in ("prod", "other"):
            got[deployment] += _claim(ledger, deployment)
    assert got.total() == 100, "turns waste nothing"
    assert abs(got["prod"] - got["other"]) <= 5


def test_the_odd_one_out_goes_to_each_in_turn(ledger: Ledger, clock: Clock) -> None:
    """With a bucket of one, who is older would have all."""
    for image in ("a.img", "b.img"):
        clock.now += 1
        _ask(ledger, 30, image=image)
    _ask(ledger, 30, "other")
    one = Rate(1, 1.0)
    got = Counter[str]()
    for _ in range(24):
        clock.now += 1.0
        for deployment in ("prod", "other"):
            claimed = ledger.intents.claim(deployment, "local", new_uid(), "owner", rate=one)
            got.update(f"{machine.key.deployment} {machine.shape.image}" for machine in claimed)
    assert got.total() == 24
    assert got["other local.img"] == 12
    assert got["prod a.img"] == got["prod b.img"] == 6


def test_pools_of_one_deployment_take_turns(ledger: Ledger, clock: Clock) -> None:
    _ask(ledger, 100, image="large.img")
    clock.now += 1.0
    _ask(ledger, 2, image="small.img")
    assert _take(ledger) == {"large.img": 3, "small.img": 2}


def test_who_has_nobody_left_to_claim_holds_up_nobody(ledger: Ledger, clock: Clock) -> None:
    for number in range(10):
        _ask(ledger, 50, f"dead-{number}")
    clock.now += 1.0
    _ask(ledger, 50)
    got = 0
    for _ in range(20):
        clock.now += 2.5
        got += _claim(ledger)
    assert got == 50


def test_what_was_handed_out_is_due_at_once(ledger: Ledger, clock: Clock) -> None:
    _ask(ledger, 100)
    _ask(ledger, 10, "other")
    _claim(ledger)
    assert ledger.intents.next_due("other", LOCAL, RATES) == clock.now
    assert ledger.intents.next_due("prod", LOCAL, RATES) == pytest.approx(clock.now + 2.5)


def test_a_wave_takes_no_more_than_its_size(ledger: Ledger) -> None:
    _ask(ledger, 5, image="first.img")
    _ask(ledger, 5, image="second.img")
    claimed = ledger.intents.claim("prod", "local", new_uid(), "owner", most=6)
    assert Counter(m.shape.image for m in claimed) == {"first.img": 3, "second.img": 3}
    assert len(ledger.intents.claim("prod", "local", new_uid(), "owner", most=6)) == 4


def test_a_clock_that_is_set_back_holds_up_nobody(ledger: Ledger, clock: Clock) -> None:
    machine = _request(ledger)
    ledger.intents.claim("prod", "local", "wave1", "owner")
    ledger.machines.supersede(
        machine, reason=Reason.PROVISIONING, detail="", provider="local", offer=0, delay=60.0
    )
    assert ledger.intents.waiting("prod", LOCAL) == {}
    clock.now -= 3600
    assert ledger.intents.waiting("prod", LOCAL) == {"local": 1}
    assert ledger.intents.next_due("prod", LOCAL, {}) == clock.now


def test_a_clock_that_is_set_back_does_not_stop_the_pace(ledger: Ledger, clock: Clock) -> None:
    _ask(ledger, 10)
    assert _claim(ledger) == 5
    clock.now -= 3600
    assert _claim(ledger) == 0
    clock.now += 2.5
    assert _claim(ledger) == 5
