"""The command lines that Ansible runs on a machine, without Ansible."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tango_cloud.machine import bundle
from tango_cloud.transports import archive

from . import servers
from .jobs import limits, marker, recipe, wait_until_gone, wait_until_there, write

LOADERS = yaml.safe_load(
    (Path(__file__).parents[2] / "ansible/roles/agent/vars/main.yml").read_text()
)
AGAIN = [sys.executable, "-I", "-S", "-c", LOADERS["agent_again"]]


@dataclasses.dataclass
class Here:
    """This host as a machine. `constants` are the keeper's, for the job that is started next."""

    folder: Path
    constants: str = "pass"

    def popen(self, *words: str, given: bytes = b"") -> subprocess.Popen[bytes]:
        code = (
            "import sys; from tango_cloud.machine.detached import commands, keeper; "
            f"{self.constants}; commands.main(sys.argv[1:], b'')"
        )
        return self.start([sys.executable, "-c", code, *words], given)

    def start(self, argv: list[str], given: bytes) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TANGO_CLOUD_MACHINE": str(self.folder / "machine.json")}
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert process.stdin is not None
        process.stdin.write(given)
        process.stdin.close()
        process.stdin = None
        return process

    def ask(self, *words: str, given: bytes = b"") -> dict[str, Any]:
        said, _ = self.popen(*words, given=given).communicate(timeout=30)
        answer: dict[str, Any] = json.loads(said)
        return answer

    def put(self, folder: Path, *lines: str) -> None:
        files = write(folder, {"Makefile": recipe(*lines)})
        data = b"".join(archive.stream(archive.check(files)))
        answer = self.ask("call", given=request(op="put") + b"\n" + base64.b64encode(data))
        assert answer == {"reply": {}}


def request(**words: Any) -> bytes:
    return base64.b64encode(json.dumps(words).encode())


def run_request(live: bool = False) -> bytes:
    return request(op="run", live=live, **dataclasses.asdict(limits()))


@pytest.fixture
def here() -> Iterator[Here]:
    with servers.folder(None) as folder:
        servers.write_facts(folder, job_user=servers.job_user())
        yield Here(folder)
        deadline = time.monotonic() + 10
        while keepers := list((folder / "work" / "agent").glob("job-*")):
            assert time.monotonic() < deadline, f"left running: {keepers}"
            time.sleep(0.02)


def test_a_job_is_followed_to_its_end(here: Here, tmp_path: Path) -> None:
    here.put(tmp_path, "echo first; sleep 0.3; seq 1 100000; exit 3")
    parts = [here.ask("start", "a", given=run_request(live=True))]
    while not parts[-1]["ended"]:
        parts.append(here.ask("follow", "a"))
    said = b"".join(base64.b64decode(part["output"]) for part in parts)
    assert len(parts) > 1
    assert said.startswith(b"first\n1\n2\n")
    assert b"\n99999\n100000\n" in said
    assert max(len(part["output"]) for part in parts) < 300_000  # what ansible-runner lets pass
    assert parts[-1]["reply"]["exit_status"] == 2
    kept = Path(here.ask("call", given=request(op="get"))["file"])
    assert kept.read_bytes() == b"Autodriver: Job exited with status 2\n" + said


def test_a_job_is_cancelled(here: Here, tmp_path: Path) -> None:
    word = marker()
    here.put(tmp_path, f"sh -c 'sleep 60; true' {word}")
    here.constants = "keeper.FOLLOW_SECONDS = 0.1"
    assert not here.ask("start", "a", given=run_request())["ended"]
    assert here.ask("cancel", "a") == {"reply": {}}
    wait_until_gone(word, 0.1)
    assert here.ask("cancel", "a") == {"reply": {}}


def test_a_job_whose_follower_breaks_off_is_stopped(here: Here, tmp_path: Path) -> None:
    word = marker()
    here.put(tmp_path, f"sh -c 'sleep 60; true' {word}")
    follower = here.popen("start", "a", given=run_request())
    wait_until_there(word)
    follower.kill()
    follower.communicate()
    wait_until_gone(word)


def test_a_job_that_nobody_follows_is_stopped(here: Here, tmp_path: Path) -> None:
    word = marker()
    here.put(tmp_path, f"sh -c 'sleep 60; true' {word}")
    here.constants = "keeper.FOLLOW_SECONDS = keeper.SILENCE_SECONDS = 0.5"
    assert not here.ask("start", "a", given=run_request())["ended"]
    wait_until_gone(word)
    gone = here.ask("follow", "a")
    assert gone["failure"]["kind"] == "damaged"


def test_a_program_that_was_changed_on_the_machine_is_not_run(here: Here) -> None:
    packed = bundle.program()
    first = [sys.executable, "-I", "-S", "-c", LOADERS["agent_first"], "install"]
    said, _ = here.start(first, base64.b64encode(packed)).communicate(timeout=20)
    program = Path(json.loads(said)["program"])
    argv = [*AGAIN, str(program), hashlib.sha256(packed).hexdigest(), "call"]
    said, _ = here.start(argv, request(op="ping")).communicate(timeout=20)
    assert json.loads(said) == {"reply": {}}
    program.write_bytes(packed + b"x")
    changed = here.start(argv, request(op="ping"))
    assert changed.communicate(timeout=20)[0] == b""
    assert changed.returncode == 1
