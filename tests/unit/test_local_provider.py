"""The local provider without a machine: its inventory, its orders, its choices."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tango_cloud.core.errors import (
    ConfigurationError,
    NextMove,
    ProviderUnavailable,
    ProvisioningError,
    QuotaError,
    TangoCloudError,
    TerraformError,
)
from tango_cloud.core.model import (
    InstanceStatus,
    MachineKey,
    MachineRequest,
    Offer,
    Shape,
)
from tango_cloud.providers.local import LocalOptions, LocalProvider, PortTaken
from tango_cloud.providers.local_host import Host
from tango_cloud.providers.protocol import Bootstrap, Diagnosable, Provider, Strays

UID = "5f0a6c0e91d2"
Write = Callable[..., Path]


@pytest.fixture
def provider(tmp_path: Path) -> LocalProvider:
    return LocalProvider(LocalOptions(tmp_path / "root", images=("local.img", "other.img")), "prod")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an instance document; gives its path."""

    def write(uid: str = UID, deployment: str = "prod", **changes: object) -> Path:
        folder = tmp_path / "root" / "instances" / f"i-{uid}"
        folder.mkdir(parents=True, exist_ok=True)
        document: Mapping[str, object] = {
            "instance_id": f"i-{uid}",
            "uid": uid,
            "wave": "w1",
            "image": "local.img",
            "instance_type": "local",
            "zone": "local",
            "address": "127.64.0.1",
            "port": 10241,
            "username": "me",
            "status": "running",
            "created": "2030-01-31T11:00:00.250+00:00",
            "expires": "2030-01-31T12:00:00Z",
            "pid": None,
            "pid_started": None,
            "tags": {"tango-deployment": deployment, "tango-id": "1001", "tango-name": "a_20_b"},
        } | changes
        path = folder / "instance.json"
        new = folder / "new"
        new.write_text(json.dumps(document))
        new.replace(path)  # atomically, as the machine program does
        return path

    return write


def test_it_satisfies_the_protocols(provider: LocalProvider) -> None:
    as_provider: Provider = provider
    assert isinstance(as_provider, Diagnosable)
    assert isinstance(as_provider, Strays)


def test_the_folder_of_a_machine_whose_processes_are_all_dead_is_a_stray(
    provider: LocalProvider, write: Write
) -> None:
    never = 2**31 - 1
    write(pid=never, pid_started="of an earlier boot")
    write("00000000000b", "prod-2", pid=never, pid_started="of an earlier boot")
    write("00000000000c")
    (stray,) = provider.strays("prod")
    assert (stray.id, stray.kind) == (f"i-{UID}", "folder")
    assert stray.created == dt.datetime(2030, 1, 31, 11, 0, 0, 250_000, dt.UTC)


def test_the_folder_of_a_machine_that_never_came_to_be_is_a_stray(
    provider: LocalProvider, write: Write
) -> None:
    instances = write().parents[1]
    half = instances / ".new-i-00000000000d"
    half.mkdir()
    os.utime(half, (1_000_000, 1_000_000))
    (stray,) = provider.strays("prod")
    assert (stray.id, stray.kind) == ("i-00000000000d", "half-made folder")
    assert stray.created == dt.datetime.fromtimestamp(1_000_000, dt.UTC)


def test_a_folder_that_was_being_removed_is_a_stray(provider: LocalProvider, write: Write) -> None:
    left = write().parents[2] / "removing" / "i-00000000000e-4711"
    left.mkdir(parents=True)
    (stray,) = provider.strays("prod")
    assert (stray.id, stray.kind) == ("i-00000000000e", "half-removed folder")


def test_an_instance_is_what_its_document_says(provider: LocalProvider, write: Write) -> None:
    write()
    (found,) = provider.instances("prod")
    assert found.key == MachineKey("prod", 1001, "a b")
    assert (found.instance_id, found.uid, found.wave) == (f"i-{UID}", UID, "w1")
    assert (found.address, found.port, found.username) == ("127.64.0.1", 10241, "me")
    assert found.status is InstanceStatus.RUNNING
    assert found.created == dt.datetime(2030, 1, 31, 11, 0, 0, 250_000, dt.UTC)
    assert found.expires == dt.datetime(2030, 1, 31, 12, 0, tzinfo=dt.UTC)


