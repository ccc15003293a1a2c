"""An agent that a server ends, at every line of its own: what its job left is removed all the same.

The agent runs as it does on a machine, but for a trace that sends the signal.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tango_cloud.machine import facts, frames
from tango_cloud.transports import archive

from . import servers
from .jobs import limits, recipe, write

# As the SSH server of a local machine does when a channel is gone: to the whole process group. The
# lines are counted from the job's result on, and removing takes long enough to be cut short.
_AGENT = """
import os, signal, sys, time
from tango_cloud.machine import agent, wipe, wire

def empty(top, empty=wipe.empty):
    time.sleep(0.02)
    empty(top)

wipe.empty = empty

class Counting:
    left = int(sys.argv[1])
    on = False

def trace(frame, event, _):
    name = frame.f_code.co_filename
    if name not in (agent.__file__, wire.__file__):
        return None
    if event == "line" and Counting.on:
        Counting.left -= 1
        if Counting.left == 0:
            os.killpg(0, signal.SIGTERM)
    return trace

class Answering(wire.Wire):
    def reply(self, value):
        super().reply(value)
        if "exit_status" in value:
            Counting.on = True

agent.Wire = Answering
sys.settrace(trace)
try:
    agent.main()
finally:
    sys.settrace(None)
    print(Counting.left, file=sys.stderr)
"""


def test_what_a_job_left_is_removed_whenever_the_agent_is_told_to_end(tmp_path: Path) -> None:
    makefile = write(tmp_path, {"Makefile": recipe("mkdir left && cd left && touch file")})
    job = b"".join(
        frames.encode(frames.DATA, part) for part in archive.pack(makefile, compress=False)
    )
    run = {"op": "run", **asdict(limits())}
    talk = [
        frames.encode_json(frames.REQUEST, {"op": "put"}) + job + frames.encode(frames.END),
        frames.encode_json(frames.REQUEST, run),
    ]
    with servers.folder(None) as folder:
        servers.write_facts(folder, levels=["limits"], job_user=servers.job_user())
        for line in itertools.count(1):
            lines_left = _serve(folder, line, talk)
            assert not list((folder / "work" / "job").iterdir()), f"told to end at line {line}"
            if lines_left > 0:
                break
    assert line > 10


def _serve(folder: Path, line: int, talk: list[bytes]) -> int:
    """Have an agent run the job and be told to end when it has come to that line; how many more
    there would have had to be."""
    agent = subprocess.Popen(
        [sys.executable, "-c", _AGENT, str(line)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, facts.VARIABLE: str(folder / "machine.json")},
        start_new_session=True,
    )
    with agent:
        assert agent.stdin
        assert agent.stdout
        assert agent.stderr
        _reply(agent.stdout)
        for words in talk:
            agent.stdin.write(words)
            agent.stdin.flush()
            assert _reply(agent.stdout).get("exit_status", 0) == 0
        agent.stdin.close()
        return int(agent.stderr.read())


def _reply(stream: IO[bytes]) -> dict[str, Any]:
    while frame := frames.read_frame(stream.read):
        kind, payload = frame
        if kind != frames.TICK:
            assert kind == frames.REPLY, payload
            return frames.decode_json(payload)
    raise AssertionError("the agent ended")
