"""What the results of a playbook mean: the agent's answers, or our errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tango_cloud.core.errors import (
    AuthenticationError,
    HostKeyMismatch,
    MachineDamaged,
    MachineUnreachable,
    OutputError,
    TangoCloudError,
)
from tango_cloud.transports.ansible.playbooks import Result
from tango_cloud.transports.failures import raise_failure

_COMMAND = "ansible.builtin.command"
_FETCH = "ansible.builtin.fetch"
_FILE = "ansible.builtin.file"
_HOST_KEY = (
    "Host key verification failed",
    "host key is known",
    "IDENTIFICATION HAS CHANGED",
    "no matching host key type",
)
_REFUSED = ("Permission denied", "Too many authentication failures")


def answers(results: Iterable[Result], output: Path | None = None) -> Iterator[dict[str, Any]]:
    """The agent's answers, one for each command that it was asked by, to the last of this machine.

    Raises the first error, once the playbook has cleaned up behind it: what a failure of the
    agent's stands for; HostKeyMismatch, AuthenticationError or MachineUnreachable when it could
    not be asked; OutputError for `output` when this host could not take it; MachineDamaged when
    something else failed.
    """
    first: TangoCloudError | None = None
    for result in results:
        try:
            _check(result, output)
            if result.action == _COMMAND:
                yield _answer(result)
        except TangoCloudError as error:
            first = first or error
        if _is_last(result):
            break
    if first is not None:
        raise first


def _is_last(result: Result) -> bool:
    """Whether the playbook does nothing more on this machine that anybody waits for."""
    if result.kind != "ok":
        return result.action != _FETCH  # after which the file there is removed
    if result.action == _COMMAND:
        told = json.loads(result.told["stdout"])
        return bool(told.get("ended", True)) and "file" not in told
    return result.action == _FILE


def _check(result: Result, output: Path | None) -> None:
    message = str(result.told.get("msg", ""))
    if result.kind == "unreachable":
        raise_unreachable(message)
    if result.kind == "failed":
        if output is not None and "rc" not in result.told:  # no command's: it failed over here
            raise OutputError(output, message)
        said = str(result.told.get("module_stderr") or result.told.get("stderr") or "")
        raise MachineDamaged(f"{message} {said[-500:]}".strip())


def _answer(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(result.told["stdout"])
    if "failure" in told:
        raise_failure(told["failure"])
    return told


def reply(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """A job's outcome, or what else was replied. Raises MachineUnreachable for a cancelled job."""
    answer: Mapping[str, Any] = told["reply"]
    if answer.get("cancelled"):
        raise MachineUnreachable("the job was cancelled")
    return answer


def raise_unreachable(message: str) -> NoReturn:
    """By what OpenSSH wrote: Ansible has one kind of error for all of them."""
    if any(words in message for words in _HOST_KEY):
        raise HostKeyMismatch(message)
    if any(words in message for words in _REFUSED):
        raise AuthenticationError(message)
    raise MachineUnreachable(message)
