"""The processes of machines: who they are, and their end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from folder import MachineError

STOP_SECONDS = 30
"""How long killed processes may take to be gone."""


def started(pid):
    """A token that tells this process from a later one with the same number; None when it is dead.

    A zombie is dead: where nothing reaps daemons, every one of them ends as one.
    """
    if sys.platform != "linux":
        process = process_table().get(pid)
        return None if process is None or process["dead"] else process["token"]
    process = read_stat(pid)
    return None if process is None or process["dead"] else process["token"]


def process_table():
    """{pid: {parent, uid, token, dead}} of all processes of this host."""
    if sys.platform != "linux":
        return table_from_ps()
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  (faster)
        if name.isdecimal() and (process := read_stat(int(name))) is not None:
            table[int(name)] = process
    return table


def read_stat(pid):
    path = f"/proc/{pid}"
    try:
        # The second field, the program's name in brackets, may hold anything: count from its end.
        fields = Path(path, "stat").read_text(errors="replace").rpartition(")")[2].split()
        uid = Path(path).stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    return {
        "parent": int(fields[1]),
        "uid": uid,
        # Clock ticks since boot, so the boot belongs to it.
        "token": f"{boot_id()}:{fields[19]}",
        "dead": fields[0] in "ZX",
    }


def boot_id(_cache=[]):  # noqa: B006
    if not _cache:
        _cache.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    return _cache[0]


def table_from_ps():
    """The same from `ps`, for systems without Linux's /proc."""
    output = subprocess.run(
        ["/bin/ps", "-axo", "pid=,ppid=,uid=,state=,lstart="],
        check=True,
        capture_output=True,
        text=True,
        env={"LC_ALL": "C"},
    ).stdout
    table = {}
    for line in output.splitlines():
        pid, parent, uid, state, token = line.split(None, 4)
        table[int(pid)] = {
            "parent": int(parent),
            "uid": int(uid),
            "token": token.strip(),
            "dead": state.startswith("Z"),
        }
    return table


def kill(machines):
    """SIGKILL to every process of `machines` (instance documents), until none is left.

    Raises MachineError when some are left after STOP_SECONDS.
    """
    deadline = time.monotonic() + STOP_SECONDS
    seen = {}
    while True:
        table = process_table()
        seen |= members(machines, table)
        alive = {
            pid
            for pid, token in seen.items()
            if pid in table and table[pid]["token"] == token and not table[pid]["dead"]
        }
        if not alive:
            return
        if time.monotonic() > deadline:
            raise MachineError(f"processes outlive SIGKILL: {sorted(alive)}")
        # Supervisors last: while they live they adopt whatever loses its parent.
        supervisors = {document["supervisor"] for document in machines}
        for pid in alive - supervisors or alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for document in machines:
            kill_user(document["job_user"])
        time.sleep(0.005)


def kill_left_behind(folders):
    """SIGKILL to what `kill` cannot find: bwrap, killed while it starts, leaves a child that waits
    for it for ever, and that is nobody's when the supervisor was killed with it. It is known by the
    machine's folder in its command line.
    """
    if sys.platform != "linux":
        return
    marks = [f"{folder}/".encode() for folder in folders]
    for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208  (faster)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path("/proc", name, "cmdline").read_bytes()
            program = words.partition(b"\0")[0].rpartition(b"/")[2]
            if program == b"bwrap" and any(mark in words for mark in marks):
                os.kill(int(name), signal.SIGKILL)


def members(machines, table):
    """The processes of `machines`: {pid: token}.

    The supervisor and the server as recorded (not their numbers' next owners), all below them, and,
    as root, whatever runs as one of the machines' job users. Never the caller itself: a supervisor
    ends as `stop`.
    """
    children = {}
    for pid, process in table.items():
        children.setdefault(process["parent"], []).append(pid)
    pending = [
        document[name]
        for document in machines
        for name in ("supervisor", "pid")
        if document[name] in table and table[document[name]]["token"] == document[f"{name}_started"]
    ]
    if os.geteuid() == 0:
        users = {document["job_user"] for document in machines}
        pending += [pid for pid, process in table.items() if process["uid"] in users]
    found = {}
    while pending:
        pid = pending.pop()
        if pid not in found:
            found[pid] = table[pid]["token"]
            pending += children.get(pid, [])
    found.pop(os.getpid(), None)
    return found


def kill_user(uid):
    """SIGKILL to all processes of a job's user at once: what forks without end cannot outrun it."""
    if uid is None or os.geteuid() != 0:
        return
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            os.setresuid(uid, uid, uid)
            os.kill(-1, signal.SIGKILL)
        os._exit(0)
    os.waitpid(child, 0)
