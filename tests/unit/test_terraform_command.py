"""Command lines, to the exact list."""

from __future__ import annotations

from pathlib import Path

import pytest

from tango_cloud.terraform import command

STATE = Path("/state/terraform.tfstate")
INPUTS = Path("/state/inputs.tfvars.json")


def test_init() -> None:
    assert command.init() == ["init", "-input=false", "-no-color"]


def test_apply_creates_without_asking_and_without_refresh() -> None:
    assert command.apply(STATE, [INPUTS, command.STDIN], parallelism=50) == [
        "apply",
        "-auto-approve",
        "-json",
        "-input=false",
        "-refresh=false",
        "-lock-timeout=600s",
        "-parallelism=50",
        "-state=/state/terraform.tfstate",
        "-backup=-",
        "-var-file=/state/inputs.tfvars.json",
        "-var-file=/dev/stdin",
    ]


def test_apply_destroys() -> None:
    assert command.apply(STATE, [INPUTS], parallelism=7, destroy=True) == [
        "apply",
        "-destroy",
        "-auto-approve",
        "-json",
        "-input=false",
        "-refresh=false",
        "-lock-timeout=600s",
        "-parallelism=7",
        "-state=/state/terraform.tfstate",
        "-backup=-",
        "-var-file=/state/inputs.tfvars.json",
    ]


def test_output() -> None:
    assert command.output(STATE) == [
        "output",
        "-json",
        "-no-color",
        "-state=/state/terraform.tfstate",
    ]


def test_a_state_in_a_backend_is_no_option() -> None:
    words = command.apply(None, [INPUTS], parallelism=1)
    assert not [word for word in words if word.startswith(("-state", "-backup"))]
    assert command.output(None) == ["output", "-json", "-no-color"]
    assert command.state_rm(None, ['a.b["c"]'], lock_seconds=0) == [
        "state",
        "rm",
        "-no-color",
        "-lock-timeout=0s",
        'a.b["c"]',
    ]


def test_forgetting_leaves_no_backup() -> None:
    assert command.state_rm(STATE, ['a.b["c"]', "d.e"]) == [
        "state",
        "rm",
        "-no-color",
        "-lock-timeout=600s",
        "-state=/state/terraform.tfstate",
        "-backup=/dev/null",
        'a.b["c"]',
        "d.e",
    ]


def test_states_in_a_backend() -> None:
    assert command.state_list() == ["state", "list", "-no-color"]
    assert command.force_unlock("1-2") == ["force-unlock", "-force", "-no-color", "1-2"]
    assert command.workspace_list() == ["workspace", "list", "-no-color"]
    assert command.workspace_delete("w1") == [
        "workspace",
        "delete",
        "-force",
        "-no-color",
        "-lock-timeout=600s",
        "w1",
    ]


def test_validate_and_test() -> None:
    assert command.validate() == ["validate", "-json"]
    assert command.test() == ["test", "-no-color"]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (False, ["fmt", "-recursive", "/modules"]),
        (True, ["fmt", "-recursive", "-check", "/modules"]),
    ],
)
def test_fmt(check: bool, expected: list[str]) -> None:
    assert command.fmt(Path("/modules"), check=check) == expected


def test_building_reads_no_state_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "terraform.tfstate").write_text("not a state")
    monkeypatch.chdir(tmp_path)
    assert command.init()[0] == "init"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("0123456789ab", 'a.b["0123456789ab"]'),
        ('quo"te', 'a.b["quo\\"te"]'),
        ("${x} %{y}", 'a.b["$${x} %%{y}"]'),
    ],
)
def test_an_address_quotes_its_key(key: str, expected: str) -> None:
    assert command.address("a.b", key) == expected


def test_variables_are_text_and_never_templates() -> None:
    text = command.variables(
        {"user_data": {"a": 'x "${y}" %{z}\n\b\f\\ é😀'}, "n": [1, None, True]}
    )
    assert text == (
        'user_data = {"a": "x \\"$${y}\\" %%{z}\\n\\u0008\\u000c\\\\ é😀"}\nn = [1, null, true]\n'
    )
