"""The modules on their own: `terraform validate`, `terraform test`, formatting, and their form.

Those of a cloud are tested against a mocked one, but by its plugin, which is large: with one
Terraform, and where the plugin can be had. Google's is simulated, with the schema of the real one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import TerraformError, TerraformUnusable
from tango_cloud.terraform import command
from tango_cloud.terraform.binary import Binary, resolve
from tango_cloud.terraform.environment import (
    REGISTRY,
    find_mirror,
    mirrored_plugins,
    terraform_environment,
    write_cli_config,
)
from tango_cloud.terraform.modules import copy_module, modules_root
from tango_cloud.terraform.runner import Terraform

MODULES = sorted(
    path.parent.relative_to(modules_root()).as_posix()
    for path in modules_root().glob("*/*/main.tf")
)
WAVES = [module for module in MODULES if module.endswith("/wave")]
MORE = {"gcp/wave": {"run_seconds"}, "local/wave": {"home"}}
"""What a wave is told besides: Compute Engine itself ends machines, if told when; a local machine's
image is a folder."""
FIRST_WITH_TEST = (1, 6, 0)
FIRST_WITH_MOCKS = (1, 8, 0)
"""OpenTofu's; Terraform has them from 1.7 on."""


@pytest.fixture(scope="module")
def terraform(binary: Binary) -> Terraform:
    environment = terraform_environment(os.environ, cli_config=None, plugin_cache=None)
    return Terraform(binary, environment)


@pytest.fixture(scope="module")
def with_plugins(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """The Terraform that is preferred here, with plugins from a mirror if there is one."""
    configuration = write_cli_config(tmp_path_factory.mktemp("cli") / "cli.tfrc", find_mirror())
    return _preferred({"TF_CLI_CONFIG_FILE": str(configuration)})


@pytest.fixture(scope="module")
def with_google(
    google_plugin: Mapping[str, str], with_plugins: Terraform
) -> tuple[Terraform, bool]:
    """With the simulated Google plugin, and whether it is that: the real one if so chosen."""
    return (_preferred(google_plugin), True) if google_plugin else (with_plugins, False)


def _preferred(more: Mapping[str, str]) -> Terraform:
    try:
        binary = resolve()
    except TerraformUnusable as error:
        pytest.skip(str(error))
    # An address that nobody has: no cloud is asked, mocked or not.
    nowhere = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_REGION": "us-east-1",
        "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": "http://127.0.0.1:1/compute/v1/",
    }
    environment = terraform_environment(os.environ, cli_config=None, plugin_cache=None)
    return Terraform(binary, environment | nowhere | dict(more))


@pytest.mark.parametrize("module", ["local/envelope", "local/wave"])
def test_a_module_is_valid_and_passes_its_tests(
    terraform: Terraform, tmp_path: Path, module: str
) -> None:
    _copy_with_tests(module, tmp_path)
    terraform.run(command.init(), tmp_path)
    _validate(terraform, tmp_path)
    _test(terraform, tmp_path, FIRST_WITH_TEST)


@pytest.mark.parametrize("module", ["aws/envelope", "aws/wave"])
def test_a_module_of_a_cloud_is_valid_and_passes_its_tests(
    with_plugins: Terraform, tmp_path: Path, module: str
) -> None:
    _copy_with_tests(module, tmp_path)
    _init_or_skip(with_plugins, tmp_path, "hashicorp/aws")
    _validate(with_plugins, tmp_path)
    _test(with_plugins, tmp_path, FIRST_WITH_MOCKS)


@pytest.mark.parametrize("module", ["gcp/envelope", "gcp/wave"])
def test_a_module_for_google_is_valid_and_passes_its_tests(
    with_google: tuple[Terraform, bool], tmp_path: Path, module: str
) -> None:
    terraform, is_simulated = with_google
    _copy_with_tests(module, tmp_path)
    _init_or_skip(terraform, tmp_path, "hashicorp/google", is_here=is_simulated)
    _validate(terraform, tmp_path)
    _test(terraform, tmp_path, FIRST_WITH_MOCKS)


def test_the_example_is_valid(with_plugins: Terraform, tmp_path: Path) -> None:
    example = _copy_example("aws", tmp_path)
    _init_or_skip(with_plugins, example, "hashicorp/aws")
    _validate(with_plugins, example)


def test_the_example_for_google_is_valid(
    with_google: tuple[Terraform, bool], tmp_path: Path
) -> None:
    terraform, is_simulated = with_google
    example = _copy_example("gcp", tmp_path)
    _init_or_skip(terraform, example, "hashicorp/google", is_here=is_simulated)
    _validate(terraform, example)


def _copy_example(cloud: str, target: Path) -> Path:
    shutil.copytree(modules_root() / cloud, target / cloud, ignore=_made_by_terraform)
    return target / cloud / "wave" / "examples" / "standalone"


