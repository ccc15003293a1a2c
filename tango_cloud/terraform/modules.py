"""Where the Terraform modules are, and what a module consists of."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from tango_cloud.core.errors import TerraformUnusable

_NOT_PART = {"tests", "__pycache__", ".terraform", ".terraform.lock.hcl", "README.md"}
"""Not needed to apply a module, or made by using it."""


def modules_root() -> Path:
    """The folder `<provider>/<kind>`: in the installed package, else at the top of the checkout.

    Raises TerraformUnusable when neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_terraform", package.parent / "terraform"):
        if (folder / "local" / "wave" / "main.tf").is_file():
            return folder
    raise TerraformUnusable("the Terraform modules are missing: install tango-cloud again")


def module_files(module: Path) -> Sequence[Path]:
    """The files of a module, relative to it, sorted."""
    return sorted(
        path.relative_to(module)
        for path in module.rglob("*")
        if path.is_file()
        and _NOT_PART.isdisjoint(path.relative_to(module).parts)
        and ".tfstate" not in path.name
    )


def module_hash(module: Path, salt: str) -> str:
    """16 hex digits that change with any file of the module, and with `salt`."""
    digest = hashlib.sha256(salt.encode())
    for file in module_files(module):
        content = (module / file).read_bytes()
        digest.update(f"\0{file.as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def copy_module(module: Path, target: Path) -> None:
    """Copy the module's files below `target`, which is made."""
    for file in module_files(module):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module / file, target / file)
