from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.machine import facts
from tango_cloud.machine.failures import Failure


def as_root(monkeypatch: pytest.MonkeyPatch, root: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 54321)


def test_root_gives_jobs_to_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, True)
    told = facts.interpret({"job_user": 61234, "work_dir": "/srv/jobs/"})
    assert told.job_user == facts.User(61234, 61234, "61234")
    assert told.separate
    assert told.work_dir == "/srv/jobs"


def test_root_without_a_word_takes_tangos_account_or_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    as_root(monkeypatch, True)
    told = facts.interpret({})
    assert told.job_user.name == facts.TANGOS_ACCOUNT or told.job_user.uid == facts.NOBODY
    assert told.work_dir == "/var/lib/tango-cloud"


def test_without_root_jobs_run_as_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, False)
    monkeypatch.setenv("HOME", "/home/someone")
    told = facts.interpret({"job_user": 61234})
    assert told.job_user.uid == 54321
    assert not told.separate
    assert told.work_dir.startswith("/home/someone/")


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"job_user": 0}, "root"),
        ({"job_user": "root"}, "root"),
        ({"job_user": "nobody-has-this-name"}, "no user"),
        ({"job_user": True}, "neither"),
        ({"job_user": -1}, "neither"),
        ({"work_dir": "jobs"}, "absolute"),
        ({"work_dir": 3}, "absolute"),
        ({"levels": "limits"}, "list of words"),
        ({"host_key": {"stage": "make-key"}}, "list of words"),
        ({"host_key": [1]}, "list of words"),
    ],
)
def test_what_makes_no_sense_is_refused(
    told: dict[str, Any], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_root(monkeypatch, True)
    with pytest.raises(Failure, match=fault):
        facts.interpret(told)


def test_the_file_is_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text(json.dumps({"work_dir": "/srv/x", "host_key": {"stage": ["a", "b"]}}))
    told = facts.load({facts.VARIABLE: str(file)})
    assert told.work_dir == "/srv/x"
    assert told.stage_host_key == ("a", "b")
    assert told.activate_host_key == ()


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_file_that_is_named_must_be_good(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "machine.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Failure):
        facts.load({facts.VARIABLE: str(file)})
