"""A small machine: asyncssh's server, which runs what it is asked to with the user's shell.

Usage: asyncssh_machine.py FOLDER PORT UID
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import asyncssh


async def run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """One exec channel. The process sees its input end when the connection does."""
    folder = sys.argv[1]
    child = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        process.command or "true",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={
            "HOME": folder,
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "TANGO_CLOUD_MACHINE": f"{folder}/machine.json",
        },
    )
    await process.redirect(child.stdin, child.stdout, child.stderr)
    await process.stdout.drain()
    process.exit(await child.wait())


async def main(folder: str, port: int, uid: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[f"{folder}/host"],
        authorized_client_keys=f"{folder}/authorized_keys",
        process_factory=run,
        encoding=None,
    )
    if os.geteuid() == 0:  # last: this user may not be able to read the interpreter's own files
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
