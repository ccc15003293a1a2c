"""Where the Terraform modules are, and what a module consists of.

A dependency lock file beside a module is part of it: `init` then takes exactly that plugin, or
fails. Without one it takes what the module's bounds allow, and locks that for the workspace.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from tango_cloud.core.errors import TerraformUnusable

PROVIDER = "provider.tf"
"""A file in the folder above the modules that is part of each: how their plugin is configured."""
_NOT_PART = {"examples", "tests", "__pycache__", ".terraform", "README.md"}
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


def module_files(module: Path) -> Mapping[Path, Path]:
    """The files of a module by where they are in it, sorted."""
    files = {
        path.relative_to(module): path
        for path in module.rglob("*")
        if path.is_file()
        and _NOT_PART.isdisjoint(path.relative_to(module).parts)
        and ".tfstate" not in path.name
    }
    if (provider := module.parent / PROVIDER).is_file():
        files[Path(PROVIDER)] = provider
    return dict(sorted(files.items()))


def module_hash(module: Path, salt: str) -> str:
    """16 hex digits that change with any file of the module, and with `salt`."""
    digest = hashlib.sha256(salt.encode())
    for name, path in module_files(module).items():
        content = path.read_bytes()
        digest.update(f"\0{name.as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def copy_module(module: Path, target: Path) -> None:
    """Copy the module's files below `target`, which is made."""
    for name, path in module_files(module).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
