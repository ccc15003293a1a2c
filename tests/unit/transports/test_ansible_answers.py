"""What Ansible's results mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import (
    AuthenticationError,
    HostKeyMismatch,
    JobRefused,
    MachineDamaged,
    MachineUnreachable,
    OutputError,
)
from tango_cloud.transports.ansible.answers import answers, reply
from tango_cloud.transports.ansible.playbooks import Result

COMMAND = "ansible.builtin.command"


def result(kind: str = "ok", action: str = COMMAND, **told: Any) -> Result:
    return Result("machine", action, kind, told)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("Host key verification failed.", HostKeyMismatch),
        ("no matching host key type found. Their offer: ssh-rsa", HostKeyMismatch),
        ("a@b: Permission denied (publickey).", AuthenticationError),
        ("ssh: connect to host b port 22: Connection refused", MachineUnreachable),
    ],
)
def test_why_a_machine_could_not_be_asked(message: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        list(answers([result("unreachable", msg=f"Failed to connect: {message}")]))
    assert caught.type is error


def test_answers_are_those_of_commands() -> None:
    told = [{"output": "", "ended": False}, {"reply": {}, "ended": True}]
    results = [result(stdout=json.dumps(one)) for one in told]
    results.insert(1, result(action="ansible.builtin.copy"))
    assert list(answers(results)) == told


def test_a_machine_is_not_waited_for_beyond_its_last_answer() -> None:
    def others() -> Iterator[Result]:
        yield result(stdout='{"file": "/there"}')
        yield result("ok", "ansible.builtin.fetch")
        yield result("ok", "ansible.builtin.file")
        raise AssertionError("another machine was waited for")

    assert list(answers(others())) == [{"file": "/there"}]


def test_what_is_left_after_a_failed_fetch_is_waited_for() -> None:
    results = iter(
        [
            result(stdout='{"file": "/there"}'),
            result("failed", "ansible.builtin.fetch", msg="disk full"),
            result("ok", "ansible.builtin.file"),
        ]
    )
    with pytest.raises(OutputError, match="disk full"):
        list(answers(results, Path("output")))
    assert not list(results)


def test_a_failure_of_the_agent() -> None:
    failure = {"failure": {"kind": "refused", "message": "no"}}
    with pytest.raises(JobRefused, match="no"):
        list(answers([result(stdout=json.dumps(failure))]))


def test_a_task_that_failed() -> None:
    failed = result("failed", msg="non-zero return code", rc=1, stderr="not ours")
    for output in (None, Path("output")):
        with pytest.raises(MachineDamaged, match="not ours"):
            list(answers([failed], output))
    not_fetched = result("failed", "ansible.builtin.fetch", msg="disk full")
    with pytest.raises(OutputError, match="disk full"):
        list(answers([not_fetched], Path("output")))


def test_a_cancelled_job_has_no_outcome() -> None:
    assert reply({"reply": {"exit_status": 0}}) == {"exit_status": 0}
    with pytest.raises(MachineUnreachable, match="cancelled"):
        reply({"reply": {"cancelled": True}})
