"""`python -m tango_cloud.terraform ARGS`: the resolved Terraform, in our environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tango_cloud.core.errors import TerraformUnusable
from tango_cloud.terraform.binary import resolve
from tango_cloud.terraform.environment import terraform_environment


def main(arguments: list[str]) -> None:
    """Become Terraform. Exits with 3 when there is none."""
    setting = os.environ.get("TANGO_CLOUD_TERRAFORM__BINARY")
    try:
        binary = resolve(None if setting is None else Path(setting))
    except TerraformUnusable as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)
    environment = terraform_environment(os.environ, cli_config=None, plugin_cache=None)
    argv = [*binary.argv, *arguments]
    os.execve(argv[0], argv, environment)  # noqa: S606  (no shell wanted)


if __name__ == "__main__":
    main(sys.argv[1:])
