"""The environment and the CLI configuration of a Terraform."""

from __future__ import annotations

from pathlib import Path

import pytest

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.terraform.environment import (
    cli_config,
    find_mirror,
    mirrored_plugins,
    terraform_environment,
    write_cli_config,
)

BASE = {
    "PATH": "/usr/bin",
    "HTTPS_PROXY": "http://proxy",
    "TF_CLI_CONFIG_FILE": "/nowhere",
    "TF_CLI_ARGS": "-no-color",
    "TF_CLI_ARGS_apply": "-parallelism=1",
    "TF_LOG": "trace",
    "TF_LOG_PATH": "/log",
    "TF_VAR_wave": "other",
    "TF_WORKSPACE": "other",
    "TF_DATA_DIR": "/data",
    "TF_REATTACH_PROVIDERS": "{}",
    "TF_PLUGIN_CACHE_DIR": "/theirs",
}


def test_what_disturbs_is_dropped_and_the_rest_stays() -> None:
    assert terraform_environment(
        BASE,
        cli_config=Path("/ours/cli.tfrc"),
        plugin_cache=Path("/ours/plugins"),
        extra={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
    ) == {
        "PATH": "/usr/bin",
        "HTTPS_PROXY": "http://proxy",
        "TF_IN_AUTOMATION": "1",
        "TF_INPUT": "0",
        "CHECKPOINT_DISABLE": "1",
        "TF_CLI_CONFIG_FILE": "/ours/cli.tfrc",
        "TF_PLUGIN_CACHE_DIR": "/ours/plugins",
        "TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    }


def test_without_a_configuration_of_ours_there_is_none() -> None:
    environment = terraform_environment(BASE, cli_config=None, plugin_cache=None)
    assert "TF_CLI_CONFIG_FILE" not in environment


def _mirror(folder: Path, *plugins: str) -> Path:
    for plugin in plugins:
        (folder / plugin / "1.0.0").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("depth", ["", "a", "a/b"])
def test_a_mirror_is_found_up_to_three_levels_down(tmp_path: Path, depth: str) -> None:
    mirror = _mirror(tmp_path / depth, "registry.terraform.io/hashicorp/aws")
    assert find_mirror(None, [tmp_path / "absent", tmp_path]) == mirror


def test_a_mirror_further_down_is_not_looked_for(tmp_path: Path) -> None:
    _mirror(tmp_path / "a/b/c", "registry.terraform.io/hashicorp/aws")
    assert find_mirror(None, [tmp_path]) is None


def test_the_setting_is_final(tmp_path: Path) -> None:
    mirror = _mirror(tmp_path / "m", "registry.terraform.io/hashicorp/aws")
    assert find_mirror(mirror, []) == mirror
    with pytest.raises(ConfigurationError, match=r"terraform\.plugin_mirror"):
        find_mirror(tmp_path, [mirror])


def test_only_what_the_mirror_has_comes_from_it(tmp_path: Path) -> None:
    mirror = _mirror(
        tmp_path, "registry.terraform.io/hashicorp/aws", "registry.terraform.io/hashicorp/time"
    )
    (mirror / "docs" / "x" / "y").mkdir(parents=True)
    plugins = mirrored_plugins(mirror)
    assert plugins == [
        "registry.terraform.io/hashicorp/aws",
        "registry.terraform.io/hashicorp/time",
    ]
    assert (
        cli_config(Path("/m"), plugins)
        == """\
disable_checkpoint = true
provider_installation {
  filesystem_mirror {
    path    = "/m"
    include = ["registry.terraform.io/hashicorp/aws", "registry.terraform.io/hashicorp/time"]
  }
  direct {
    exclude = ["registry.terraform.io/hashicorp/aws", "registry.terraform.io/hashicorp/time"]
  }
}
"""
    )


def test_without_a_mirror_everything_comes_from_the_registry(tmp_path: Path) -> None:
    path = write_cli_config(tmp_path / "cli.tfrc", None)
    assert path.read_text() == "disable_checkpoint = true\n"
    before = path.stat()
    assert write_cli_config(path, None).stat().st_ino == before.st_ino, "unchanged, so not written"