def test_a_name_too_long_for_a_tag_is_given_as_the_tag(
    provider: LocalProvider, write: Write
) -> None:
    cut = "long_h_0123456789abcdef"
    write(tags={"tango-deployment": "prod", "tango-id": "1", "tango-name": cut})
    assert provider.instances("prod")[0].key.name == cut


def test_deployments_are_told_apart_exactly(provider: LocalProvider, write: Write) -> None:
    write("00000000000a", "prod")
    write("00000000000b", "prod-2")
    write("00000000000c", "_50_rod")  # `Prod` as a tag spells it
    for deployment, uid in (("prod", "a"), ("prod-2", "b"), ("Prod", "c")):
        assert [i.uid for i in provider.instances(deployment)] == [f"00000000000{uid}"]
    assert provider.instances("pro") == []


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", InstanceStatus.PENDING),
        ("running", InstanceStatus.RUNNING),
        ("invented tomorrow", InstanceStatus.UNKNOWN),
    ],
)
def test_statuses(provider: LocalProvider, write: Write, word: str, status: InstanceStatus) -> None:
    write(status=word)
    assert provider.instances("prod")[0].status is status


def test_a_machine_is_stopping_as_long_as_somebody_is_at_it(
    provider: LocalProvider, write: Write
) -> None:
    folder = os.open(write(status="stopping").parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert provider.instances("prod")[0].status is InstanceStatus.STOPPING
    os.close(folder)
    assert provider.instances("prod")[0].status is InstanceStatus.RUNNING


def test_a_program_that_is_killed_has_not_stopped_its_machines(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -signal.SIGKILL, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ProviderUnavailable, match="ended with -9"):
        provider.terminate([f"i-{UID}"])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_a_machine_lives_as_long_as_the_process_that_was_seen(
    provider: LocalProvider, write: Write
) -> None:
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cases = {
        f"{boot}:{ticks}": InstanceStatus.RUNNING,
        f"{boot}:{int(ticks) + 1}": InstanceStatus.GONE,  # the number's next owner
        f"another-boot:{ticks}": InstanceStatus.GONE,
    }
    for token, status in cases.items():
        write(pid=os.getpid(), pid_started=token)
        assert provider.instances("prod")[0].status is status, token
    dead = next(pid for pid in range(2, 1 << 22) if not psutil.pid_exists(pid))
    write(pid=dead, pid_started=f"{boot}:{ticks}")
    assert provider.instances("prod")[0].status is InstanceStatus.GONE


def test_a_changed_document_is_read_again(provider: LocalProvider, write: Write) -> None:
    write(status="pending")
    provider.instances("prod")
    write(status="running")
    assert provider.instances("prod")[0].status is InstanceStatus.RUNNING


def test_an_unchanged_document_is_not_read_again(
    provider: LocalProvider, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(deployment="somebody-else")
    provider.instances("prod")
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read again"))
    assert provider.instances("prod") == []


def test_what_vanishes_or_is_being_made_is_no_error(
    provider: LocalProvider, write: Write, tmp_path: Path
) -> None:
    assert provider.instances("prod") == []
    write().unlink()
    (tmp_path / "root" / "instances" / ".new-i-00000000000a").mkdir()
    assert provider.instances("prod") == []


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"tags": 3}'])
def test_what_cannot_be_read_is_an_error(
    provider: LocalProvider, write: Write, damage: str
) -> None:
    write("00000000000a")
    write().write_text(damage)
    with pytest.raises(ProviderUnavailable, match=UID):
        provider.instances("prod")


@pytest.mark.parametrize("lacking", ["port", "tags", "expires", "pid_started"])
def test_what_lacks_something_is_an_error(
    provider: LocalProvider, write: Write, lacking: str
) -> None:
    content = json.loads(write(pid=1).read_text())
    del content[lacking]
    write().write_text(json.dumps(content))
    with pytest.raises(ProviderUnavailable, match=UID):
        provider.instances("prod")


def test_a_root_that_is_a_file_is_an_error(provider: LocalProvider, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "instances").write_text("")
    with pytest.raises(ProviderUnavailable, match="cannot be listed"):
        provider.instances("prod")


def test_offers_are_this_host_or_every_reason_why_not(provider: LocalProvider) -> None:
    (offer,) = provider.offers(Shape("other.img", cores=1, memory_mib=1))
    assert (offer.provider, offer.hourly_usd) == ("local", 0.0)
    with pytest.raises(ConfigurationError) as caught:
        provider.offers(Shape("absent.img", cores=1 << 20, memory_mib=1 << 40))
    assert [fault.where for fault in caught.value.faults] == ["image", "cores", "memory"]


def test_an_order_holds_no_secret_and_the_user_data_all_of_it(provider: LocalProvider) -> None:
    expires = dt.datetime(2030, 1, 31, 13, 0, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    user_data = provider.user_data(
        Bootstrap("PRIVATE", "ssh-ed25519 A", ("ssh-ed25519 B",), expires)
    )
    assert json.loads(user_data) == {
        "host_private_key": "PRIVATE",
        "host_public_key": "ssh-ed25519 A",
        "authorized_keys": ["ssh-ed25519 B"],
        "expires": "2030-01-31T12:00:00Z",
    }
    request = MachineRequest(
        uid=UID,
        key=MachineKey("prod", 1001, "pool"),
        shape=Shape("local.img", disk_gib=8),
        offer=Offer("local", "local", "local", "local"),
        tags={"tango-deployment": "prod"},
        expires=expires,
        user_data=user_data,
    )
    assert provider.wave_machines([request]) == {
        UID: {
            "image": "local.img",
            "instance_type": "local",
            "zone": "local",
            "market": "on-demand",
            "disk_gib": 8,
            "tags": {"tango-deployment": "prod"},
            "expires": "2030-01-31T12:00:00Z",
            "home": None,
        }
    }


@pytest.mark.parametrize(
    ("said", "kind", "next_move"),
    [
        ("cannot listen on 127.64.0.1:10241: in use", PortTaken, NextMove.RETRY),
        ("OSError: [Errno 28] No space left on device", QuotaError, NextMove.NEXT_REGION),
        ("something else", ProvisioningError, NextMove.STOP),
    ],
)
def test_errors_are_classified_by_what_to_do_next(
    provider: LocalProvider, said: str, kind: type[TangoCloudError], next_move: NextMove
) -> None:
    error = provider.classify(TerraformError(["terraform", "apply"], 1, "", [said]))
    assert type(error) is kind
    assert error.next_move is next_move
    assert said in str(error)


FULL = Host(sshd_fault="", account_fault="", bwrap_fault="", addresses="127.64.0.0/10")
BARE = replace(FULL, sshd_fault="sshd not installed", bwrap_fault="bubblewrap is not installed")


@pytest.mark.parametrize(
    ("host", "server", "isolate", "chosen"),
    [
        (FULL, "auto", "auto", ("sshd", True)),
        (FULL, "auto", "no", ("asyncssh", False)),
        (FULL, "sshd", "no", ("sshd", False)),
        (FULL, "asyncssh", "auto", ("asyncssh", True)),
        (BARE, "auto", "auto", ("asyncssh", False)),
        (replace(FULL, sshd_fault="absent"), "auto", "auto", ("asyncssh", True)),
        (replace(FULL, account_fault="locked"), "auto", "auto", ("sshd", True)),
        (replace(FULL, bwrap_fault="absent"), "auto", "auto", ("asyncssh", False)),
    ],
)
def test_the_best_that_works_is_chosen(
    host: Host, server: str, isolate: str, chosen: tuple[str, bool]
) -> None:
    assert host.choose(server, isolate) == chosen  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "server", "isolate", "keys"),
    [
        (BARE, "sshd", "yes", ["local.isolate", "local.server"]),
        (replace(FULL, account_fault="locked"), "sshd", "no", ["local.server"]),
        (replace(FULL, bwrap_fault="forbidden"), "auto", "yes", ["local.isolate"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_go(
    host: Host, server: str, isolate: str, keys: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        host.choose(server, isolate)  # type: ignore[arg-type]
    assert [fault.where for fault in caught.value.faults] == keys
    checks = host.diagnose(server, isolate)  # type: ignore[arg-type]
    assert not any(check.ok for check in checks)
    assert all(check.remedy for check in checks)


def test_no_isolation_is_said_loudly_with_its_remedy() -> None:
    check = BARE.diagnose("auto", "auto")[-1]
    assert check.warning
    assert "NONE" in check.finding
    assert check.remedy == "apt-get install openssh-server bubblewrap"
    assert not any(check.warning for check in FULL.diagnose("auto", "auto"))
