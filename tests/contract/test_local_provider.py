"""The local provider: the contract, and what is special about clouds that are a folder.

Each test runs for sshd in bubblewrap, sshd alone, asyncssh's server alone, and that in bubblewrap.
"""

from __future__ import annotations

import datetime as dt
import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from tango_cloud.core.errors import ConfigurationError, ProviderUnavailable
from tango_cloud.core.model import InstanceStatus, MachineRequest
from tango_cloud.providers.local import PortTaken
from tango_cloud.providers.protocol import Baker, Recipe
from tango_cloud.terraform.modules import modules_root

from .local_cloud import Kind, connected, document_path, one, run
from .provider_contract import Cloud, Keys, ProviderContract


class TestLocalProvider(ProviderContract):
    pass


@pytest.mark.slow
def test_a_machine_of_a_baked_image_begins_with_its_home_and_with_keys_of_its_own(
    cloud: Cloud,
) -> None:
    provider = cloud.provider
    assert isinstance(provider, Baker)
    prepared, keys, _ = one(cloud)
    with connected(cloud, prepared, keys) as transport:
        script = "cd && mkdir -p course/bin && echo told >course/bin/tool && chmod 500 course"
        assert run(transport, script) == (0, b"", b"")
    recipe = Recipe("course.img", prepared.image, "0f" * 32)
    image_id = provider.bake(prepared.instance_id, "prod", recipe)
    machine, its_keys, wave = one(cloud, image="course.img")
    with connected(cloud, machine, its_keys) as transport:
        look = "cd && cat course/bin/tool && stat -c %a course && echo more >course/bin/tool"
        assert run(transport, look) == (0, b"told\n500\n", b"")
    another, another_s_keys, _ = one(cloud, image="course.img")
    with connected(cloud, another, another_s_keys) as transport:
        assert run(transport, "cat ~/course/bin/tool")[1] == b"told\n", "each has a copy"
    request = wave.requests[0]
    provider.remove_images([image_id])
    with pytest.raises(ConfigurationError, match=r"there is no 'course\.img'"):
        provider.wave_machines([request])


@pytest.mark.slow
def test_a_link_where_jobs_would_see_what_it_leads_to_is_refused(cloud: Cloud, kind: Kind) -> None:
    if not kind[1]:
        pytest.skip("not isolated")
    provider = cloud.provider
    assert isinstance(provider, Baker)
    prepared, keys, _ = one(cloud)
    with connected(cloud, prepared, keys) as transport:
        look = (
            "echo told >/course/word && cat ~/course/word && rm -r ~/course && ln -s /etc ~/course"
        )
        assert run(transport, look) == (0, b"told\n", b"")
    recipe = Recipe("linked.img", prepared.image, "0f" * 32)
    image_id = provider.bake(prepared.instance_id, "prod", recipe)
    wave = cloud.wave("prod", 1, image="linked.img")
    assert "is a link" in wave.errors[wave.uids[0]]
    assert set(cloud.listed("prod")) == {prepared.uid}
    provider.remove_images([image_id])


def test_a_start_that_is_cut_short_leaves_nothing(cloud: Cloud, kind: Kind) -> None:
    """As Terraform cuts its provisioners short when it is interrupted: by SIGKILL."""
    if kind[0] != "asyncssh":
        pytest.skip("sshd is there before it can be cut short")
    wave = cloud.wave("prod", 0)
    uid = "00000000beef"
    request = _order(cloud, uid)
    machine = modules_root() / "local" / "wave" / "machine"
    start = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(machine), "start"],
        env={"TANGO_MACHINE": json.dumps(request), "TANGO_USER_DATA": _user_data(cloud)},
    )
    path = cloud.folder.parent / "local cloud" / "instances" / f"i-{uid}" / "instance.json"
    deadline = time.monotonic() + 20
    while not (path.exists() and json.loads(path.read_text())["pid"]):
        assert time.monotonic() < deadline
    start.kill()
    start.wait()
    cloud.wait_until("prod", ())
    while path.parent.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    cloud.destroy(wave)


