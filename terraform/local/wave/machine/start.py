"""The beginning of a machine."""

import json
import os
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from folder import MachineError, locked, update_document
from isolation import SUPERVISOR, SYSTEM_PATH, bubblewrap, expiring, prepare_supervisor, which
from layout import make_folder, seen_as
from processes import started
from stop import stop

START_SECONDS = 60
"""How long a server may take until its port answers."""
CONSOLE_TAIL = 4000


def start():
    """Start the machine that the environment describes; return once its port answers.

    TANGO_MACHINE is a JSON object without secrets, built by the wave module. TANGO_USER_DATA is one
    with host_private_key, host_public_key and authorized_keys (a list): it comes this way because
    command lines can be read by everyone, and Terraform's state by many. Raises MachineError with
    the end of the server's output; nothing of the machine is left then. Nor is anything left a
    moment after this process is killed.
    """
    order = json.loads(os.environ.pop("TANGO_MACHINE"))
    secret = json.loads(os.environ.pop("TANGO_USER_DATA") or "{}")
    missing = {"host_private_key", "host_public_key", "authorized_keys"} - secret.keys()
    if missing:
        raise MachineError(f"the user data lacks {', '.join(sorted(missing))}")
    root, instance_id = Path(order["root"]), order["instance_id"]
    seconds = datetime.fromisoformat(order["expires"]).timestamp() - time.time()
    if seconds <= 0:
        raise MachineError(f"{instance_id} expires at {order['expires']}, which is over")
    # What an earlier attempt at this machine may have left.
    stop(root, [instance_id])
    supervisor = start_supervisor(root, order, seconds)
    try:
        folder = make_folder(root, order, secret, supervisor.pid)
        with locked(folder), (folder / "console.log").open("a+b") as console:
            try:
                boot(folder, order, supervisor)
            except MachineError as error:
                # Read through the open file: the folder may have been removed already.
                console.seek(0)
                said = console.read()[-CONSOLE_TAIL:].decode(errors="replace")
                raise MachineError(f"{error}\n{said}".strip()) from error
    except BaseException:
        stop(root, [instance_id])
        supervisor.kill()
        supervisor.wait()
        raise


def start_supervisor(root, order, seconds):
    """The supervisor, waiting for our word to start the server.

    It is there before anything is written, so that there is somebody to remove what we wrote if we
    are killed.
    """
    folder = root / "instances" / order["instance_id"]
    return subprocess.Popen(
        [
            *("/bin/sh", "-c", SUPERVISOR, "tango-machine", sys.executable),
            *(str(Path(__file__).resolve().parent), str(root), order["instance_id"]),
            *expiring(server_argv(folder, order), seconds),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        # A home, because the user may have no entry that tells of one.
        env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "HOME": f"{seen_as(folder, order)}/home"},
        start_new_session=True,
        preexec_fn=prepare_supervisor,
    )


def boot(folder, order, supervisor):
    """Have the server started and wait until it answers; the document says `running` then.

    Raises MachineError when the server ends or does not answer.
    """
    address = (order["address"], order["port"])
    check_free(address)
    tell(supervisor, "boot")
    pid_file = folder / "pid"
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
    tell(supervisor, "running")


def tell(supervisor, word):
    """Raises MachineError when the supervisor is dead."""
    try:
        supervisor.stdin.write(f"{word}\n".encode())
        supervisor.stdin.flush()
    except BrokenPipeError as error:
        raise MachineError("the machine's supervisor was killed while it started") from error


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
