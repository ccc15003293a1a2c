"""The `ssh` transport and the driver on a whole machine, set up by our user data."""

from __future__ import annotations

import datetime as dt
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tango_cloud.core.errors import HostKeyMismatch, MachineUnreachable
from tango_cloud.machine import bundle
from tango_cloud.transports.protocol import Session
from tango_cloud.transports.ssh import SshTransport

from ..virtual_machine import machine as virtual_machine
from ..virtual_machine.machine import VirtualMachine, missing
from .jobs import Runner, limits, marker, wait_until_gone, wait_until_there

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() != "", reason=missing())]

CONNECT_SECONDS = 120.0
JOB_SECONDS = 200.0


@pytest.fixture
def session(whole_machine: VirtualMachine) -> Iterator[Session]:
    session = SshTransport().connect(whole_machine.endpoint(), CONNECT_SECONDS)
    yield session
    session.close()


@pytest.fixture
def job(session: Session, tmp_path: Path) -> Runner:
    return Runner(session, tmp_path, JOB_SECONDS)


def test_first_boot_has_done_all_it_should(whole_machine: VirtualMachine) -> None:
    assert whole_machine.shell("cloud-init status --wait").strip() == "status: done"
    assert whole_machine.shell("systemctl --failed --no-legend") == ""
    units = "tango-cloud-boot.service tango-cloud-expiry.timer"
    assert whole_machine.shell(f"systemctl is-active {units}") == "active\nactive\n"


def test_a_job_gets_the_strongest_level(session: Session, job: Runner) -> None:
    report = session.report()
    assert (report.level, report.missing) == ("systemd", ())
    assert report.separate_user
    outcome, output = job.run("cat given; id -un; exit 3", files={"given": "content\n"})
    assert (outcome.level, outcome.exit_status) == ("systemd", 2)
    assert output.startswith(b"Autodriver: Job exited with status 2\ncontent\nautograde\n")


def test_output_comes_as_it_is_printed(session: Session, job: Runner) -> None:
    job.put("echo one; sleep 3; echo two")
    heard: list[tuple[float, bytes]] = []
    session.run(
        limits(wall_seconds=JOB_SECONDS), lambda data: heard.append((time.monotonic(), data))
    )
    assert b"".join(data for _, data in heard) == b"one\ntwo\n"
    assert heard[-1][0] - heard[0][0] > 2


def test_a_job_that_outlives_its_time(whole_machine: VirtualMachine, job: Runner) -> None:
    word = marker()
    outcome, output = job.run(f"echo begun; sh -c 'sleep 600; true' {word}", wall_seconds=5)
    assert outcome.timed_out
    assert output.startswith(b"Autodriver: Job timed out after 5 seconds\nbegun\n")
    assert not whole_machine.marked(word)


def test_cancelling(whole_machine: VirtualMachine, session: Session, job: Runner) -> None:
    word = marker()
    job.put(f"sh -c 'sleep 600; true' {word}")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(session.run, limits(wall_seconds=JOB_SECONDS))
        wait_until_there(word, 60, whole_machine.marked)
        session.cancel()
        with pytest.raises(MachineUnreachable):
            running.result(timeout=30)
    assert not whole_machine.marked(word)


def test_the_unit_goes_with_the_agent(whole_machine: VirtualMachine, job: Runner) -> None:
    units = "systemctl list-units --all --no-legend 'tango-cloud-*.scope'"
    job.run("true")
    assert whole_machine.shell(units)
    job.session.close()
    wait_until_gone("a unit", 30, lambda _: whole_machine.shell(units))
    assert whole_machine.shell("ls -d /sys/fs/cgroup/system.slice/tango-cloud-*.scope") == ""


def test_a_fresh_host_key_takes_the_place_of_the_first(
    whole_machine: VirtualMachine, session: Session
) -> None:
    first, fresh = whole_machine.host_key, session.stage_host_key()
    assert first != fresh
    session.activate_host_key()
    whole_machine.host_key = fresh
    SshTransport().connect(whole_machine.endpoint(), CONNECT_SECONDS).close()
    with pytest.raises(HostKeyMismatch):
        SshTransport().connect(whole_machine.endpoint(host_keys=(first,)), CONNECT_SECONDS)


AUTOLAB = """
set -e
useradd --create-home autolab
cat >/usr/local/bin/autodriver
chmod 755 /usr/local/bin/autodriver
echo 'autolab ALL=(root) NOPASSWD: /usr/local/bin/autodriver --agent' >/etc/sudoers.d/autolab
"""
TANGOS_JOB = """
cd && mkdir autolab && printf 'all:\\n\\t@id -un; sleep 1\\n\\t@exit 7\\n' >autolab/Makefile
autodriver -u 100 -f 1000000 -t 100 -o 10000 autolab >feedback 2>&1; echo status $?
ls -d autolab; cat feedback
"""


def test_autodriver_as_tangos_own_account_calls_it(whole_machine: VirtualMachine) -> None:
    whole_machine.shell(AUTOLAB, bundle.autodriver())
    said = whole_machine.shell(f"su autolab -c {shlex.quote(TANGOS_JOB)} 2>&1")
    assert said.startswith("status 0\n")
    assert "Autodriver: Job exited with status 2\nautograde\n" in said
    assert "No such file" in said


def test_it_ends_by_itself_at_its_expiry() -> None:
    """By nothing but its own timer: nobody asks for it, and nobody is connected."""
    lifetime = dt.timedelta(minutes=5)
    begun = time.monotonic()
    with virtual_machine.booted(lifetime) as machine:
        assert machine.process.wait(timeout=2 * lifetime.total_seconds()) == 0
    assert time.monotonic() - begun > 0.9 * lifetime.total_seconds()