def test_a_stop_that_is_cut_short_leaves_a_machine_that_can_be_stopped(cloud: Cloud) -> None:
    wave = cloud.wave("prod", 1)
    (machine,) = cloud.listed("prod").values()
    program = modules_root() / "local" / "wave" / "machine"
    killed = "stop.kill = lambda _: os.kill(os.getpid(), signal.SIGKILL)"
    stop = (
        f"import os, pathlib, signal, sys; sys.path.insert(0, sys.argv[1]); import stop; {killed}"
    )
    root = str(cloud.folder.parent / "local cloud")
    argv = [sys.executable, "-I", "-S", "-B", "-c"]
    argv += [f"{stop}; stop.stop(pathlib.Path(sys.argv[2]), sys.argv[3:])"]
    ended = subprocess.run([*argv, str(program), root, machine.instance_id], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert cloud.listed("prod")[machine.uid].status is InstanceStatus.RUNNING
    cloud.provider.terminate([machine.instance_id])
    assert not cloud.listed("prod")
    cloud.destroy(wave)


def _order(cloud: Cloud, uid: str) -> dict[str, object]:
    envelope = cloud.envelope("prod")
    assert isinstance(envelope, dict)
    request = cloud._request("prod", "w", 1, uid, Keys.make(), dt.timedelta(minutes=5), "n")
    described = cloud.provider.wave_machines([request])[uid]
    assert isinstance(described, dict)
    return {
        **described,
        **{name: envelope[name] for name in ("root", "server", "isolate")},
        "uid": uid,
        "instance_id": f"i-{uid}",
        "wave": "w",
        "address": "127.0.0.1",
        "port": 10239,
    }


def _user_data(cloud: Cloud) -> str:
    keys = Keys.make()
    return json.dumps(
        {
            "host_private_key": keys.private,
            "host_public_key": keys.public,
            "authorized_keys": [cloud.client.public],
        }
    )


def test_what_an_interrupted_terraform_was_starting_ends_by_itself(cloud: Cloud) -> None:
    """Nobody would ever remove it: it is in no state, or as what failed there."""
    wave = cloud.wave("prod", 8, interrupt=True)
    assert wave.failure is not None
    known = set(wave.uids) - set(wave.errors)
    assert known
    deadline = time.monotonic() + cloud.gone_within
    root = cloud.folder.parent / "local cloud"
    while True:
        listed = cloud.listed("prod")
        assert known <= set(listed)
        # A machine may have come to run just before its start was killed: tags find it.
        expected = {instance.instance_id for instance in listed.values()}
        present = {path.name for path in (root / "instances").iterdir()}
        pending = [i for i in listed.values() if i.status is InstanceStatus.PENDING]
        if present == expected and not pending:
            break
        assert time.monotonic() < deadline, (present, expected, pending)
        time.sleep(0.05)


def test_a_port_that_is_taken_fails_that_machine_alone(cloud: Cloud) -> None:
    listeners: list[socket.socket] = []

    def occupy(request: MachineRequest) -> MachineRequest:
        if listeners:
            return request
        numbers = int(request.uid[:6], 16) % 2**22
        address = f"127.{64 + (numbers >> 16)}.{(numbers >> 8) & 255}.{numbers & 255}"
        listener = socket.create_server((address, 10240 + int(request.uid[6:], 16) % 22528))
        listeners.append(listener)
        return request

    wave = cloud.wave("prod", 2, change=occupy)
    listeners[0].close()
    assert wave.failure is not None
    assert set(wave.errors) == {wave.uids[0]}
    assert isinstance(cloud.provider.classify(wave.failure), PortTaken)
    assert set(cloud.listed("prod")) == {wave.uids[1]}


def test_a_machine_that_would_be_dead_already_is_refused(cloud: Cloud) -> None:
    wave = cloud.wave("prod", 1, life=dt.timedelta(seconds=-5))
    assert wave.failure is not None
    assert "is over" in wave.errors[wave.uids[0]]
    assert cloud.listed("prod") == {}


def test_a_damaged_document_is_an_error_and_not_an_empty_list(cloud: Cloud) -> None:
    instance, _, wave = one(cloud)
    path = document_path(cloud, instance)
    whole = path.read_text()
    for damaged in (whole[:-20], "[]", "{}", json.dumps(json.loads(whole) | {"port": "x"})):
        path.write_text(damaged)
        with pytest.raises(ProviderUnavailable, match=instance.instance_id):
            cloud.provider.instances("prod")
    path.write_text(whole)
    assert set(cloud.listed("prod")) == set(wave.uids)


def test_terminate_refuses_what_is_no_instance_id(cloud: Cloud) -> None:
    with pytest.raises(ProviderUnavailable, match="not an instance id"):
        cloud.provider.terminate(["../.."])


def test_a_document_of_another_version_counts_as_present(cloud: Cloud) -> None:
    instance, _, _ = one(cloud)
    path = document_path(cloud, instance)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "hibernating"}))
    assert cloud.listed("prod")[instance.uid] == replace(instance, status=InstanceStatus.UNKNOWN)
