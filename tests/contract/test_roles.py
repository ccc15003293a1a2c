"""The roles that prepare a machine: each applied twice to a real one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tango_cloud.core.errors import (
    HostKeyMismatch,
    InputError,
    MachineUnreachable,
    PreparationFailed,
)
from tango_cloud.core.model import Endpoint
from tango_cloud.transports.ansible.host import NAME, Host
from tango_cloud.transports.ansible.playbooks import events
from tango_cloud.transports.ansible.preparing import check, prepare, seal

from . import servers
from .own_system import own_system

SECONDS = 300.0
PACKAGE = "tango-cloud-test-course"
pytestmark = pytest.mark.skipif(
    shutil.which("ssh") is None, reason="OpenSSH's client is not installed"
)
slow = pytest.mark.slow  # each run starts Ansible, and each task is a second's work


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Files of a machine: a package, an index of it, and nowhere else to get packages from."""
    apt = ["/usr/bin/python3", "-c", "import apt"]
    if shutil.which("dpkg-deb") is None or subprocess.run(apt, check=False).returncode:
        pytest.skip("needs dpkg and python3-apt")
    top = tmp_path_factory.mktemp("package")
    control = (
        f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\n"
        "Maintainer: The tests <tests@example.invalid>\nDescription: a course's package\n"
    )
    (top / "tree" / "DEBIAN").mkdir(parents=True)
    (top / "tree" / "DEBIAN" / "control").write_text(control)
    program = top / "tree" / "usr" / "bin" / PACKAGE
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho installed\n")
    program.chmod(0o755)
    package = top / "course.deb"
    subprocess.run(["dpkg-deb", "--build", top / "tree", package], check=True, capture_output=True)
    content = package.read_bytes()
    index = (
        f"{control}Filename: ./course.deb\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
    return [
        {
            "path": "/srv/course/course.deb",
            "encoding": "b64",
            "content": base64.b64encode(content).decode(),
        },
        {"path": "/srv/course/Packages", "content": index},
        {"path": "/etc/apt/sources.list", "content": "deb [trusted=yes] file:/srv/course ./\n"},
    ]


_FORGET = [["find", "/etc/apt/sources.list.d", "/var/lib/apt/lists", "-type", "f", "-delete"]]
"""What the tests' own machine knows of packages."""


@pytest.fixture(scope="module")
def machine(repository: list[dict[str, str]]) -> Iterator[Endpoint]:
    with own_system(repository, _FORGET) as endpoint:
        yield endpoint


def write(folder: Path, *tasks: object, hosts: str = "all") -> Path:
    """A playbook in a folder of its own."""
    play = {"name": "A course", "hosts": hosts, "gather_facts": False, "tasks": list(tasks)}
    folder.mkdir(exist_ok=True)
    path = folder / "course.yml"
    path.write_text(yaml.safe_dump([play]))
    return path


def role(name: str, **variables: object) -> dict[str, object]:
    return {"ansible.builtin.import_role": {"name": name}, "vars": variables}


def command(*argv: str, **more: object) -> dict[str, object]:
    return {"ansible.builtin.command": {"argv": list(argv)}, "changed_when": False, **more}


@slow
def test_a_machine_is_prepared_and_then_nothing_is_left_to_do(
    machine: Endpoint, tmp_path: Path
) -> None:
    course = write(
        tmp_path,
        role("packages", packages_names=[PACKAGE]),
        command(PACKAGE),
        command("test", "-d", "/home/output"),
        command("id", "autolab"),
    )
    check(course)
    tasks: list[str] = []
    first = prepare(machine, course, on_task=tasks.append, timeout=SECONDS)
    assert "Install what apt learns of" in tasks
    assert "The driver runs it as Tango would, and takes it away" in tasks
    assert first.changed >= 4  # the package, two accounts and Tango's output folder
    assert first.ok > first.changed
    again = prepare(machine, course, timeout=SECONDS)
    assert again.changed == 0
    assert again.left_out == ()
    assert shutil.which(PACKAGE) is None


@slow
@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("driver", {"driver_packages": [PACKAGE], "driver_optional_packages": ["no-such-one"]}),
        ("packages", {"packages_names": [PACKAGE]}),
        ("autograde_user", {"autograde_user_name": "somebody"}),
        ("tango_layout", {"tango_layout_user": "someone", "tango_layout_home": "/srv"}),
    ],
)
def test_a_role_applied_twice_changes_nothing_the_second_time(
    repository: list[dict[str, str]], tmp_path: Path, name: str, variables: dict[str, object]
) -> None:
    with own_system(repository, _FORGET) as machine:
        course = write(tmp_path, role(name, **variables))
        first, second = changes(applied(machine, course, course))
    assert first > 0
    assert second == 0


def applied(machine: Endpoint, *playbooks: Path) -> list[Mapping[str, Any]]:
    """What Ansible told of them, one after another over one connection."""
    with contextlib.closing(Host(machine, SECONDS)) as host:
        return list(events(playbooks, {NAME: host.variables}, {}, lambda: False))


