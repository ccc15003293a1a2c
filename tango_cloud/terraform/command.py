"""Command lines, without the program's name. Pure: nothing here runs anything.

python-terraform builds them, with the one function of it that is sound, `generate_cmd_string`. What
it would run itself does not work on Terraform 1.x (`destroy` passes an option that was removed,
`apply` does not approve, nothing streams or times out), so only lists come from here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import python_terraform

STDIN = Path("/dev/stdin")
"""As a variables file: what is secret comes this way and is never on disk under a name."""
LOCK_SECONDS = 600
"""How long a command waits for another one on the same state."""
_FLAG = python_terraform.IsFlagged


class _Builder(python_terraform.Terraform):  # type: ignore[misc]  # the package has no types
    def read_state_file(self, file_path: str | None = None) -> None:
        """Nothing: the original reads any state it finds in the current directory."""


_builder = _Builder(terraform_bin_path="terraform")


def _build(command: str, *arguments: str, **options: object) -> list[str]:
    words: list[str] = _builder.generate_cmd_string(command, *arguments, **options)
    return words[1:]


def _in_file(state: Path | None, **options: str) -> dict[str, object]:
    """Options for a state in a file; the backend's takes none."""
    return {} if state is None else {"state": str(state), **options}


def init() -> list[str]:
    return _build("init", input=False, no_color=_FLAG)


def apply(
    state: Path | None,
    var_files: Sequence[Path],
    *,
    parallelism: int,
    destroy: bool = False,
    refresh: bool = False,
) -> list[str]:
    """Apply, or with `destroy` remove, everything.

    Machines go without a refresh: what exists is told by the inventory, and asking the cloud costs
    one call per resource. No backup of the state is left beside it. `state` None: the backend's.
    """
    return _build(
        "apply",
        **({"destroy": _FLAG} if destroy else {}),
        auto_approve=_FLAG,
        json=_FLAG,
        input=False,
        refresh=refresh,
        lock_timeout=f"{LOCK_SECONDS}s",
        parallelism=parallelism,
        **_in_file(state, backup="-"),
        var_file=[str(file) for file in var_files],
    )


def output(state: Path | None) -> list[str]:
    return _build("output", json=_FLAG, no_color=_FLAG, **_in_file(state))


def state_list() -> list[str]:
    """The addresses in the backend's state, one a line."""
    return _build("state list", no_color=_FLAG)


def state_pull() -> list[str]:
    """The backend's state."""
    return _build("state pull")


def state_rm(
    state: Path | None, addresses: Sequence[str], *, lock_seconds: int = LOCK_SECONDS
) -> list[str]:
    """Fails when none of `addresses` is in the state; some may be missing."""
    # "-" would be a file's name here, and without the option a backup is left at each call.
    return _build(
        "state rm",
        *addresses,
        no_color=_FLAG,
        lock_timeout=f"{lock_seconds}s",
        **_in_file(state, backup=os.devnull),
    )


def force_unlock(lock: str) -> list[str]:
    return _build("force-unlock", lock, force=_FLAG, no_color=_FLAG)


def workspace_list() -> list[str]:
    """One a line, the chosen one after an asterisk."""
    return _build("workspace list", no_color=_FLAG)


def workspace_delete(name: str) -> list[str]:
    """With what its state holds. Fails when it is the chosen one, or does not exist."""
    return _build(
        "workspace delete", name, force=_FLAG, no_color=_FLAG, lock_timeout=f"{LOCK_SECONDS}s"
    )


def validate() -> list[str]:
    return _build("validate", json=_FLAG)


def test() -> list[str]:
    return _build("test", no_color=_FLAG)


def fmt(folder: Path, *, check: bool) -> list[str]:
    return _build("fmt", str(folder), recursive=_FLAG, **({"check": _FLAG} if check else {}))


def address(resource: str, key: str) -> str:
    """The address of one instance of a resource with for_each: `aws_instance.machine["key"]`."""
    quoted = json.dumps(key, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")
    return f"{resource}[{quoted}]"


def variables(values: dict[str, object]) -> str:
    """`values` as a variables file in Terraform's own syntax, which is what it reads from STDIN.

    JSON is nearly that: only templates must be told from text, and two escapes are unknown there.
    """
    return "".join(f"{name} = {_expression(value)}\n" for name, value in values.items())


def _expression(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return (
        text.replace("${", "$${")
        .replace("%{", "%%{")
        .replace("\\b", "\\u0008")
        .replace("\\f", "\\u000c")
    )
