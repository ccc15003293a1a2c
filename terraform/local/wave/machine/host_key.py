"""Gives the machine a host key of its own making. Runs inside the machine, called by the driver.

    host_key.py stage FOLDER      make a fresh key beside the one in use; print its public half
    host_key.py activate FOLDER   swap it in; return once the server answers with it

Both are idempotent. After `activate`, `stage` prints the key in use: a machine does this once.

Both stand between a new machine and its first job, and most of their time is Python's start. So
they run without site-packages (-S) and use `os` alone: pathlib, shutil, subprocess and signal
together take longer to load than everything that is done here.
"""

# ruff: noqa: PTH104, PTH105, PTH108, PTH110, PTH116, PTH123

import fcntl
import os
import sys
import time

SIGHUP = 1
RELOAD_SECONDS = 15
"""How long the server may take to come back with its new key."""


def stage(etc):
    """The public half of the staged key, or of the key in use when that is no longer the first."""
    staged, public = f"{etc}/host_key.next", f"{etc}/host_key.next.pub"
    if not os.path.exists(staged):
        if not os.path.exists(f"{etc}/bootstrap"):
            return read(f"{etc}/host_key.pub")
        new = f"{etc}/host_key.new"
        remove(new)
        generate(new)
        # The private half last: its presence says that both are there.
        os.rename(f"{new}.pub", public)
        os.rename(new, staged)
    # An `activate` that was cut short may have moved the public half already.
    return read(public if os.path.exists(public) else f"{etc}/host_key.pub")


def generate(path):
    """Write a new ed25519 key to `path` and `path`.pub, both readable by the owner only."""
    os.umask(0o077)
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path]
    quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    try:
        process = os.posix_spawnp(argv[0], argv, os.environ, file_actions=quiet)
        made = os.waitpid(process, 0)[1] == 0
    except FileNotFoundError:
        made = False
    # It refuses to work for a user without an account, as containers often have.
    if not made:
        generate_without_openssh(path)


def generate_without_openssh(path):
    """The same with what asyncssh's interpreter has installed, which takes longer to load."""
    import site

    site.main()  # -S has left it out
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    write(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    write(f"{path}.pub", public + b"\n")


def activate(folder):
    """Swap the staged key in, if there is one, and let the server read it."""
    etc, pid_file = f"{folder}/etc", f"{folder}/run/server.pid"
    if os.path.exists(f"{etc}/host_key.next"):
        if os.path.exists(f"{etc}/host_key.next.pub"):
            os.replace(f"{etc}/host_key.next.pub", f"{etc}/host_key.pub")
        os.replace(f"{etc}/host_key.next", f"{etc}/host_key")
        remove(f"{etc}/bootstrap")
    # Also when the key was swapped before: the last call may not have come as far as this.
    deadline = time.monotonic() + RELOAD_SECONDS
    pid = server_pid(pid_file, deadline)
    before = identity(pid_file)
    os.kill(pid, SIGHUP)
    # Both servers write their pid file anew once they listen again.
    while identity(pid_file) in {None, before}:
        wait_a_moment(deadline)


def server_pid(pid_file, deadline):
    """The server's pid. While it reloads, the file is absent or empty for a moment."""
    while True:
        try:
            return int(read(pid_file))
        except (FileNotFoundError, ValueError):
            wait_a_moment(deadline)


def wait_a_moment(deadline):
    if time.monotonic() > deadline:
        raise SystemExit(f"the SSH server did not reload its host key in {RELOAD_SECONDS} s")
    time.sleep(0.005)


def identity(path):
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read()


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def remove(path):
    """Nobody else does it in between: all this runs under one lock."""
    if os.path.exists(path):
        os.unlink(path)


def main(arguments):
    verb, folder = arguments
    with open(f"{folder}/etc/host_key.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if verb == "stage":
            sys.stdout.write(stage(f"{folder}/etc"))
        else:
            activate(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
