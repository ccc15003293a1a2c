"""A whole machine with systemd and cloud-init, booted by QEMU as a cloud's would be.

Its user data is what `providers.cloud_init` makes. It reaches nothing, and nobody but this host
reaches its SSH port. Emulated in software: what takes a second here may take ten there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paramiko
from paramiko.hostkeys import HostKeyEntry

from tango_cloud.core.model import Endpoint
from tango_cloud.providers import cloud_init
from tango_cloud.providers.protocol import Bootstrap

from ..contract import servers

QEMU = shutil.which("qemu-system-x86_64")
IMAGE = Path(__file__).parents[2] / ".virtual-machine"
"""Where install.sh has put it."""
METADATA = "169.254.169.254"
_BOOT_SECONDS = 1200
_FACTS = "/etc/tango-cloud/machine.json"
_CGROUP = "/sys/fs/cgroup/tango-cloud-test"
# A server in a network of its own, because what is local to a machine is out of its rules' reach.
_METADATA_SERVICE = f"""
ip netns add metadata
ip link add there type veth peer name here netns metadata
ip addr add 169.254.169.1/24 dev there
ip link set there up
ip netns exec metadata ip addr add {METADATA}/24 dev here
ip netns exec metadata ip link set here up
mkdir -p /run/metadata
echo 'host_private_key: SECRET' >/run/metadata/user-data
systemd-run --quiet ip netns exec metadata python3 -m http.server --directory /run/metadata 80
"""
# Those whose parent (sudo) is no agent: the others were forked by one.
_KILL_AGENTS = """
for process in $(pgrep -f '[S]ystemExit'); do
    parent=$(ps -o ppid= -p $process)
    [ "$(ps -o comm= -p $process)" = python3 ] || continue
    [ "$(ps -o comm= -p $parent)" = python3 ] || kill -KILL $process
done
"""


def missing() -> str:
    """Why there is none on this host; empty when there is."""
    if QEMU is None:
        return "qemu-system-x86_64 is not installed (make virtual-machine installs it)"
    return "" if (IMAGE / ".done").exists() else "make virtual-machine has not been run"


@dataclass
class VirtualMachine(servers.Server):
    patience: float = 10.0
    ssh_port: int = 22
    _client: paramiko.SSHClient = field(default_factory=paramiko.SSHClient)

    @property
    def work_dir(self) -> Path:
        return Path("/var/lib/tango-cloud")

    @property
    def host_key_file(self) -> str:
        return "/etc/ssh/ssh_host_ed25519_key"

    def endpoint(self, **changes: Any) -> Endpoint:
        return super().endpoint(**{"sudo": True, **changes})

    def connect(self) -> None:
        """Log in, once the machine has booted to its end."""
        line = f"[127.0.0.1]:{self.port} {self.host_key}"
        entry = HostKeyEntry.from_line(line)
        assert entry is not None
        assert entry.key is not None
        self._client.get_host_keys().add(f"[127.0.0.1]:{self.port}", "ssh-ed25519", entry.key)
        key = paramiko.Ed25519Key.from_private_key_file(str(self.folder / "client"))
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self._is_ready(key):
            said = (self.folder / "console").read_text(errors="replace")[-2000:]
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(2)

    def _is_ready(self, key: paramiko.PKey) -> bool:
        with contextlib.suppress(OSError, paramiko.SSHException, EOFError):
            self._client.connect(
                "127.0.0.1", self.port, "tango", pkey=key, timeout=30, banner_timeout=60,
                auth_timeout=60, allow_agent=False, look_for_keys=False,
            )  # fmt: skip
            return self.shell("cat /var/lib/tango-cloud/first-boot") != ""
        return False

    def shell(self, command: str, given: bytes = b"") -> str:
        words = f"sudo -n /bin/sh -c {shlex.quote(command)}"
        source, output, _ = self._client.exec_command(words, timeout=300)
        source.write(given)
        source.channel.shutdown_write()
        return output.read().decode()

    def marked(self, word: str) -> list[str]:
        # In brackets, so that the pattern does not find the shell that looks for it.
        return self.shell(f"pgrep -af '[{word[0]}]{word[1:]}'; true").splitlines()

    def kill_agents(self) -> None:
        self.shell(_KILL_AGENTS)

    @contextlib.contextmanager
    def told(self, levels: list[str]) -> Iterator[VirtualMachine]:
        """The machine, for jobs at these levels only."""
        before = self.shell(f"cat {_FACTS}")
        facts = {**json.loads(before), "levels": levels, "cgroup": _CGROUP}
        self.shell(f"printf %s {shlex.quote(json.dumps(facts))} >{_FACTS}")
        yield self
        self.shell(f"printf %s {shlex.quote(before)} >{_FACTS}")

    def close(self) -> None:
        self._client.close()
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def booted(lifetime: dt.timedelta = dt.timedelta(hours=6)) -> Iterator[VirtualMachine]:
    """The machine, booted and set up by its user data; nothing of it is kept."""
    with servers.folder(None) as path:
        host_key = servers.write_keys(path)
        _write_seed(path, lifetime)
        (path / "console").touch()
        port = servers.free_port()
        with (path / "qemu.log").open("wb") as log:
            argv = _command(path, port)
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        machine = VirtualMachine(path, port, "tango", host_key, process)
        try:
            machine.connect()
            machine.shell(f"set -e; mkdir -p {_CGROUP}; {_METADATA_SERVICE}")
            yield machine
        finally:
            machine.close()


def _write_seed(path: Path, lifetime: dt.timedelta) -> None:
    bootstrap = Bootstrap(
        host_private_key=(path / "host").read_text(),
        host_public_key=(path / "host.pub").read_text(),
        authorized_keys=((path / "client.pub").read_text(),),
        expires=dt.datetime.now(dt.UTC) + lifetime,
    )
    seed = path / "seed"
    seed.mkdir()
    (seed / "user-data").write_text(cloud_init.user_data(bootstrap, limit=1 << 20))
    (seed / "meta-data").write_text(json.dumps({"instance-id": "i-1"}))


def _command(path: Path, port: int) -> list[str]:
    assert QEMU
    disk = f"file={IMAGE}/disk,format=raw,if=virtio,snapshot=on"
    seed = f"driver=vvfat,node-name=seed,dir={path}/seed,label=cidata,read-only=on"
    network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
    kernel = "root=LABEL=system rw console=ttyS0 net.ifnames=0 mitigations=off"
    return [
        *(QEMU, "-nodefaults", "-nographic", "-machine", "q35", "-accel", "tcg,tb-size=256"),
        *("-cpu", "max", "-smp", "2", "-m", "1024", "-serial", f"file:{path}/console"),
        *("-kernel", str(IMAGE / "kernel"), "-initrd", str(IMAGE / "initrd"), "-append", kernel),
        *("-drive", disk, "-blockdev", seed, "-device", "virtio-blk-pci,drive=seed"),
        *("-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
    ]
