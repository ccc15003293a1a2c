"""The agent as it is sent: what its sources may hold, and that it starts and ends well."""

from __future__ import annotations

import ast
import importlib.resources
import io
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tango_cloud.machine import bundle, frames

MODULES = sorted(Path(str(importlib.resources.files("tango_cloud.machine"))).rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_sources_are_for_python_3_9_and_its_own_library(module: Path) -> None:
    tree = ast.parse(module.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            ours = name.startswith("tango_cloud.")
            assert ours or name.partition(".")[0] in sys.stdlib_module_names
            assert not ours or name.startswith("tango_cloud.machine")


def test_payload_says_its_length_and_holds_every_module_but_this_sides() -> None:
    payload = bundle.payload()
    assert int(payload[:8], 16) == len(payload) - 8
    program = zlib.decompress(payload[8:]).decode()
    assert "tango_cloud.machine.agent" in program
    assert "A module of our side" not in program


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    facts = tmp_path / "machine.json"
    facts.write_text(json.dumps({"work_dir": str(tmp_path / "work"), "job_user": 61234}))
    process = subprocess.Popen(
        ["/bin/sh", "-c", bundle.command(sudo=False)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TANGO_CLOUD_MACHINE": str(facts)},
        bufsize=0,
    )
    yield process
    process.kill()
    process.communicate()


def test_requests_may_follow_the_payload_at_once(agent: subprocess.Popen[bytes]) -> None:
    ping = frames.encode_json(frames.REQUEST, {"op": "ping"})
    unknown = frames.encode_json(frames.REQUEST, {"op": "dance"})
    late = frames.encode(frames.CANCEL)
    said, _ = agent.communicate(bundle.payload() + late + ping + unknown, timeout=20)
    source = io.BytesIO(said)
    assert frames.read_frame(source.read) == (frames.REPLY, b'{"hello":1}')
    assert frames.read_frame(source.read) == (frames.REPLY, b"{}")
    kind, payload = frames.read_frame(source.read) or (0, b"")
    assert kind == frames.FAILURE
    assert frames.decode_json(payload)["kind"] == "refused"
    assert agent.returncode == 0


def test_a_stream_out_of_step_ends_the_agent(agent: subprocess.Popen[bytes]) -> None:
    said, _ = agent.communicate(bundle.payload() + frames.encode(frames.DATA, b"x"), timeout=20)
    assert said.count(b"hello") == 1


def test_a_payload_that_does_not_arrive_ends_it(agent: subprocess.Popen[bytes]) -> None:
    agent.communicate(bundle.payload()[:100], timeout=20)
    assert agent.returncode != 0
