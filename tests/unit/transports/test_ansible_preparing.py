"""What becomes of a preparation, by what Ansible told of it."""

from __future__ import annotations

from typing import Any

import pytest

from tango_cloud.core.errors import AuthenticationError, PreparationFailed
from tango_cloud.transports.ansible.preparing import _Story
from tango_cloud.transports.protocol import Preparation


def started(task: str, line: int = 1) -> dict[str, Any]:
    data = {"task": task, "task_path": f"/courses/course.yml:{line}"}
    return {"event": "playbook_on_task_start", "event_data": data}


def ended(kind: str, task: str, line: int = 1, **res: object) -> dict[str, Any]:
    data = {"task": task, "task_path": f"/courses/course.yml:{line}", "res": res}
    return {"event": f"runner_on_{kind}", "event_data": data}


def stats(**changes: object) -> dict[str, Any]:
    none: dict[str, object] = {"failures": {}, "dark": {}, "ok": {}, "changed": {}}
    return {"event": "playbook_on_stats", "event_data": {**none, **changes}}


def outcome(*told: dict[str, Any]) -> Preparation:
    story = _Story(None)
    story.follow(told)
    return story.end()


def test_the_last_sum_counts_for_all_playbooks() -> None:
    tasks: list[str] = []
    story = _Story(tasks.append)
    left_out = {"left_out": ["bubblewrap"]}
    story.follow(
        [
            started("one"),
            stats(ok={"machine": 1}, artifact_data={}),
            started("two", 7),
            stats(ok={"machine": 5}, changed={"machine": 2}, artifact_data=left_out),
        ]
    )
    assert tasks == ["one", "two"]
    assert (story.task, story.where) == ("two", "course.yml:7")
    assert story.end() == Preparation(changed=2, ok=5, left_out=("bubblewrap",))


def test_a_failure_that_was_rescued_is_none() -> None:
    told = [ended("failed", "try", msg="no"), stats(ok={"machine": 1}, rescued={"machine": 1})]
    assert outcome(*told) == Preparation(changed=0, ok=1)


def test_the_task_that_failed_is_told_with_its_reason() -> None:
    results = [{"msg": "fine"}, {"failed": True, "msg": "not this", "stderr": "at all"}]
    told = [
        ended("failed", "try", msg="no"),
        ended("failed", "loop", 9, msg="One or more items failed", results=results),
        stats(failures={"machine": 1}),
    ]
    with pytest.raises(
        PreparationFailed, match=r"course\.yml:9, 'loop': not this at all"
    ) as failed:
        outcome(*told)
    assert (failed.value.task, failed.value.where) == ("loop", "course.yml:9")
    hidden = ended("failed", "secret", censored="hidden by no_log")
    with pytest.raises(PreparationFailed, match="hidden by no_log"):
        outcome(hidden, stats(failures={"machine": 1}))
    with pytest.raises(PreparationFailed, match="without a word"):
        outcome(started("one"))


def test_a_machine_that_refuses_us_is_no_failure_of_the_playbook() -> None:
    refused = ended("unreachable", "one", msg="tango@192.0.2.1: Permission denied (publickey)")
    with pytest.raises(AuthenticationError):
        outcome(refused, stats(dark={"machine": 1}))
