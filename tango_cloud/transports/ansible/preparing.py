"""Preparing one machine: our playbooks around a course's, in one run of Ansible.

The module is a `Preparer`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tango_cloud.core.errors import Cancelled, PreparationFailed
from tango_cloud.core.model import Endpoint
from tango_cloud.machine import bundle
from tango_cloud.transports.ansible.answers import raise_unreachable
from tango_cloud.transports.ansible.course import PREPARE, SEAL, VERIFY, check, digest
from tango_cloud.transports.ansible.host import NAME, Host
from tango_cloud.transports.ansible.playbooks import (
    AnsibleFailed,
    events,
    has_faults,
    playbooks_root,
)
from tango_cloud.transports.protocol import OnTask, Preparation

__all__ = ["check", "digest", "prepare", "seal"]

_CONNECT_SECONDS = 30.0
_REASON = 1000
"""Characters."""


def prepare(
    endpoint: Endpoint,
    playbook: Path | None,
    *,
    on_task: OnTask | None = None,
    timeout: float,
    stop: threading.Event | None = None,
) -> Preparation:
    """As `Preparer.prepare`."""
    root = playbooks_root()
    course = [playbook.absolute()] if playbook else []
    return _apply([root / PREPARE, *course, root / VERIFY], endpoint, on_task, timeout, stop)


def seal(
    endpoint: Endpoint,
    *,
    on_task: OnTask | None = None,
    timeout: float,
    stop: threading.Event | None = None,
) -> None:
    """As `Preparer.seal`."""
    _apply([playbooks_root() / SEAL], endpoint, on_task, timeout, stop)


def _apply(
    playbooks: Sequence[Path],
    endpoint: Endpoint,
    on_task: OnTask | None,
    timeout: float,
    stop: threading.Event | None,
) -> Preparation:
    deadline = time.monotonic() + timeout
    stop = stop or threading.Event()

    def ended() -> bool:
        return stop.is_set() or time.monotonic() > deadline

    host = Host(endpoint, min(timeout, _CONNECT_SECONDS))
    story = _Story(on_task)
    try:
        autodriver = host.folder / "autodriver"
        autodriver.write_bytes(bundle.autodriver())
        variables = {"driver_autodriver": str(autodriver)}
        hosts = {NAME: host.variables}
        with contextlib.closing(events(playbooks, hosts, variables, ended)) as told:
            story.follow(told)
    except AnsibleFailed as error:
        raise PreparationFailed(str(error)) from error
    finally:
        host.close()
    if stop.is_set():
        raise Cancelled("no longer prepared")
    if ended():
        raise PreparationFailed("not done in time", story.task, story.where)
    return story.end()


class _Story:
    """What ansible-runner has told so far. `task` is the latest, `where` its file and line."""

    def __init__(self, on_task: OnTask | None) -> None:
        self.task = ""
        self.where = ""
        self._on_task = on_task
        self._failure = PreparationFailed("it ended without a word")
        self._unreachable = ""
        self._sum: Mapping[str, Any] = {}

    def follow(self, told: Iterable[Mapping[str, Any]]) -> None:
        """Raises PreparationFailed for a play that is for no machine of ours."""
        for event in told:
            kind, data = event["event"], event.get("event_data", {})
            match kind:
                case "playbook_on_task_start":
                    self.task, self.where = data["task"], _place(data)
                    if self._on_task:
                        self._on_task(self.task)
                case "playbook_on_no_hosts_matched":
                    raise PreparationFailed(f"a play is for `{data['play_pattern']}`, not `all`")
                case "runner_on_failed":
                    reason = _reason(data["res"])
                    self._failure = PreparationFailed(reason, data["task"], _place(data))
                case "runner_on_unreachable":
                    self._unreachable = _reason(data["res"])
                case "playbook_on_stats":
                    self._sum = event

    def end(self) -> Preparation:
        """A task may fail and be rescued: only the sum tells. Raises what went wrong."""
        if not self._sum:
            raise self._failure
        data = self._sum["event_data"]
        if data["dark"]:
            raise_unreachable(self._unreachable)
        if has_faults(self._sum):
            raise self._failure
        left_out = data.get("artifact_data", {}).get("left_out", ())
        return Preparation(sum(data["changed"].values()), sum(data["ok"].values()), tuple(left_out))


def _place(data: Mapping[str, Any]) -> str:
    """`course.yml:12`: the file without its folder."""
    return Path(str(data.get("task_path", ""))).name


def _reason(told: Mapping[str, Any]) -> str:
    """Why a task failed; of a loop, why its first item did."""
    for item in told.get("results", ()):
        if item.get("failed"):
            return _reason(item)
    words = [str(told[key]) for key in ("msg", "module_stderr", "stderr") if told.get(key)]
    return " ".join(words)[:_REASON] or str(told.get("censored", "no reason given"))