def changes(told: Iterable[Mapping[str, Any]]) -> list[int]:
    """How many tasks of each playbook changed the machine."""
    sums = [event["event_data"] for event in told if event["event"] == "playbook_on_stats"]
    totals = [0, *(sum(one["changed"].values()) for one in sums)]
    return [after - before for before, after in itertools.pairwise(totals)]


@slow
def test_a_sealed_machine_has_nothing_of_ours_and_lets_nobody_in(tmp_path: Path) -> None:
    secrets = [
        {"path": path, "content": "secret"}
        for path in (
            "/root/.bash_history",
            "/home/x/.python_history",
            "/var/lib/cloud/instances/i-1/user-data.txt",
            "/var/log/course/secret.log",
            "/etc/machine-id",
        )
    ]
    look = (
        "find /home /root -name '.*_history' -o -name authorized_keys;"
        "find /etc/ssh /etc/systemd/system -name 'ssh_host_*' -o -name 'tango-cloud*';"
        "find /etc/tango-cloud /usr/local/lib/tango-cloud /var/lib/tango-cloud /var/lib/cloud"
        " /var/log /etc/machine-id -type f -size +0; true"
    )
    with own_system(secrets) as machine:
        sealing = write(tmp_path / "seal", role("seal"))
        looking = write(tmp_path / "look", command("sh", "-c", look, name="Look"))
        told = applied(machine, looking, sealing, sealing, looking)
        before, after = (
            event["event_data"]["res"]["stdout"].split()
            for event in told
            if event["event"] == "runner_on_ok" and event["event_data"]["task"] == "Look"
        )
        assert {secret["path"] for secret in secrets} < set(before)
        assert "/etc/tango-cloud/machine.json" in before
        assert "/etc/ssh/ssh_host_ed25519_key" in before
        assert "/home/tango/.ssh/authorized_keys" in before
        assert not after
        first, second = changes(told)[1:3]
        assert first > 0
        assert second == 0


@slow
def test_nobody_connects_to_a_machine_that_was_prepared_and_sealed(
    repository: list[dict[str, str]],
) -> None:
    with own_system(repository) as machine:
        assert prepare(machine, None, timeout=SECONDS).changed > 0
        seal(machine, timeout=SECONDS)
        with pytest.raises(MachineUnreachable):
            prepare(machine, None, timeout=SECONDS)


@slow
def test_a_playbook_that_fails_is_told_by_its_task(machine: Endpoint, tmp_path: Path) -> None:
    rescued = {"block": [command("false", name="Try")], "rescue": [command("true")]}
    course = write(tmp_path, rescued, role("packages", packages_names=["no-such-package"]))
    with pytest.raises(PreparationFailed, match=r"install.yml:\d+.*apt.*no-such-package") as failed:
        prepare(machine, course, timeout=SECONDS)
    assert failed.value.task == "Install what apt learns of"
    elsewhere = write(tmp_path, command("true"), hosts="webservers")
    with pytest.raises(PreparationFailed, match="webservers"):
        prepare(machine, elsewhere, timeout=SECONDS)
    for_ever = write(tmp_path, command("sleep", "1000", name="Sleep"))
    with pytest.raises(PreparationFailed, match="not done in time"):
        prepare(machine, for_ever, timeout=15)


def start_of_another_s() -> AbstractContextManager[servers.Server]:
    """A machine that shares its host's system."""
    if servers.SSHD and servers.BWRAP:
        return servers.openssh_in_bubblewrap()
    return servers.asyncssh_server()


def test_where_the_system_is_another_s_packages_are_looked_for(tmp_path: Path) -> None:
    course = write(tmp_path, role("packages", packages_names=["no-such-package"]))
    with (
        start_of_another_s() as machine,
        pytest.raises(PreparationFailed, match="not installed: no-such-package"),
    ):
        prepare(machine.endpoint(), course, timeout=SECONDS)


@slow
def test_where_the_system_is_another_s_the_course_is_applied_and_no_more(tmp_path: Path) -> None:
    there = {"ansible.builtin.copy": {"content": "x", "dest": "~/there", "mode": "0600"}}
    course = write(tmp_path, there)
    with start_of_another_s() as machine:
        done = prepare(machine.endpoint(), course, timeout=SECONDS)
        assert done.changed == 1
        assert "this machine shares its host's system" in done.left_out[0]
        assert prepare(machine.endpoint(), course, timeout=SECONDS).changed == 0
        with pytest.raises(PreparationFailed, match="cannot be sealed"):
            seal(machine.endpoint(), timeout=SECONDS)


@slow
def test_a_wrong_host_key_ends_it(tmp_path: Path) -> None:
    start = servers.openssh if servers.SSHD else servers.asyncssh_server
    with start() as machine:
        wrong = machine.endpoint(host_keys=(servers.write_keys(tmp_path),))
        with pytest.raises(HostKeyMismatch):
            prepare(wrong, None, timeout=SECONDS)


def test_what_ansible_cannot_read_is_refused_before_there_is_a_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-role"):
        check(write(tmp_path, role("no-such-role")))
