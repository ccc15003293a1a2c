"""What a machine is told at first boot, and what its scripts do, killed anywhere."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.machine import facts
from tango_cloud.providers import cloud_init
from tango_cloud.providers.protocol import Bootstrap

EXPIRES = dt.datetime(2030, 1, 31, 13, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
SCRIPTS = Path(str(files("tango_cloud.providers"))) / "first_boot"


def bootstrap(*authorized_keys: str) -> Bootstrap:
    key = asyncssh.generate_private_key("ssh-ed25519")
    return Bootstrap(
        key.export_private_key().decode(),
        key.export_public_key().decode(),
        authorized_keys or ("ssh-ed25519 AAAAclient",),
        EXPIRES,
    )


def told(given: Bootstrap) -> Any:
    head, _, body = cloud_init.user_data(given, limit=16 * 1024).partition("\n")
    assert head == "#cloud-config"
    return json.loads(body)


def written(config: Mapping[str, Any]) -> Mapping[str, str]:
    return {file["path"]: file["content"] for file in config["write_files"]}


def test_user_data_says_who_may_come_in_and_what_proves_the_machine() -> None:
    given = bootstrap()
    config = told(given)
    assert config["ssh_keys"]["ed25519_private"] == given.host_private_key
    assert config["ssh_keys"]["ed25519_public"] == given.host_public_key
    assert config["ssh_deletekeys"] is True
    assert config["ssh_genkeytypes"] == []
    assert (config["disable_root"], config["ssh_pwauth"]) == (True, False)
    login, job_user = config["users"]
    assert login["ssh_authorized_keys"] == ["ssh-ed25519 AAAAclient"]
    assert login["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert login["lock_passwd"] is True
    assert job_user["name"] == "autograde"
    assert not {"sudo", "ssh_authorized_keys"} & job_user.keys()


def test_user_data_is_plain_and_far_from_the_limit() -> None:
    text = cloud_init.user_data(bootstrap(), limit=16 * 1024)
    assert text.isascii()
    assert len(text) < 12 * 1024
    with pytest.raises(ConfigurationError, match="16384"):
        cloud_init.user_data(bootstrap("ssh-rsa " + "A" * 16384), limit=16 * 1024)


def test_the_expiry_is_an_absolute_moment_in_utc() -> None:
    content = written(told(bootstrap()))
    timer = content["/etc/systemd/system/tango-cloud-expiry.timer"]
    assert "OnCalendar=2030-01-31 12:30:00 UTC\n" in timer
    assert "Persistent=true\n" in timer
    assert content["/etc/tango-cloud/expires"] == f"{int(EXPIRES.timestamp())}\n"


def test_the_machine_knows_its_facts() -> None:
    config = told(bootstrap())
    content = written(config)
    machine = json.loads(content["/etc/tango-cloud/machine.json"])
    modes = {file["path"]: file["permissions"] for file in config["write_files"]}
    for verb in ("stage", "activate"):
        program, argument = machine["host_key"][verb]
        assert argument == verb
        assert modes[program] == "0755"
    assert [modes[command[0]] for command in config["runcmd"]] == ["0755"]
    assert machine.pop("job_user") == config["users"][1]["name"]
    assert facts.interpret(machine).work_dir == "/var/lib/tango-cloud"
    boot = content["/usr/local/lib/tango-cloud/boot"]
    assert f"JOB_USER={cloud_init.JOB_USER}\n" in boot


# The scripts, run in a folder, with stand-ins for what is the machine's

STEPS = """#!/bin/sh
# Kills the script that calls it when it is the step to be killed at.
count=$(($(cat "$T/count") + 1))
echo $count >"$T/count"
if [ "$count" = "$KILL_AT" ]; then kill -9 $PPID; exit 1; fi
exec /bin/%s "$@"
"""
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"$T/systemctl.log"
case $1 in
reload)
    [ "$2" = "$SERVER" ] || exit 5
    (sleep 0.2; cp "$T/key.pub" "$T/served") >/dev/null 2>&1 &
    ;;
enable) [ ! -e "$T/fail-$3" ] ;;
esac
"""
KEYSCAN = """#!/bin/sh
echo "127.0.0.1 $(cat "$T/served")"
"""
IP = """#!/bin/sh
case "$*" in
'-4 rule list') cat "$T/rules" ;;
'-4 rule add '*) shift 5; echo "100:	from all $*" >>"$T/rules" ;;
*) exit 1 ;;
esac
"""


