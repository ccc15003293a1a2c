"""What the program of every emulated cloud has in common: its options, and when it ends.

Without aiohttp, as `hosting.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """With `network`, `loopback`, `port`, `folder` and `json`."""
    made = argparse.ArgumentParser(prog=prog, description=description)
    made.add_argument("--network", help="a /16 (default: one that is free here)")
    made.add_argument(
        "--loopback", action="store_true", help="hosts as they are without root, though we be root"
    )
    made.add_argument("--port", type=int, default=0, help="of the endpoint (default: a free one)")
    made.add_argument("--folder", type=Path, help="for logs (default: one that is removed again)")
    made.add_argument(
        "--json",
        action="store_true",
        help="for programs: describe the cloud by one line, and end with the standard input",
    )
    return made


def told_to_end(*, with_stdin: bool) -> asyncio.Event:
    """Set on SIGINT and SIGTERM, and `with_stdin` when the standard input ends: then the process
    that started this one is dead."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    if with_stdin:
        loop.add_reader(sys.stdin.fileno(), over.set)
    return over
