"""The simulated plugin hashicorp/google, put where Terraform finds it. See README.md."""

from __future__ import annotations

import os
import platform
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from tango_cloud.terraform.environment import (
    REGISTRY,
    find_mirror,
    mirrored_plugins,
    write_cli_config,
)

HERE = Path(__file__).parent
VENV = HERE.parents[1] / ".venv-google-plugin"
"""Made by install.sh."""
VERSION = "8.7.0"
"""Of the plugin whose schema it has."""
CHOICE = "TANGO_TESTS_GOOGLE_PLUGIN"
"""`real`: the real plugin is used, from a mirror or its registry."""


class Unavailable(Exception):
    """Why there is no simulated plugin here."""


def is_real() -> bool:
    return os.environ.get(CHOICE) == "real"


def install(folder: Path) -> Mapping[str, str]:
    """Make `folder` a mirror with the simulated plugin, beside those of the mirror that is here.

    Gives the environment by which a Terraform, or tango_cloud, takes plugins from there; nothing
    when the tests are to use the real plugin. Raises Unavailable.
    """
    if is_real():
        return {}
    if not (VENV / ".done").exists():
        raise Unavailable("the simulated Google plugin is not installed: `make test` does it")
    found = find_mirror()
    for name in mirrored_plugins(found) if found is not None else ():
        _link(Path(found or "", name), folder / name)
    plugin = folder / REGISTRY / "hashicorp" / "google" / VERSION / _platform()
    plugin.mkdir(parents=True, exist_ok=True)
    program = plugin / f"terraform-provider-google_v{VERSION}_x6"
    program.write_text(
        "#!/bin/sh\n"
        f"PYTHONPATH='{HERE}' PYTHONDONTWRITEBYTECODE=1 exec '{VENV}/bin/python' -m simulated "
        f"'{VENV}/schema.json'\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return {
        "TF_CLI_CONFIG_FILE": str(write_cli_config(folder / "cli.tfrc", folder)),
        "TANGO_CLOUD_TERRAFORM__PLUGIN_MIRROR": str(folder),
    }


def _link(plugin: Path, target: Path) -> None:
    """The packages of a plugin by links: Terraform follows those of its innermost folders."""
    for package in (path for path in plugin.glob("*/*") if path.is_dir()):
        link = target / package.relative_to(plugin)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(package)
    for archive in (path for path in plugin.glob("*") if path.is_file()):
        link = target / archive.name
        target.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(archive)


def _platform() -> str:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{sys.platform}_{machine}"
