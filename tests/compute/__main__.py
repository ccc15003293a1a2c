"""`python -m tests.compute`: an emulated Compute Engine in the foreground, until SIGINT."""

from __future__ import annotations

import asyncio
import logging
import sys

from emulation.hosting import folder_for_logs, hosting
from emulation.network import NoNetwork
from emulation.program import parser


def main() -> int:
    arguments = parser("python -m tests.compute", __doc__ or "").parse_args()
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.WARNING)
    for name in ("emulation", "compute"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        with (
            folder_for_logs(arguments.folder) as folder,
            hosting(folder, arguments.network, loopback=arguments.loopback) as ours,
        ):
            # Not before the spawner is forked: it and every host would carry what this loads.
            from .cloud import run

            try:
                asyncio.run(run(ours, arguments.port, as_json=arguments.json))
            except FileNotFoundError as error:
                sys.stderr.write(f"{error}\n")
                return 1
    except NoNetwork as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
