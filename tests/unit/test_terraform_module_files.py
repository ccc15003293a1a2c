"""What a module consists of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tango_cloud.terraform.modules import copy_module, module_hash


@pytest.fixture
def module(tmp_path: Path) -> Path:
    module = tmp_path / "cloud" / "wave"
    (module / "machine").mkdir(parents=True)
    (module / "main.tf").write_text("# the module")
    (module / "machine" / "start.py").write_text("# its program")
    return module


def _copied(module: Path, target: Path) -> set[str]:
    copy_module(module, target)
    return {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}


def test_what_is_not_needed_to_apply_a_module_is_not_part_of_it(
    module: Path, tmp_path: Path
) -> None:
    before = module_hash(module, "")
    for name in ("tests/a.tftest.hcl", "examples/one/main.tf", ".terraform/x", "README.md"):
        (module / name).parent.mkdir(parents=True, exist_ok=True)
        (module / name).write_text("more")
    (module / "terraform.tfstate.backup").write_text("{}")
    assert module_hash(module, "") == before != module_hash(module, "salt")
    assert _copied(module, tmp_path / "target") == {"main.tf", "machine/start.py"}


@pytest.mark.parametrize("file", [".terraform.lock.hcl", "../provider.tf"])
def test_a_lock_file_and_the_plugin_s_configuration_are_part_of_it(
    module: Path, tmp_path: Path, file: str
) -> None:
    without = module_hash(module, "")
    (module / file).write_text("one")
    one = module_hash(module, "")
    (module / file).write_text("two")
    assert len({without, one, module_hash(module, "")}) == 3
    name = Path(file).name
    assert _copied(module, tmp_path / "target") == {"main.tf", "machine/start.py", name}
    assert (tmp_path / "target" / name).read_text() == "two"
