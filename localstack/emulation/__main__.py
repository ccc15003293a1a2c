"""`python -m emulation`: an emulated EC2 in the foreground, until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from emulation.hosting import folder_for_logs, hosting
from emulation.network import NoNetwork
from emulation.program import parser


def main() -> int:
    arguments = _arguments()
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("emulation").setLevel(logging.INFO)
    try:
        with (
            folder_for_logs(arguments.folder) as folder,
            hosting(folder, arguments.network, "backend", loopback=arguments.loopback) as ours,
        ):
            # Not before the spawner is forked: it and every host would carry what this loads.
            from emulation.backend import NoBackend
            from emulation.cloud import run

            try:
                choice, port = arguments.backend_url or arguments.backend, arguments.port
                asyncio.run(run(folder, ours, choice, port, as_json=arguments.json))
            except NoBackend as error:
                sys.stderr.write(f"{error}\n")
                return 1
    except NoNetwork as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    made = parser("python -m emulation", __doc__)
    made.add_argument("--backend", choices=("auto", "localstack", "moto"), default="auto")
    made.add_argument("--backend-url", help="of one that runs already")
    return made.parse_args()


if __name__ == "__main__":
    sys.exit(main())
