"""`python -m emulation`: an emulated EC2 in the foreground, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emulation.network import Network, NoNetwork
from emulation.spawner import Spawner, fork_spawner


def main() -> int:
    arguments = _arguments()
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("emulation").setLevel(logging.INFO)
    try:
        with _folder(arguments.folder) as folder, _hosting(folder, arguments.network) as hosting:
            # Not before the spawner is forked: it and every host would carry what this loads.
            from emulation.backend import NoBackend
            from emulation.cloud import run

            try:
                choice, port = arguments.backend_url or arguments.backend, arguments.port
                asyncio.run(run(folder, *hosting, choice, port, as_json=arguments.json))
            except NoBackend as error:
                sys.stderr.write(f"{error}\n")
                return 1
    except NoNetwork as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m emulation", description=__doc__)
    parser.add_argument("--backend", choices=("auto", "localstack", "moto"), default="auto")
    parser.add_argument("--backend-url", help="of one that runs already")
    parser.add_argument("--network", help="a /16 (default: one that is free here)")
    parser.add_argument("--port", type=int, default=0, help="of the endpoint (default: a free one)")
    parser.add_argument("--folder", type=Path, help="for logs (default: one that is removed again)")
    parser.add_argument(
        "--json",
        action="store_true",
        help="for programs: describe the cloud by one line, and end with the standard input",
    )
    return parser.parse_args()


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted
        return
    folder = Path(tempfile.mkdtemp(prefix="tango-cloud-emulation-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _hosting(folder: Path, wanted: str | None) -> Iterator[tuple[Network, Spawner]]:
    """A network, and who makes hosts in it. Raises NoNetwork."""
    network = Network(wanted)
    try:
        network.note(folder / name for name in ("root", "backend", "consoles"))
        root = folder / "root"
        root.mkdir()
        spawner = fork_spawner(network, root)
        try:
            yield network, spawner
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(spawner.pid, signal.SIGKILL)
            os.waitpid(spawner.pid, 0)
            network.wait_until_gone()
            root.rmdir()
    finally:
        network.close()


if __name__ == "__main__":
    sys.exit(main())
