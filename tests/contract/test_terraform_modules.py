"""The modules on their own: `terraform validate`, `terraform test`, formatting, and their form."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tango_cloud.terraform import command
from tango_cloud.terraform.binary import Binary
from tango_cloud.terraform.environment import terraform_environment
from tango_cloud.terraform.modules import copy_module, modules_root
from tango_cloud.terraform.runner import Terraform

MODULES = sorted(
    path.parent.relative_to(modules_root()).as_posix() for path in modules_root().rglob("main.tf")
)
FIRST_WITH_TEST = (1, 6, 0)


@pytest.fixture(scope="module")
def terraform(binary: Binary) -> Terraform:
    environment = terraform_environment(os.environ, cli_config=None, plugin_cache=None)
    return Terraform(binary, environment)


@pytest.mark.parametrize("module", ["local/envelope", "local/wave"])
def test_a_module_is_valid_and_passes_its_tests(
    terraform: Terraform, tmp_path: Path, module: str
) -> None:
    copy_module(modules_root() / module, tmp_path)
    tests = tmp_path / "tests"
    tests.mkdir()
    for file in (modules_root() / module / "tests").iterdir():
        (tests / file.name).write_bytes(file.read_bytes())
    terraform.run(command.init(), tmp_path)
    assert json.loads(terraform.run(command.validate(), tmp_path).stdout)["valid"]
    if terraform.binary.version >= FIRST_WITH_TEST:
        result = terraform.run(command.test(), tmp_path)
        assert re.search(r"\b0 failed", result.stdout)
        assert re.search(r"[1-9]\d* passed", result.stdout)


def test_everything_is_formatted(terraform: Terraform, tmp_path: Path) -> None:
    terraform.run(command.fmt(modules_root(), check=True), tmp_path)


@pytest.mark.parametrize("module", MODULES)
def test_every_variable_and_output_is_described(module: str) -> None:
    folder = modules_root() / module
    for name in ("main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"):
        assert (folder / name).is_file(), name
    for name in ("variables.tf", "outputs.tf"):
        text = (folder / name).read_text()
        blocks = re.findall(
            r'^(?:variable|output) "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL
        )
        assert blocks
        readme = (folder / "README.md").read_text()
        for block, body in blocks:
            description = re.search(r'^  description = "(.*)"$', body, re.MULTILINE)
            assert description is not None, block
            assert description.group(1).endswith("."), block
            assert f"| `{block}` |" in readme, f"{block} is missing from the README's table"
            if name == "variables.tf":
                assert re.search(r"^  type +=", body, re.MULTILINE), block
