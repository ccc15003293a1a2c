"""The beginning of a machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from folder import (
    MachineError,
    instance_folder,
    locked,
    outside_work_dir,
    remove_tree,
    staging_folder,
    update_document,
    write_document,
    write_private,
)
from isolation import (
    INSIDE,
    SUPERVISOR,
    SYSTEM_PATH,
    bubblewrap,
    expiring,
    login_name,
    prepare_supervisor,
    which,
    write_identity,
)
from processes import started
from stop import stop

START_SECONDS = 60
"""How long a server may take until its port answers."""
# systemd's table of user ids leaves 1879048192 to 2147483647 to nobody: no distribution, container
# or dynamic user is there. Each machine's jobs get one of these.
FIRST_JOB_USER = 1879048192
JOB_USERS = 2147483647 - FIRST_JOB_USER
CONSOLE_TAIL = 4000
COPIED = (
    "instance_id", "uid", "wave", "image", "instance_type", "zone", "market", "address", "port",
    "expires", "tags", "server", "isolate",
)  # fmt: skip
"""What the instance document takes over from the order as it stands."""


def start():
    """Start the machine that the environment describes; return once its port answers.

    TANGO_MACHINE is a JSON object without secrets, built by the wave module. TANGO_USER_DATA is a
    JSON object with host_private_key, host_public_key and authorized_key: it comes this way because
    command lines can be read by everyone, and Terraform's state by many. Raises MachineError with
    the end of the server's output; nothing of the machine is left then.
    """
    order = json.loads(os.environ.pop("TANGO_MACHINE"))
    secret = json.loads(os.environ.pop("TANGO_USER_DATA") or "{}")
    missing = {"host_private_key", "host_public_key", "authorized_key"} - secret.keys()
    if missing:
        raise MachineError(f"the user data lacks {', '.join(sorted(missing))}")
    root, instance_id = Path(order["root"]), order["instance_id"]
    seconds = datetime.fromisoformat(order["expires"]).timestamp() - time.time()
    if seconds <= 0:
        raise MachineError(f"{instance_id} expires at {order['expires']}, which is over")
    # An earlier start of the same machine may have been killed half-way.
    stop(root, [instance_id])
    try:
        folder = make_folder(root, order, secret)
        with locked(folder), (folder / "console.log").open("a+b") as console:
            try:
                boot(folder, order, seconds, console)
            except MachineError as error:
                # Read through the open file: the folder may have been removed already.
                console.seek(0)
                said = console.read()[-CONSOLE_TAIL:].decode(errors="replace")
                raise MachineError(f"{error}\n{said}".strip()) from error
    except BaseException:
        stop(root, [instance_id])
        raise


def make_folder(root, order, secret):
    """The machine's folder with all its files, and its document saying `pending`.

    Made under another name and renamed, so that no listing sees a folder without its document.
    """
    folder = instance_folder(root, order["instance_id"])
    staging = staging_folder(root, order["instance_id"])
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_tree(staging)
    isolated, as_root = order["isolate"], os.geteuid() == 0
    job_user = FIRST_JOB_USER + int(order["uid"], 16) % JOB_USERS if as_root else None
    inside = seen_as(folder, order)
    staging.mkdir(mode=0o700)
    (staging / "inside").mkdir(mode=0o755)
    for name in ("etc", "home", "run", "work"):
        (staging / "inside" / name).mkdir(mode=0o700)
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
        "supervisor": None,
        "supervisor_started": None,
    }
    write_document(staging, document)
    staging.rename(folder)
    return folder


def seen_as(folder, order):
    """Where the machine itself sees `folder`/inside."""
    return INSIDE if order["isolate"] else folder / "inside"


def describe(order, inside, work_dir, job_user, username):
    """machine.json: what the driver and the server have to know, with paths as the machine sees
    them."""
    host_key = [sys.executable, "-I", str(inside / "etc" / "host_key.py")]
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
    write_private(etc / "authorized_keys", secret["authorized_key"].strip() + "\n")
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


def boot(folder, order, seconds, console):
    """Start the server under its supervisor and wait until it answers; the document says `running`
    then. Raises MachineError when the server ends or does not answer."""
    address = (order["address"], order["port"])
    check_free(address)
    pid_file = folder / "pid"
    supervisor = subprocess.Popen(
        [
            *("/bin/sh", "-c", SUPERVISOR, "tango-machine"),
            *(str(pid_file), sys.executable, str(folder / "program")),
            *(order["root"], order["instance_id"]),
            *expiring(server_argv(folder, order), seconds),
        ],
        stdin=subprocess.PIPE,
        stdout=console,
        stderr=console,
        cwd="/",
        # A home, because the user may have no entry that tells of one.
        env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "HOME": f"{seen_as(folder, order)}/home"},
        start_new_session=True,
        preexec_fn=prepare_supervisor,
    )
    update_document(folder, supervisor=supervisor.pid, supervisor_started=started(supervisor.pid))
    deadline = time.monotonic() + START_SECONDS
    pause = 0.002
    pid = token = None
    while pid is None or not answers(address):
        if pid is None and pid_file.exists():
            pid = int(pid_file.read_text())
            token = started(pid)
            update_document(folder, pid=pid, pid_started=token)
        # The supervisor does not end before we let go of the lock: look at the server.
        if pid is not None and (token is None or started(pid) != token):
            raise MachineError("the SSH server ended while it started")
        if time.monotonic() > deadline:
            raise MachineError(f"the SSH server did not answer within {START_SECONDS} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    update_document(folder, status="running")
    # From here on the machine lives without us.
    supervisor.stdin.write(b"running\n")
    supervisor.stdin.close()


def check_free(address):
    """Raises MachineError when something has the port: its answer would be taken for ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise MachineError(f"cannot listen on {address[0]}:{address[1]}: {error}") from error


def server_argv(folder, order):
    """The command line of the machine's server, with its isolation around it."""
    inside = seen_as(folder, order)
    if order["server"] == "sshd":
        # With its full path, which it starts again for each connection.
        argv = [which("sshd"), "-D", "-e", "-f", str(inside / "etc" / "sshd_config")]
        if os.geteuid() == 0 and not order["isolate"]:
            # Otherwise made by the service's start script, which may never have run here.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    else:
        argv = [sys.executable, "-I", str(inside / "etc" / "asyncssh_server.py"), str(inside)]
    if order["isolate"]:
        return [*bubblewrap(folder, order["instance_id"]), *argv]
    return argv


def answers(address):
    """Whether an SSH server greets at `address`, a pair of host and port."""
    try:
        with socket.create_connection(address, timeout=2) as connection:
            # All of the greeting: with some of it unread the server would see a reset.
            return connection.recv(256).startswith(b"SSH-")
    except OSError:
        return False
