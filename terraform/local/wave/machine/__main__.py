"""Starts and stops one machine of the local "cloud": an SSH server of its own on loopback.

    python -I -S machine start            what to start is read from the environment (start.py)
    python -I -S machine stop ROOT ID...  idempotent: an unknown or half-made machine is success

Terraform runs it from the wave module's provisioners, the local provider runs `stop` directly, and
a machine's supervisor runs `stop` when its server has ended. Standard library only, and few of
its modules: Terraform waits for this program once per machine.

A machine is a folder `<root>/instances/<instance id>/`:

    instance.json   the instance document: what the inventory reads, replaced atomically
    console.log     what the server said
    program/        this program, as it was when the machine started
    inside/         what the machine itself sees of this, as /machine when it is isolated:
      etc/          host key, authorized key, server configuration, machine.json for the driver
      home/ work/   the login's home, its folder course seen as /course; the driver's folder
      run/          the server's pid file
    tmp/ shm/       /tmp and /var/tmp, and /dev/shm, of an isolated machine
    identity/       passwd, group and shadow of an isolated machine

An image is a folder too, which a machine's home/ begins as a copy of; `<root>/images/` is the
provider's.

Its processes form one tree:

    sh (supervisor, adopts orphans) - timeout (expiry) - [bwrap - bwrap] - SSH server - jobs
"""

import os
import sys
from pathlib import Path

from folder import MachineError


def main(arguments):
    match arguments:
        case ["start"]:
            from start import start

            start()
            # At once: an interrupt between here and the usual end of a Python program would make
            # Terraform count a machine that runs as failed.
            os._exit(0)
        case ["stop", root, *instance_ids]:
            from stop import stop

            stop(Path(root), instance_ids)
        case _:
            sys.stderr.write("usage: machine start | machine stop ROOT ID...\n")
            return 64
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MachineError as error:
        # Terraform quotes what a failed provisioner printed.
        sys.stdout.write(f"{error}\n")
        sys.exit(1)
