"""What cloud-init does at first boot, as far as our user data asks for it. Runs inside the host.

The config has been checked by `cloud_config.py`; what is not known here never comes this far.
"""

from __future__ import annotations

import base64
import gzip
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

RUNCMD = "/var/lib/cloud/instance/scripts/runcmd"
_KEYS = Path("/etc/ssh")
_SUDOERS = Path("/etc/sudoers.d/90-cloud-init-users")
_NO_PASSWORD = "*"
"""Not `!`: sshd without PAM lets nobody in whose account it takes for locked."""


def prepare(config: dict[str, Any]) -> list[str]:
    """Everything before `runcmd`, in cloud-init's order. What went wrong, in words."""
    faults = []
    steps = (_write_files, _make_users, _make_host_keys, _configure_sshd, _write_runcmd)
    for step in steps:
        try:
            step(config)
        except (OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
            faults.append(f"{step.__name__.strip('_')}: {type(error).__name__}: {error}")
    return faults


def published(config: dict[str, Any]) -> list[str]:
    """The public host keys that the cloud is to be told."""
    if not config.get("ssh_publish_hostkeys", {}).get("enabled"):
        return []
    return [path.read_text().strip() for path in sorted(_KEYS.glob("ssh_host_*_key.pub"))]


def sshd() -> str:
    """Its full path, which it starts again for each connection."""
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if found is None:
        raise FileNotFoundError("sshd")
    return found


def _write_files(config: dict[str, Any]) -> None:
    for file in config.get("write_files", ()):
        path = Path(file["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if file.get("append") else "wb") as stream:
            stream.write(_decoded(file.get("content", ""), file.get("encoding", "text/plain")))
        path.chmod(int(str(file.get("permissions", "0644")), 8))
        user, _, group = file.get("owner", "root:root").partition(":")
        os.chown(path, _number("/etc/passwd", user), _number("/etc/group", group or user))


def _decoded(content: str, encoding: str) -> bytes:
    if encoding == "text/plain":
        return content.encode()
    data = base64.b64decode(content)
    return gzip.decompress(data) if encoding.startswith("gz") else data


def _make_users(config: dict[str, Any]) -> None:
    rules = []
    for user in config.get("users", ()):
        name = user["name"]
        if name not in _names("/etc/passwd"):
            _add_account(user)
        home, uid, gid = _account(name)
        for group in str(user.get("groups", "")).replace(",", " ").split():
            _join(name, group)
        if keys := user.get("ssh_authorized_keys"):
            folder = Path(home, ".ssh")
            folder.mkdir(mode=0o700, exist_ok=True)
            file = folder / "authorized_keys"
            file.write_text("".join(f"{key}\n" for key in keys))
            file.chmod(0o600)
            for path in (folder, file):
                os.chown(path, uid, gid)
        sudo = user.get("sudo") or []
        rules += [f"{name} {rule}\n" for rule in ([sudo] if isinstance(sudo, str) else sudo)]
    if rules:
        _SUDOERS.parent.mkdir(parents=True, exist_ok=True)
        _SUDOERS.write_text("".join(rules))
        _SUDOERS.chmod(0o440)


def _add_account(user: dict[str, Any]) -> None:
    """By hand: `useradd` takes longer than all the rest of a first boot."""
    name, system = user["name"], bool(user.get("system"))
    home = user.get("homedir", f"/home/{name}")
    taken = {int(line.split(":")[2]) for line in _lines("/etc/passwd") + _lines("/etc/group")}
    choice = range(999, 99, -1) if system else range(1000, 60000)
    number = int(user.get("uid", next(number for number in choice if number not in taken)))
    shell, gecos = user.get("shell", "/bin/bash"), user.get("gecos", "")
    for path, line in (
        ("/etc/passwd", f"{name}:x:{number}:{number}:{gecos}:{home}:{shell}"),
        ("/etc/group", f"{name}:x:{number}:"),
        ("/etc/shadow", f"{name}:{_NO_PASSWORD}:19000:0:99999:7:::"),
    ):
        with open(path, "a") as file:
            file.write(f"{line}\n")
    if not (system or user.get("no_create_home")):
        skeleton = "/etc/skel"
        if os.path.isdir(skeleton):
            shutil.copytree(skeleton, home, symlinks=True, dirs_exist_ok=True)
        os.makedirs(home, exist_ok=True)
        for folder, _, files in os.walk(home):
            for path in (folder, *(os.path.join(folder, file) for file in files)):
                os.chown(path, number, number, follow_symlinks=False)
        os.chmod(home, 0o700)


def _join(name: str, group: str) -> None:
    lines = _lines("/etc/group")
    numbers = [number for number, line in enumerate(lines) if line.split(":")[0] == group]
    if not numbers:
        raise LookupError(f"there is no group {group}")
    line = lines[numbers[0]]
    lines[numbers[0]] = f"{line}{'' if line.endswith(':') else ','}{name}"
    Path("/etc/group").write_text("".join(f"{line}\n" for line in lines))


def _make_host_keys(config: dict[str, Any]) -> None:
    """An image never has any, so those of this machine go whatever `ssh_deletekeys` says."""
    for path in _KEYS.glob("ssh_host_*"):
        path.unlink()
    given = config.get("ssh_keys", {})
    for name, key in given.items():
        kind, _, half = name.rpartition("_")
        file = _KEYS / f"ssh_host_{kind}_key{'.pub' if half == 'public' else ''}"
        file.write_text(key if key.endswith("\n") else f"{key}\n")
        file.chmod(0o644 if half == "public" else 0o600)
    kinds = config.get("ssh_genkeytypes", ["ed25519"])
    for kind in () if given else kinds:
        argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(_KEYS / f"ssh_host_{kind}_key")]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def _configure_sshd(config: dict[str, Any]) -> None:
    """The image's own configuration, with what cloud-init changes in it."""
    root = "no" if config.get("disable_root", True) else "prohibit-password"
    passwords = "yes" if config.get("ssh_pwauth") else "no"
    kinds = [path.name for path in _KEYS.glob("ssh_host_*_key")]
    lines = [
        "Port 22",
        "AddressFamily inet",
        *(f"HostKey /etc/ssh/{name}" for name in sorted(kinds)),
        "PidFile /run/sshd.pid",
        f"PermitRootLogin {root}",
        f"PasswordAuthentication {passwords}",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "UseDNS no",
        "PrintMotd no",
        "MaxStartups 500",
        "MaxSessions 500",
        "Subsystem sftp internal-sftp",
    ]
    (_KEYS / "sshd_config").write_text("".join(f"{line}\n" for line in lines))


def _write_runcmd(config: dict[str, Any]) -> None:
    path = Path(RUNCMD)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        command if isinstance(command, str) else shlex.join(map(str, command))
        for command in config.get("runcmd", ())
    )
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o700)


def _lines(path: str) -> list[str]:
    return [line for line in Path(path).read_text().splitlines() if line.count(":") >= 3]


def _names(path: str) -> set[str]:
    return {line.split(":")[0] for line in _lines(path)}


def _number(path: str, name: str) -> int:
    for line in _lines(path):
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2])
    raise LookupError(f"{path} has no {name}")


def _account(name: str) -> tuple[str, int, int]:
    for line in _lines("/etc/passwd"):
        fields = line.split(":")
        if fields[0] == name:
            return fields[5], int(fields[2]), int(fields[3])
    raise LookupError(f"there is no user {name}")
