"""The SSH server of a machine where OpenSSH's is not installed: `asyncssh_server.py FOLDER`.

It behaves as sshd does for what the transports use: commands with binary streams both ways, exit
statuses and signals, SFTP, a host key that is read again on SIGHUP, and nothing but the one
authorized key to log in with. Unlike sshd it ends a command whose channel is gone.
"""

import asyncio
import contextlib
import ctypes.util
import datetime
import json
import os
import signal
import sys
import time
from pathlib import Path

# asyncssh has the linker look for two optional libraries by starting programs, a sixth of the time
# that a machine takes to start. Without them every host offers the same algorithms.
ctypes.util.find_library = lambda _: None

import asyncssh  # noqa: E402

CHUNK = 1 << 16
LOGIN_SECONDS = 20
KEEP_ALIVE_SECONDS = 30
HANG_UP_GRACE_SECONDS = 10
"""How long a command whose channel is gone may take to tidy up after its SIGTERM."""


class Commands:
    """Runs what clients ask for, in the machine's environment."""

    def __init__(self, machine):
        self.environment = machine["environment"] | {
            "USER": machine["username"],
            "LOGNAME": machine["username"],
            "SHELL": "/bin/sh",
        }
        self.home = machine["environment"]["HOME"]

    async def __call__(self, process):
        """One channel, from the command to its exit status."""
        argv = ["/bin/sh"] if process.command is None else ["/bin/sh", "-c", process.command]
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self.environment,
                cwd=self.home,
                start_new_session=True,
                limit=CHUNK,
            )
        except OSError as error:
            process.stderr.write(f"cannot start a command: {error}\n".encode())
            process.exit(126)
            return
        feeding = asyncio.create_task(feed(process.stdin, child))
        running = asyncio.create_task(finish(child, process))
        hung_up = asyncio.create_task(process.channel.wait_closed())
        try:
            await asyncio.wait({running, hung_up}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await end(child)
        finally:
            for task in (feeding, running, hung_up):
                task.cancel()
        if running.done() and not running.cancelled() and running.exception() is None:
            leave(process, child.returncode)


class Files(asyncssh.SFTPServer):
    """asyncssh's own SFTP server, with an exit status: without one OpenSSH's scp takes what it has
    copied for failed."""

    def exit(self):
        self.channel.exit(0)


async def feed(reader, child):
    """The channel's input into the command, no faster than it reads; then end of file."""
    while True:
        try:
            data = await reader.read(CHUNK)
        except asyncssh.SignalReceived as received:
            send_signal(child, getattr(signal, f"SIG{received.signal}", None))
            continue
        except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
            continue
        except (asyncssh.Error, OSError):
            data = b""
        if not data:
            child.stdin.close()
            return
        # A command that has stopped reading loses the rest, as it does on a pipe.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            child.stdin.write(data)
            await child.stdin.drain()


async def finish(child, process):
    """Returns when the command has ended and all its output is with the client's side."""
    await asyncio.gather(
        pump(child.stdout, process.stdout), pump(child.stderr, process.stderr), child.wait()
    )


async def pump(reader, writer):
    """The command's output into the channel, no faster than the client takes it."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()


def leave(process, status):
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


async def end(child):
    """End a command and its process group: asked first, then killed."""
    send_signal(child, signal.SIGTERM)
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(child.wait(), HANG_UP_GRACE_SECONDS)
    send_signal(child, signal.SIGKILL)
    await child.wait()


def send_signal(child, number):
    """To the command's whole process group: it leads one of its own."""
    if number is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)


async def serve(folder):
    machine = json.loads((folder / "etc" / "machine.json").read_text())
    host_key = str(folder / "etc" / "host_key")
    acceptor = await asyncssh.listen(
        machine["address"],
        machine["port"],
        server_host_keys=[host_key],
        authorized_client_keys=str(folder / "etc" / "authorized_keys"),
        process_factory=Commands(machine),
        encoding=None,
        sftp_factory=Files,
        public_key_auth=True,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        allow_pty=False,
        agent_forwarding=False,
        x11_forwarding=False,
        login_timeout=LOGIN_SECONDS,
        keepalive_interval=KEEP_ALIVE_SECONDS,
    )
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def reload():
        acceptor.update(server_host_keys=[host_key])
        write_pid(folder)

    loop.add_signal_handler(signal.SIGHUP, reload)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    expires = datetime.datetime.fromisoformat(machine["expires"]).timestamp()
    loop.call_later(max(expires - time.time(), 0), ended.set)
    write_pid(folder)
    await ended.wait()


def write_pid(folder):
    """Anew each time, as sshd does: host_key.py sees by it that the server listens again."""
    temporary = folder / "run" / "server.pid.new"
    temporary.write_text(f"{os.getpid()}\n")
    temporary.replace(folder / "run" / "server.pid")


if __name__ == "__main__":
    # What it leaves running is the supervisor's to end.
    asyncio.run(serve(Path(sys.argv[1])))