def _copy_with_tests(module: str, target: Path) -> None:
    copy_module(modules_root() / module, target)
    shutil.copytree(modules_root() / module / "tests", target / "tests")


def _made_by_terraform(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == ".terraform" or ".tfstate" in name]


def _init_or_skip(
    terraform: Terraform, folder: Path, plugin: str, *, is_here: bool = False
) -> None:
    mirror = find_mirror()
    is_here |= mirror is not None and f"{REGISTRY}/{plugin}" in mirrored_plugins(mirror)
    try:
        terraform.run(command.init(), folder)
    except TerraformError as error:
        if is_here:
            raise
        pytest.skip(f"the plugin {plugin} is in no mirror here, nor to be had: {error}")


def _validate(terraform: Terraform, folder: Path) -> None:
    assert json.loads(terraform.run(command.validate(), folder).stdout)["valid"]


def _test(terraform: Terraform, folder: Path, first_version: tuple[int, int, int]) -> None:
    if terraform.binary.version >= first_version:
        result = terraform.run(command.test(), folder)
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


@pytest.mark.parametrize("module", WAVES)
def test_every_wave_has_the_same_interface(module: str) -> None:
    folder = modules_root() / module
    variables = (folder / "variables.tf").read_text()
    outputs = (folder / "outputs.tf").read_text()
    assert _names("variable", variables) == {
        *("deployment", "wave", "machines", "user_data", "envelope")
    }
    assert _names("output", outputs) == {"machines"}
    assert _attributes(r"type = map\(object\(\{\n(.*?)^  \}\)\)", variables) == {
        *("image", "instance_type", "zone", "market", "disk_gib", "tags", "expires"),
        *MORE.get(module, ()),
    }
    assert _attributes(r"uid => \{\n(.*?)^    \}", outputs) == {
        *("instance_id", "address", "port", "zone", "instance_type")
    }


@pytest.mark.parametrize("module", [wave.replace("/wave", "/envelope") for wave in WAVES])
def test_every_envelope_is_a_deployment_s_and_gives_one_object(module: str) -> None:
    folder = modules_root() / module
    assert "deployment" in _names("variable", (folder / "variables.tf").read_text())
    assert _names("output", (folder / "outputs.tf").read_text()) == {"envelope"}


def test_aws_and_gcp_keep_one_contract() -> None:
    """What a person who knows one of them has to learn for the other is in these differences."""
    aws, gcp = (modules_root() / cloud / "envelope" for cloud in ("aws", "gcp"))
    types = {folder: _types((folder / "variables.tf").read_text()) for folder in (aws, gcp)}
    # An existing network is told by what each cloud calls its parts.
    assert types[aws].pop("network").keys() == {"vpc_id", "subnet_ids"}
    assert types[gcp].pop("network").keys() == {"network", "subnetworks"}
    assert types[aws] == types[gcp]
    given = {folder: _attributes(_VALUE, (folder / "outputs.tf").read_text()) for folder in types}
    common = {"subnets", "public_address", "kms_key_id"}
    assert given[aws] - given[gcp] == {
        *("security_group_id", "launch_template_id", "launch_template_version")
    }
    assert given[gcp] - given[aws] == {"network_tag"}
    assert given[aws] & given[gcp] == common

    aws, gcp = (modules_root() / cloud / "wave" for cloud in ("aws", "gcp"))
    types = {folder: _types((folder / "variables.tf").read_text()) for folder in (aws, gcp)}
    assert types[gcp]["machines"].pop("run_seconds") == "number"
    envelopes = [types[folder].pop("envelope") for folder in (aws, gcp)]
    assert [envelope.keys() for envelope in envelopes] == list(given.values())
    for name in common:
        assert envelopes[0][name] == envelopes[1][name]
    assert types[aws] == types[gcp]


_VALUE = r"value = \{\n(.*?)^  \}"


def _names(kind: str, text: str) -> Set[str]:
    return set(re.findall(rf'^{kind} "(\w+)"', text, re.MULTILINE))


def _types(text: str) -> dict[str, Any]:
    """The type of each variable, of an object (or a map of objects) that of each attribute."""
    found: dict[str, Any] = {}
    for name, body in re.findall(r'^variable "(\w+)" \{\n(.*?)^\}', text, re.MULTILINE | re.DOTALL):
        kind = re.search(r"^  type += (\S.*?)(?:\n(.*?)^  \}\)+)?$", body, re.MULTILINE | re.DOTALL)
        assert kind is not None, name
        attributes = re.findall(r"^    (\w+) += (.+)$", kind.group(2) or "", re.MULTILINE)
        found[name] = dict(attributes) or kind.group(1)
    return found


def _attributes(block: str, text: str) -> Set[str]:
    found = re.search(block, text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return set(re.findall(r"^ +(\w+) +=", found.group(1), re.MULTILINE))
