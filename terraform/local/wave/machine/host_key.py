"""Gives the machine a host key of its own making. Runs inside the machine, called by the driver.

    host_key.py stage FOLDER      make a fresh key beside the one in use; print its public half
    host_key.py activate FOLDER   swap it in; return once the server answers with it

Both are idempotent. After `activate`, `stage` prints the key in use: a machine does this once.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

RELOAD_SECONDS = 15
"""How long the server may take to come back with its new key."""


def stage(etc):
    """The public half of the staged key, or of the key in use when that is no longer the first."""
    staged = etc / "host_key.next"
    if not staged.exists():
        if not (etc / "bootstrap").exists():
            return (etc / "host_key.pub").read_text()
        new = etc / "host_key.new"
        new.unlink(missing_ok=True)
        generate(new)
        # The private half last: its presence says that both are there.
        (etc / "host_key.new.pub").rename(etc / "host_key.next.pub")
        new.rename(staged)
    public = etc / "host_key.next.pub"
    # An `activate` that was cut short may have moved the public half already.
    return (public if public.exists() else etc / "host_key.pub").read_text()


def generate(path):
    """Write a new ed25519 key to `path` and `path`.pub, both readable by the owner only."""
    os.umask(0o077)
    ssh_keygen = shutil.which("ssh-keygen")
    if ssh_keygen is not None:
        argv = [ssh_keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
        made = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True)
        # It refuses to work for a user without an account, as containers often have.
        if made.returncode == 0:
            return
    # It takes longer to load, and only asyncssh's interpreter is sure to have it.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path.with_name(f"{path.name}.pub").write_bytes(public + b"\n")


def activate(folder):
    """Swap the staged key in, if there is one, and let the server read it."""
    etc, pid_file = folder / "etc", folder / "run" / "server.pid"
    if (etc / "host_key.next").exists():
        with contextlib.suppress(FileNotFoundError):
            (etc / "host_key.next.pub").replace(etc / "host_key.pub")
        (etc / "host_key.next").replace(etc / "host_key")
        (etc / "bootstrap").unlink(missing_ok=True)
    # Also when the key was swapped before: the last call may not have come as far as this.
    deadline = time.monotonic() + RELOAD_SECONDS
    pid = server_pid(pid_file, deadline)
    before = identity(pid_file)
    os.kill(pid, signal.SIGHUP)
    # Both servers write their pid file anew once they listen again.
    while identity(pid_file) in {None, before}:
        wait_a_moment(deadline)


def server_pid(pid_file, deadline):
    """The server's pid. While it reloads, the file is absent or empty for a moment."""
    while True:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(pid_file.read_text())
        wait_a_moment(deadline)


def wait_a_moment(deadline):
    if time.monotonic() > deadline:
        raise SystemExit(f"the SSH server did not reload its host key in {RELOAD_SECONDS} s")
    time.sleep(0.005)


def identity(path):
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def main(arguments):
    verb, folder = arguments[0], Path(arguments[1])
    with (folder / "etc" / "host_key.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if verb == "stage":
            sys.stdout.write(stage(folder / "etc"))
        else:
            activate(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
