"""Emulations side by side, and what is left of one: nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from emulation.client import Emulation, Unavailable

from ..aws import IMAGE
from .test_emulation import Account


@pytest.mark.skipif(os.geteuid() != 0, reason="without root: test_emulation_loopback.py")
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_nothing_is_left_of_an_emulation(tmp_path: Path, end: str) -> None:
    try:
        emulation = Emulation.start(tmp_path / "own", backend="moto")
    except Unavailable as error:
        pytest.skip(str(error))
    processes = emulation.processes()
    try:
        emulation.register_image(IMAGE)
        account = Account(emulation)
        instance = account.ready()
        processes = emulation.processes()
        account.command(instance, "setsid sleep 600 >/dev/null 2>&1 </dev/null &")
        assert len(namespaces(emulation)) == 3, "this machine's, the router's, the host's"
        assert unreachable(emulation), "for connections that come too late"
    finally:
        if end == "killed":
            os.kill(processes[0].pid, signal.SIGKILL)
            _, alive = psutil.wait_procs(processes, timeout=10)
            assert not alive, "the kernel ends them"
        else:
            emulation.stop()
    if end == "killed":
        later = Emulation.start(tmp_path / "later", backend="moto")
        later.stop()
        assert not (tmp_path / "own" / "backend").exists()
    emulation.assert_nothing_left()


def test_two_emulations_have_networks_of_their_own(emulation: Emulation, tmp_path: Path) -> None:
    other = Emulation.start(tmp_path / "other", backend="moto")
    try:
        assert other.network != emulation.network
        other.register_image(IMAGE)
        one = Account(other)
        assert one.command(one.ready(), "true")[0] == 0
        assert not emulation.hosts()
    finally:
        other.stop()


def namespaces(emulation: Emulation) -> set[str]:
    """The networks in which processes of the emulation are."""
    found = set()
    for process in emulation.processes():
        with contextlib.suppress(OSError):  # a command that has just ended
            found.add(str(Path(f"/proc/{process.pid}/ns/net").readlink()))
    return found


def unreachable(emulation: Emulation) -> bool:
    shown = subprocess.run(
        ["ip", "route", "show", "type", "unreachable"], capture_output=True, text=True, check=True
    )
    return emulation.network in shown.stdout
