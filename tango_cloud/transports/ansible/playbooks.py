"""Running a playbook of `ansible/` by ansible-runner, and its results as they come."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_runner import Runner, RunnerConfig

from tango_cloud.core.errors import MachineUnreachable

_LAUNCH = "tango_cloud.transports.ansible.launch"
_LOOK_SECONDS = 0.1
"""How often ansible-runner looks whether it is to stop."""
INHERITED = ("HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "USER")
"""Of our own environment Ansible gets no more: neither credentials nor what would change it."""
_RESULTS = {
    "runner_on_ok": "ok",
    "runner_retry": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}

logging.getLogger("ansible-runner").addHandler(logging.NullHandler())


class AnsibleFailed(MachineUnreachable):
    """Ansible itself failed: no result tells why, so that the machine may well be reachable."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one task told of one machine: `kind` is "ok", "failed" or "unreachable".

    `told` is the task's result as Ansible has it. A task that is tried again tells each time.
    """

    host: str
    action: str
    kind: str
    told: Mapping[str, Any]


def playbooks_root() -> Path:
    """The folder of the playbooks: in the installed package, else at the top of the checkout.

    Raises FileNotFoundError when neither is there.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "_ansible", package.parent / "ansible"):
        if (folder / "connect.yml").is_file():
            return folder
    raise FileNotFoundError("the playbooks are missing: install tango-cloud again")


def run(
    playbook: str,
    hosts: Mapping[str, Mapping[str, Any]],
    on_begun: Callable[[], None],
    on_result: Callable[[Result], None],
    stopped: Callable[[], bool],
) -> None:
    """Run the playbook on these machines, whose variables are given, to its end on all of them.

    `on_begun` is called when Ansible has started and begins with a task, `on_result` with each
    result as it comes. The playbook ends early when `stopped`, asked every so often, says so; what
    was started on the machines is not stopped by that. Raises AnsibleFailed.
    """
    path = playbooks_root() / f"{playbook}.yml"
    with contextlib.closing(events([path], hosts, {}, stopped)) as told:
        for event in told:
            if event.get("event") == "playbook_on_task_start":
                on_begun()
            if (result := _result(event)) is not None:
                on_result(result)


def events(
    playbooks: Sequence[Path],
    hosts: Mapping[str, Mapping[str, Any]],
    variables: Mapping[str, Any],
    stopped: Callable[[], bool],
) -> Generator[Mapping[str, Any], None, None]:
    """Run the playbooks one after another, until one fails; what ansible-runner tells, as it comes.

    On all these machines at once, whose own variables are given; `variables` are for all of them.
    Closing the iterator ends it, and so does `stopped`, asked every so often, when it says so.
    Raises AnsibleFailed.
    """
    told: queue.SimpleQueue[Mapping[str, Any] | BaseException | None] = queue.SimpleQueue()
    closed = threading.Event()

    def is_to_stop() -> bool:
        return closed.is_set() or stopped()

    def run() -> None:
        try:
            with private_folder() as folder:
                _run(folder, playbooks, hosts, variables, told.put, is_to_stop)
        except BaseException as error:
            told.put(error)
        else:
            told.put(None)

    thread = threading.Thread(target=run, name=f"ansible-{playbooks[0].stem}")
    thread.start()
    try:
        while (event := told.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event
    finally:
        closed.set()
        thread.join()


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """ansible-runner keeps a record of every run in one; nobody reads it."""
    folder = Path(tempfile.mkdtemp(prefix="tango-cloud-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    folder: Path,
    playbooks: Sequence[Path],
    hosts: Mapping[str, Mapping[str, Any]],
    variables: Mapping[str, Any],
    on_event: Callable[[Mapping[str, Any]], None],
    stopped: Callable[[], bool],
) -> None:
    # In files: others can read a command line.
    inventory, given = folder / "inventory.json", folder / "variables.json"
    for file, told in (inventory, {"all": {"hosts": hosts}}), (given, dict(variables)):
        file.touch(0o600)
        file.write_text(json.dumps(told))
    ours = environment(folder)
    config = RunnerConfig(
        private_data_dir=str(folder),
        playbook=str(playbooks[0]),
        inventory=str(inventory),
        extravars=str(given),
        forks=len(hosts),
        settings={"pexpect_timeout": _LOOK_SECONDS},
        envvars=ours,
        quiet=True,
    )
    config.prepare()
    config.env = {
        name: value
        for name, value in config.env.items()
        if name in ours or name in INHERITED or os.environ.get(name) != value
    }
    config.command[:1] = launcher()
    config.command += [str(playbook) for playbook in playbooks[1:]]
    said: list[str] = []
    faults = False

    def hear(event: dict[str, Any]) -> bool:
        nonlocal faults
        on_event(event)
        faults = faults or has_faults(event)
        said.append(str(event.get("stdout", "")))
        del said[:-5]
        return False  # not kept on disk

    runner = Runner(config=config, event_handler=hear, cancel_callback=stopped)
    status, _ = runner.run()
    if status == "failed" and not faults:  # else results have told what failed
        end = "\n".join(said).strip()[-500:]
        raise AnsibleFailed(f"ansible-playbook failed ({runner.rc}): {end}")


def has_faults(event: Mapping[str, Any]) -> bool:
    """Whether it is the sum of a playbook that failed on a machine, or did not reach one."""
    if event.get("event") != "playbook_on_stats":
        return False
    return bool(event["event_data"]["failures"] or event["event_data"]["dark"])


def launcher() -> list[str]:
    """The words that stand for `ansible-playbook` on a command line."""
    return [sys.executable, "-m", _LAUNCH, str(os.getpid())]


def environment(folder: Path) -> dict[str, str]:
    """What Ansible is told by it, beside what it inherits; its own files go into `folder`."""
    return {
        "ANSIBLE_CALLBACK_PLUGINS": "",  # ansible-runner adds its own
        "ANSIBLE_CONFIG": str(playbooks_root() / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # ansible-runner would switch it off
        "LC_ALL": "C.UTF-8",
    }


def _result(event: Mapping[str, Any]) -> Result | None:
    kind = _RESULTS.get(str(event.get("event")))
    if kind is None:
        return None
    data = event["event_data"]
    return Result(str(data["host"]), str(data.get("task_action")), kind, data.get("res") or {})
