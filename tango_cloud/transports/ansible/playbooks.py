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
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_runner import Runner, RunnerConfig

from tango_cloud.core.errors import MachineUnreachable

_LAUNCH = "tango_cloud.transports.ansible.launch"
_LOOK_SECONDS = 0.1
"""How often ansible-runner looks whether it is to stop."""
_INHERITED = ("HOME", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "USER")
"""Of our own environment Ansible gets no more: neither credentials nor what would change it."""
_TOLD = (2, 4)
"""ansible-playbook's exit codes for failed and unreachable machines: results have told of them."""
_RESULTS = {
    "runner_on_ok": "ok",
    "runner_retry": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}

logging.getLogger("ansible-runner").addHandler(logging.NullHandler())


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


def play(
    playbook: str,
    inventory: Path,
    variables: Mapping[str, Any],
    stopped: Callable[[], bool],
) -> Generator[Result, None, None]:
    """Run the playbook on all machines of the inventory; its results as they come.

    Closing the iterator ends the playbook, and so does `stopped`, asked every so often, when it
    says so: the results end then. What was started on the machine is not stopped by that. Raises
    MachineUnreachable when Ansible itself failed.
    """
    results: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
    closed = threading.Event()

    def is_to_stop() -> bool:
        return closed.is_set() or stopped()

    def run() -> None:
        try:
            with _private_folder() as folder:
                _run(folder, playbook, inventory, variables, results.put, is_to_stop)
        except BaseException as error:
            results.put(error)
        else:
            results.put(None)

    thread = threading.Thread(target=run, name=f"ansible-{playbook}")
    thread.start()
    try:
        while (result := results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        closed.set()
        thread.join()


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """ansible-runner keeps a record of every run in one; nobody reads it."""
    folder = Path(tempfile.mkdtemp(prefix="tango-cloud-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    folder: Path,
    playbook: str,
    inventory: Path,
    variables: Mapping[str, Any],
    on_result: Callable[[Result], None],
    stopped: Callable[[], bool],
) -> None:
    root = playbooks_root()
    given = folder / "variables.json"  # in a file: others can read a command line
    given.touch(0o600)
    given.write_text(json.dumps(dict(variables)))
    ours = _environment(root, folder)
    config = RunnerConfig(
        private_data_dir=str(folder),
        playbook=str(root / f"{playbook}.yml"),
        inventory=str(inventory),
        extravars=str(given),
        settings={"pexpect_timeout": _LOOK_SECONDS},
        envvars=ours,
        quiet=True,
    )
    config.prepare()
    config.env = {
        name: value
        for name, value in config.env.items()
        if name in ours or name in _INHERITED or os.environ.get(name) != value
    }
    config.command[:1] = [sys.executable, "-m", _LAUNCH, str(os.getpid())]
    said: list[str] = []

    def hear(event: dict[str, Any]) -> bool:
        result = _result(event)
        if result is not None:
            on_result(result)
        said.append(str(event.get("stdout", "")))
        del said[:-5]
        return False  # not kept on disk

    runner = Runner(config=config, event_handler=hear, cancel_callback=stopped)
    status, _ = runner.run()
    if status == "failed" and runner.rc not in _TOLD:
        end = "\n".join(said).strip()[-500:]
        raise MachineUnreachable(f"ansible-playbook {playbook} failed ({runner.rc}): {end}")


def _environment(root: Path, folder: Path) -> dict[str, str]:
    return {
        "ANSIBLE_CALLBACK_PLUGINS": "",  # ansible-runner adds its own
        "ANSIBLE_CONFIG": str(root / "ansible.cfg"),
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
