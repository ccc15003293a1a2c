"""A machine's files: its folder, its configuration, and what it tells the driver."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from folder import (
    MachineError,
    instance_folder,
    outside_work_dir,
    staging_folder,
    write_document,
    write_private,
)
from isolation import INSIDE, SYSTEM_PATH, login_name, which, write_identity
from processes import started

# systemd's table of user ids leaves 1879048192 to 2147483647 to nobody: no distribution, container
# or dynamic user is there. Each machine's jobs get one of these.
FIRST_JOB_USER = 1879048192
JOB_USERS = 2147483647 - FIRST_JOB_USER
COPIED = (
    "instance_id", "uid", "wave", "image", "instance_type", "zone", "market", "address", "port",
    "expires", "tags", "server", "isolate",
)  # fmt: skip
"""What the instance document takes over from the order as it stands."""


def make_folder(root, order, secret, supervisor):
    """The machine's folder with all its files, and its document saying `pending`.

    Made under another name and renamed, so that no listing sees a folder without its document.
    """
    folder = instance_folder(root, order["instance_id"])
    staging = staging_folder(root, order["instance_id"])
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    isolated, as_root = order["isolate"], os.geteuid() == 0
    job_user = FIRST_JOB_USER + int(order["uid"], 16) % JOB_USERS if as_root else None
    inside = seen_as(folder, order)
    staging.mkdir(mode=0o700)
    (staging / "inside").mkdir(mode=0o755)
    for name in ("etc", "home", "run", "work"):
        (staging / "inside" / name).mkdir(mode=0o700)
    if order.get("home"):
        copy_home(Path(order["home"]), staging / "inside" / "home")
    if isolated:
        make_course(staging / "inside" / "home" / "course")
    for name in ("tmp", "shm"):
        (staging / name).mkdir()
        (staging / name).chmod(0o1777)
    if as_root and not isolated:
        work_dir = outside_work_dir(order["instance_id"])
        work_dir.mkdir(mode=0o711)
    else:
        work_dir = inside / "work"
        (staging / "inside" / "work").chmod(0o711 if as_root else 0o700)
    program = Path(__file__).resolve().parent
    shutil.copytree(program, staging / "program", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("host_key.py", "asyncssh_server.py"):
        shutil.copyfile(program / name, staging / "inside" / "etc" / name)
    username = login_name()
    if isolated:
        write_identity(staging / "identity", username, job_user)
    machine = describe(order, inside, work_dir, job_user, username)
    write_etc(staging / "inside" / "etc", machine, secret)
    document = {key: order[key] for key in COPIED} | {
        "status": "pending",
        "username": username,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "job_user": job_user,
        "pid": None,
        "pid_started": None,
        "supervisor": supervisor,
        "supervisor_started": started(supervisor),
    }
    write_document(staging, document)
    staging.rename(folder)
    return folder


def copy_home(image, home):
    """Fill the home of a machine from that of an image. Raises MachineError when it is not there,
    also when it goes meanwhile."""
    copied = subprocess.run(
        [which("cp"), "-a", f"{image}/.", f"{home}/"],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    # What is removed is moved away first: as long as it is here, it is whole.
    if copied.returncode or not image.is_dir():
        raise MachineError(f"{image} cannot be copied: {copied.stdout.strip()}")


def make_course(folder):
    """What an isolated machine shows to its jobs as /course. Raises MachineError for a link: it
    would be followed on this host."""
    if folder.is_symlink():
        raise MachineError(f"{folder} is a link, and cannot be shown to jobs")
    folder.mkdir(mode=0o755, exist_ok=True)


def seen_as(folder, order):
    """Where the machine itself sees `folder`/inside."""
    return INSIDE if order["isolate"] else folder / "inside"


def describe(order, inside, work_dir, job_user, username):
    """machine.json: what the driver and the server have to know, with paths as the machine sees
    them."""
    host_key = [sys.executable, "-I", "-S", str(inside / "etc" / "host_key.py")]
    return {
        "instance_id": order["instance_id"],
        "address": order["address"],
        "port": order["port"],
        "expires": order["expires"],
        "username": username,
        "folder": str(inside),
        "work_dir": str(work_dir),
        "job_user": job_user,
        "python": sys.executable,
        "host_key": {
            "stage": [*host_key, "stage", str(inside)],
            "activate": [*host_key, "activate", str(inside)],
        },
        "environment": {
            "HOME": str(inside / "home"),
            # The interpreter's folder last: there is a python3 even where the system has none.
            "PATH": f"{SYSTEM_PATH}:{sys.base_prefix}/bin",
            "LANG": "C.UTF-8",
            "TANGO_CLOUD_MACHINE": str(inside / "etc" / "machine.json"),
        },
    }


def write_etc(etc, machine, secret):
    """The keys, machine.json, and sshd's configuration."""
    write_private(etc / "host_key", secret["host_private_key"].strip() + "\n")
    write_private(etc / "host_key.pub", secret["host_public_key"].strip() + "\n")
    keys = [f"{key.strip()}\n" for key in secret["authorized_keys"]]
    write_private(etc / "authorized_keys", "".join(keys))
    # Its presence says that the host key is still the one from the user data.
    write_private(etc / "bootstrap", "")
    write_private(etc / "machine.json", json.dumps(machine, indent=2) + "\n")
    folder = Path(machine["folder"])
    environment = " ".join(quote(f"{key}={text}") for key, text in machine["environment"].items())
    write_private(
        etc / "sshd_config",
        f"""\
ListenAddress {machine["address"]}:{machine["port"]}
HostKey {quote(folder / "etc" / "host_key")}
AuthorizedKeysFile {quote(folder / "etc" / "authorized_keys")}
PidFile {quote(folder / "run" / "server.pid")}
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AllowUsers {quote(machine["username"])}
# The files above are closed to others, but the folder may stand below one that others can write.
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
DisableForwarding yes
PermitUserRC no
MaxSessions 100
MaxStartups 100:30:200
ClientAliveInterval 30
ClientAliveCountMax 4
LogLevel ERROR
Subsystem sftp internal-sftp
SetEnv {environment}
""",
    )


def quote(value):
    """`value` as one word of sshd_config. Raises MachineError when that cannot be written."""
    text = str(value)
    if '"' in text or "\n" in text or "\\" in text:
        raise MachineError(f"sshd cannot be told of this path: {text!r}")
    return f'"{text}"'
