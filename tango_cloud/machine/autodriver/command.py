"""`autodriver [-u N] [-f BYTES] [-t SECONDS] [-o BYTES] DIRECTORY`: run the job that is there.

What Tango's own does, seen from outside: the directory is gone afterwards, the header line and the
output are printed once the job has ended, 0 stands for no limit, and the exit status says whether
the driver did its work, not how the job ended.

The directory is read as the caller; only the agent is root, by `sudo -n` on this very file with the
one word `--agent`. Where TANGO_CLOUD_MACHINE names a machine's facts, it is not: the job then runs
as its caller.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from typing import NoReturn

from tango_cloud.machine import agent, facts, frames
from tango_cloud.machine.autodriver import archive
from tango_cloud.machine.detached.child import Child
from tango_cloud.machine.failures import Failure

RAN, USAGE, TIMED_OUT, OS_ERROR = 0, 1, 2, 3
"""The exit statuses."""
_AGENT = ["--agent"]
_UNLIMITED_SECONDS = 10**8
_LIMITS = (
    ("-u", "--nproc", "NUMBER", "processes that the job may have at once"),
    ("-r", "--nram", "BYTES", "memory that the job may have"),
    ("-f", "--fsize", "BYTES", "size of the largest file that it may write"),
    ("-t", "--timeout", "SECONDS", "time that it may take"),
    ("-o", "--osize", "BYTES", "output kept; of more, the first and the last half are"),
    ("-i", "--timestamp-interval", "SECONDS", "accepted; no time stamps are put into the output"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.format_usage()}{self.prog}: {message}\n")


def main() -> NoReturn:
    """Do what the command line says, and exit."""
    if sys.argv[1:] == _AGENT:
        agent.main()
        sys.exit()
    told = _parser().parse_args()
    try:
        sys.exit(_run(told))
    except (Failure, OSError) as error:
        print(f"Autodriver: {error}")  # noqa: T201 - where Tango's own says it
        sys.exit(OS_ERROR)


def _parser() -> _Parser:
    parser = _Parser(prog="autodriver", description="Run `make` in DIRECTORY, as a job.")
    for short, long, unit, said in _LIMITS:
        parser.add_argument(short, long, metavar=unit, type=_count, help=said)
    parser.add_argument("-z", "--timezone", help="accepted; see -i")
    parser.add_argument("directory", metavar="DIRECTORY")
    return parser


def _count(text: str) -> int | None:
    """A limit; 0 is none. Raises ValueError."""
    count = int(text)
    if count < 0:
        raise ValueError
    return count or None


def _run(told: argparse.Namespace) -> int:
    child = Child(_become_agent)
    try:
        child.request({"op": "put"})
        for part in archive.stream(told.directory):
            child.wire.send(frames.DATA, part)
        child.wire.send(frames.END)
        child.answer(frames.REPLY)
        shutil.rmtree(told.directory)
        child.request(
            {
                "op": "run",
                "wall_seconds": told.timeout or _UNLIMITED_SECONDS,
                "output_bytes": told.osize,
                "file_bytes": told.fsize,
                "memory_bytes": told.nram,
                "processes": told.nproc,
            }
        )
        outcome = frames.decode_json(child.answer(frames.REPLY)[1])
        child.request({"op": "get"})
        _print(child)
    finally:
        child.close()
    return TIMED_OUT if outcome["timed_out"] else RAN


def _print(child: Child) -> None:
    kind, data = child.answer(frames.DATA, frames.END)
    while kind == frames.DATA:
        sys.stdout.buffer.write(data)
        kind, data = child.answer(frames.DATA, frames.END)
    sys.stdout.buffer.flush()


def _become_agent() -> None:
    if os.geteuid() == 0 or facts.VARIABLE in os.environ:
        agent.main()
    else:
        program = os.path.abspath(sys.argv[0])
        os.execvp("sudo", ["sudo", "-n", "--", program, *_AGENT])  # noqa: S607