@dataclass
class Box:
    """A machine's files, after cloud-init has written them."""

    folder: Path
    server: str = "sshd"
    first: str = field(init=False)

    def __post_init__(self) -> None:
        given = bootstrap()
        self.first = given.host_public_key
        (self.folder / "bin").mkdir()
        for name, text in {
            "mv": STEPS % "mv",
            "rm": STEPS % "rm",
            "systemctl": SYSTEMCTL,
            "ssh-keyscan": KEYSCAN,
            "ip": IP,
            "id": "#!/bin/sh\necho 1001\n",
        }.items():
            path = self.folder / "bin" / name
            path.write_text(text)
            path.chmod(0o755)
        for name, text in {
            "key": given.host_private_key,
            "key.pub": self.first,
            "served": self.first,
            "rules": "0:	from all lookup local\n",
            "expires": f"{int(EXPIRES.timestamp())}\n",
            "first-key.pub": self.first,
            "bootstrap": "",
            "first-boot": self.first,
            "count": "0",
        }.items():
            path = self.folder / name
            path.write_text(text)
            path.chmod(0o600)

    def run(
        self, script: str, *arguments: str, kill_at: int = 0
    ) -> subprocess.CompletedProcess[str]:
        (self.folder / "count").write_text("0")
        return subprocess.run(
            ["/bin/sh", SCRIPTS / f"{script}.sh", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "T": str(self.folder),
                "TANGO_CLOUD_ETC": str(self.folder),
                "TANGO_CLOUD_STATE": str(self.folder),
                "TANGO_CLOUD_HOST_KEY": str(self.folder / "key"),
                "SERVER": self.server,
                "KILL_AT": str(kill_at),
            },
        )

    def output(self, script: str, *arguments: str) -> str:
        done = self.run(script, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def key(self) -> str:
        """The public half of the private key in use."""
        key = asyncssh.read_private_key(self.folder / "key")
        return " ".join(key.export_public_key().decode().split()[:2])

    def served(self) -> str:
        return words(self.read("served"))

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


def words(public: str) -> str:
    return " ".join(public.split()[:2])


needs_tools = pytest.mark.skipif(
    not (shutil.which("ssh-keygen") and shutil.which("flock")), reason="needs OpenSSH and flock"
)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@needs_tools
@pytest.mark.parametrize("server", ["ssh", "sshd"])
def test_a_fresh_host_key_once(tmp_path: Path, server: str) -> None:
    box = Box(tmp_path, server)
    staged = box.output("host-key", "stage")
    assert words(staged) != words(box.first)
    assert box.output("host-key", "stage") == staged
    assert box.key() == box.served() == words(box.first), "staged is not in use"
    for _ in range(2):
        box.output("host-key", "activate")
        assert box.key() == box.served() == words(staged)
        assert box.output("host-key", "stage") == staged
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@needs_tools
@pytest.mark.parametrize("step", range(1, 4))
def test_killed_while_it_stages(box: Box, step: int) -> None:
    assert box.run("host-key", "stage", kill_at=step).returncode == -9
    assert box.key() == words(box.first)
    staged = box.output("host-key", "stage")
    box.output("host-key", "activate")
    assert box.key() == box.served() == words(staged) != words(box.first)


@needs_tools
@pytest.mark.parametrize("step", range(1, 4))
def test_killed_while_it_activates(box: Box, step: int) -> None:
    staged = box.output("host-key", "stage")
    assert box.run("host-key", "activate", kill_at=step).returncode == -9
    # What is on the books is still the truth: the first key, or the one that was staged.
    assert box.key() in {words(box.first), words(staged)}
    assert words(box.output("host-key", "stage")) == words(staged)
    box.output("host-key", "activate")
    assert box.key() == box.served() == words(staged)


@needs_tools
def test_no_host_key_before_first_boot_has_finished(box: Box) -> None:
    for marker in ("", "ssh-ed25519 AAAAof-the-machine-that-this-image-was-made-of\n"):
        (box.folder / "first-boot").write_text(marker)
        done = box.run("host-key", "stage")
        assert done.returncode == 1
        assert done.stderr == "first boot has not finished yet\n"
        assert done.stdout == ""
    assert not list(box.folder.glob("key.n*"))
    for arguments in ((), ("steal",), ("stage", "x")):
        assert "usage" in box.run("host-key", *arguments).stderr


@needs_tools
def test_a_server_that_does_not_reload_is_an_error(tmp_path: Path) -> None:
    box = Box(tmp_path, "another")
    box.output("host-key", "stage")
    assert "does not reload" in box.run("host-key", "activate").stderr


def test_first_boot_arms_everything_before_it_says_so(box: Box) -> None:
    (box.folder / "key.next").write_text("left in the image")
    box.output("first-boot")
    assert box.read("systemctl.log").splitlines() == [
        "daemon-reload",
        "enable --now tango-cloud-expiry.timer",
        "enable --now tango-cloud-boot.service",
    ]
    assert box.read("first-boot") == box.first
    assert not (box.folder / "key.next").exists()
    assert box.folder.stat().st_mode & 0o777 == 0o711


@pytest.mark.parametrize("unit", ["tango-cloud-boot.service", "tango-cloud-expiry.timer"])
def test_first_boot_without_its_guards_is_not_finished(box: Box, unit: str) -> None:
    (box.folder / f"fail-{unit}").touch()
    assert box.run("first-boot").returncode != 0
    assert not (box.folder / "first-boot").exists()


def test_every_boot_bars_the_jobs_from_the_metadata_service_once(box: Box) -> None:
    for _ in range(2):
        box.output("boot")
    assert box.read("rules").splitlines()[1:] == [
        "100:	from all to 169.254.169.254 uidrange 1001-1001 prohibit"
    ]
    assert not (box.folder / "systemctl.log").exists()


def test_a_boot_past_the_expiry_is_the_last(box: Box) -> None:
    (box.folder / "expires").write_text("1000000000\n")
    box.output("boot")
    assert box.read("systemctl.log") == "poweroff\n"
