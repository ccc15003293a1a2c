"""The agent as it is sent to a machine: its sources, and the command line that takes them; and the
command `autodriver`, a file to install.

This module is the one that runs on our side; it is not sent.
"""

from __future__ import annotations

import functools
import importlib.resources
import io
import shlex
import zipfile
import zlib

_PACKAGE = "tango_cloud.machine"
_DETACHED = "tango_cloud.machine.detached"
_AUTODRIVER = "tango_cloud.machine.autodriver"
_NOT_SENT = ("__init__.py", "bundle.py")

# Reads the length (8 hex digits) and the program, no byte more: requests may follow at once.
_LOADER = """
import os,zlib
def read(n):
    b=b""
    while len(b)<n:
        c=os.read(0,n-len(b))
        if not c: raise SystemExit("the program did not arrive")
        b+=c
    return b
exec(zlib.decompress(read(int(read(8),16))))
"""

# Modules keep their full names, so that the same sources work on both sides.
_BOOT = """
import sys
from importlib.machinery import ModuleSpec
class Sources:
    def find_spec(self, name, path=None, target=None):
        if name in sources:
            return ModuleSpec(name, self, is_package=name in packages)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        name = module.__name__
        exec(compile(sources[name], "<" + name + ">", "exec"), module.__dict__)
sys.meta_path.insert(0, Sources())
"""
_SERVE = """
from tango_cloud.machine.agent import main
main()
"""
_OBEY = """
from tango_cloud.machine.detached.commands import main
main(words, packed)
"""

_DRIVE = """
from tango_cloud.machine.autodriver.command import main
main()
"""
_SHEBANG = b"#!/usr/bin/python3 -IS\n"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time of each file in an archive, so that one source gives one archive."""

# The system's Python before the first in PATH: that may be a version manager's shim, which takes
# longer to find its Python than ours takes to start. `-I` keeps the user's environment and files
# out, `-S` skips what is installed beside the standard library. /bin/sh because the user's own
# shell may be of another kind.
_CHOOSE = 'p=/usr/bin/python3; [ -x "$p" ] || p=python3; exec "$p" -I -S -c "$0"'


def command(*, sudo: bool) -> str:
    """What to run on the machine, as the user's shell takes it; as root, if by `sudo`.

    `sudo -n` never asks for a password: it says that it would, and ends.
    """
    return (
        f"exec {'sudo -n ' if sudo else ''}/bin/sh -c {shlex.quote(_CHOOSE)} {shlex.quote(_LOADER)}"
    )


@functools.cache
def payload() -> bytes:
    """What to send to the command's standard input first; requests follow."""
    packed = _packed((_PACKAGE,), _SERVE)
    return b"%08x" % len(packed) + packed


@functools.cache
def program() -> bytes:
    """The program whose command lines `detached.commands` tells, compressed.

    It expects its `words` and itself, `packed`, as global names.
    """
    return _packed((_PACKAGE, _DETACHED), _OBEY)


@functools.cache
def autodriver() -> bytes:
    """The command `autodriver`, an executable file that needs Python 3.9 and nothing else.

    A zip archive that Python runs; the same bytes for the same sources.
    """
    file = io.BytesIO(_SHEBANG)
    file.seek(0, io.SEEK_END)
    packages = (_PACKAGE, _DETACHED, _AUTODRIVER)
    files = {"__main__.py": _DRIVE}
    for name, source in _sources(packages).items():
        folder = name in ("tango_cloud", *packages)
        files[name.replace(".", "/") + ("/__init__.py" if folder else ".py")] = source
    with zipfile.ZipFile(file, "w") as archive:
        for path, source in files.items():
            archive.writestr(zipfile.ZipInfo(path, _LONG_AGO), source)
    return file.getvalue()


def _packed(packages: tuple[str, ...], last: str) -> bytes:
    known = ("tango_cloud", *packages)
    whole = f"sources = {_sources(packages)!r}\npackages = {known!r}\n{_BOOT}{last}"
    return zlib.compress(whole.encode(), 9)


def _sources(packages: tuple[str, ...]) -> dict[str, str]:
    """Each module's source by its full name."""
    sources = dict.fromkeys(("tango_cloud", *packages), "")
    for package in packages:
        for file in importlib.resources.files(package).iterdir():
            if file.name.endswith(".py") and file.name not in _NOT_SENT:
                sources[f"{package}.{file.name[:-3]}"] = file.read_text(encoding="utf-8")
    return sources
