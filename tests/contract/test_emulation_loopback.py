"""The emulated EC2 without root: its hosts are programs on loopback, its addresses translated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from emulation.client import Emulation, Unavailable

from ..aws import IMAGE
from ..deployment import CHECKOUT
from ..unprivileged import User, another_user
from ..waiting import wait_until
from .test_emulation import SECONDS, Account


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """On an emulation of its own, which must leave nothing."""
    emulation = start(tmp_path)
    try:
        yield Account(emulation)
    finally:
        emulation.stop()


def start(folder: Path) -> Emulation:
    try:
        emulation = Emulation.start(folder / "own", backend="moto", loopback=True)
    except Unavailable as error:
        pytest.skip(str(error))
    emulation.register_image(IMAGE)
    return emulation


def reach(account: Account) -> dict[str, object]:
    path = Path(account.emulation.environment["TANGO_CLOUD_AWS__REACH"])
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_an_address_is_translated_as_long_as_its_instance_is_there(account: Account) -> None:
    assert reach(account) == {}
    first, second = account.ready(), account.ready()
    assert reach(account).keys() == {first["PrivateIpAddress"], second["PrivateIpAddress"]}
    assert account.emulation.place(first["PrivateIpAddress"])[0].startswith("127.")
    account.command(first, "echo mine > note")
    assert account.command(second, "cat note")[0] != 0, "each is a machine of its own"
    account.emulation.kill_host(first["InstanceId"])
    assert account.status(first) == "off"
    with pytest.raises(ConnectionRefusedError):
        account.command(first, "true")
    account.ec2.terminate_instances(InstanceIds=[first["InstanceId"]])
    wait_until(lambda: reach(account).keys() == {second["PrivateIpAddress"]}, SECONDS)


def test_a_machine_that_has_expired_ends_its_instance(account: Account) -> None:
    expires = {"path": "/etc/tango-cloud/expires", "content": f"{int(time.time()) + 4}\n"}
    instance = account.ready(UserData=account.user_data(write_files=[expires]))
    wait_until(lambda: account.state(instance) == "terminated", SECONDS)
    wait_until(lambda: reach(account) == {}, SECONDS)


def test_a_host_that_cannot_be_started_says_why(account: Account) -> None:
    nobody = account.launch(UserData=account.user_data(users=[{"name": "tango"}]))
    wait_until(lambda: account.status(nobody) != "booting", SECONDS)
    assert "an authorized key" in account.status(nobody)
    expires = {"path": "/etc/tango-cloud/expires", "content": "1000000000"}
    over = account.launch(UserData=account.user_data(write_files=[expires]))
    wait_until(lambda: account.status(over) != "booting", SECONDS)
    assert "which is over" in account.status(over)


def test_hosts_end_with_an_emulation_that_is_killed(tmp_path: Path) -> None:
    emulation = start(tmp_path)
    account = Account(emulation)
    instance = account.ready()
    account.command(instance, "setsid sleep 600 >/dev/null 2>&1 </dev/null &")
    account.launch()  # and one that has just begun
    processes = emulation.processes()
    assert any("sleep" in process.name() for process in processes)
    os.kill(processes[0].pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive
    wait_until(lambda: not processes_in(tmp_path), SECONDS)
    emulation.assert_nothing_left()


def processes_in(folder: Path) -> list[str]:
    """Command lines that name it."""
    lines = (
        " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
    )
    return [line for line in lines if str(folder) in line]


@pytest.fixture
def user() -> Iterator[User]:
    with another_user() as user:
        yield user


@pytest.mark.slow
def test_root_is_not_needed(user: User) -> None:
    """The same tests, run by another user: a whole deployment, and a fault of a host."""
    some = "test_two_processes_share_a_machine or test_a_wrong_host_key"
    suites = [f"{CHECKOUT}/tests/contract/test_{name}.py" for name in ("aws_vmms", "aws_faults")]
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(CHECKOUT), "-k", some]
    done = subprocess.run(
        user.command(user.python, "-m", "pytest", *options, *suites),
        env=user.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
