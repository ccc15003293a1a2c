"""Faults from outside, at random, against a deployment that a process is at work on."""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import psutil
from emulation.faults import Fault as AwsFault

from ..aws import AwsDeployment
from ..compute.faults import Fault as GcpFault
from ..deployment import Deployment
from ..emulated import EmulatedDeployment
from ..gcp import GcpDeployment
from .measures import ENVELOPE

Thing = TypeVar("Thing")

_CATCH_SECONDS = 5.0
"""Terraform comes and goes: how long one is waited for, to be killed."""
_ELSEWHERE_SECONDS = (0.5, 5.0)
"""How far another orchestrator comes before it is killed."""
_LOCKED_SECONDS = (1.0, 8.0)
_AWS: Sequence[AwsFault] = (
    AwsFault("error", code="InsufficientInstanceCapacity", times=1),
    AwsFault("error", code="RequestLimitExceeded", times=2),
    AwsFault("error", "ec2:DescribeInstances", code="RequestLimitExceeded", times=2),
    AwsFault("error", "ec2:DescribeInstances", code="InternalError", times=5),
    AwsFault("error", "ec2:TerminateInstances", code="InternalError", times=1),
    AwsFault("lost-response", times=1),
    AwsFault("lost-response", "ec2:TerminateInstances", times=1),
    AwsFault("terminated", code="Server.InternalError", times=1),
    AwsFault("boot-delay", delay=5, times=1),
    AwsFault("ssh-refused", times=1),
)
_GCP: Sequence[GcpFault] = (
    GcpFault("operation-error", code="ZONE_RESOURCE_POOL_EXHAUSTED", times=1),
    GcpFault("error", code="rateLimitExceeded", times=1),
    GcpFault("error", "instances.aggregatedList", code="rateLimitExceeded", times=2),
    GcpFault("error", "instances.aggregatedList", code="backendError", times=5),
    GcpFault("error", "instances.delete", code="backendError", times=1),
    GcpFault("lost-response", times=1),
    GcpFault("lost-response", "instances.delete", times=1),
    GcpFault("slow", delay=5, times=1),
    GcpFault("boot-delay", delay=5, times=1),
    GcpFault("ssh-refused", times=1),
)


class Faults:
    """`process` is the one that works on the deployment."""

    def __init__(
        self, deployment: Deployment, process: psutil.Process, chance: random.Random
    ) -> None:
        self._deployment = deployment
        self._process = process
        self._chance = chance
        self._job = deployment.job("elsewhere", "all:\n\t@sleep 3\n")
        self._kinds: Mapping[str, Callable[[], bool]] = {
            "a machine killed": self._kill_machine,
            "Terraform killed": self._kill_terraform,
            "another orchestrator killed": self._kill_orchestrator,
            "the ledger locked": self._lock_ledger,
            "a wave's folder removed": self._remove_wave,
            "a wave's folder left behind": self._leave_wave,
            "a wave's lock left behind": self._leave_lock,
            "the envelope's output removed": self._remove_envelope,
        }
        if isinstance(deployment, EmulatedDeployment):
            self._kinds |= {"a host dead": self._kill_host, "a call or launch": self._order}

    def strike(self) -> str:
        """What was done; empty when there was nothing to do it to."""
        kind = self._chance.choice(list(self._kinds))
        # What is there now may be gone in a moment: then there was nothing, too.
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            if self._kinds[kind]():
                return kind
        return ""

    def end(self) -> None:
        """What was ordered and has not struck yet does not."""
        if isinstance(self._deployment, EmulatedDeployment):
            self._deployment.emulation.clear()

    def _kill_machine(self) -> bool:
        """Behind our back: all its processes, or by somebody else's hand."""
        name = self._one_of(self._deployment.instances())
        if name is None:
            return False
        if isinstance(self._deployment, EmulatedDeployment):
            self._deployment.terminate(name)
            return True
        killed = False
        for process in self._deployment.processes():
            with contextlib.suppress(psutil.Error):
                if name in " ".join(process.cmdline()):
                    process.kill()
                    killed = True
        return killed

    def _kill_host(self) -> bool:
        """The instance goes on to run."""
        name = self._one_of(self._deployment.instances())
        if name is None or not isinstance(self._deployment, EmulatedDeployment):
            return False
        with contextlib.suppress(ValueError):  # it has none yet, or none any more
            self._deployment.emulation.kill_host(name)
            return True
        return False

    def _kill_terraform(self) -> bool:
        """Alone or, as in a crash, together with all that it started."""
        deadline = time.monotonic() + _CATCH_SECONDS
        while time.monotonic() < deadline:
            running = [p for p in self._process.children(recursive=True) if _is_terraform(p)]
            found = self._one_of(running)
            if found is not None:
                _kill(found, all_of_it=self._chance.random() < 0.5)
                return True
            time.sleep(0.05)
        return False

    def _kill_orchestrator(self) -> bool:
        process = self._deployment.start("run", self._job)
        with process:
            time.sleep(self._chance.uniform(*_ELSEWHERE_SECONDS))
            _kill(psutil.Process(process.pid), all_of_it=self._chance.random() < 0.5)
            process.wait()
        return True

    def _lock_ledger(self) -> bool:
        path = self._deployment.state / "ledger.sqlite3"
        connection = sqlite3.connect(path, timeout=60, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(self._chance.uniform(*_LOCKED_SECONDS))
            connection.execute("ROLLBACK")
        return True

    def _remove_wave(self) -> bool:
        folder = self._one_of(self._deployment.waves())
        if folder is None:
            return False
        shutil.rmtree(folder)
        return True

    def _leave_wave(self) -> bool:
        """With what another one has in it, if there is one."""
        name = secrets.token_hex(6)
        other = self._one_of(self._deployment.waves())
        if other is not None:
            shutil.copytree(other, other.with_name(name))
        else:
            folder = self._deployment.state / self._deployment.prefix / "waves" / name
            folder.mkdir(parents=True)
        return True

    def _leave_lock(self) -> bool:
        folder = self._one_of(self._deployment.waves())
        if folder is None:
            return False
        lock = {"ID": secrets.token_hex(16), "Operation": "OperationTypeApply", "Who": "nobody"}
        (folder / ".terraform.tfstate.lock.info").write_text(json.dumps(lock))
        return True

    def _remove_envelope(self) -> bool:
        """Then the next wave applies it anew, which changes nothing."""
        outputs = self._deployment.state / self._deployment.prefix / "envelope"
        for output in outputs.glob(f"*/{ENVELOPE}"):
            output.unlink()
        return True

    def _order(self) -> bool:
        match self._deployment:
            case AwsDeployment():
                self._deployment.emulation.order(self._chance.choice(_AWS))
            case GcpDeployment():
                self._deployment.emulation.order(self._chance.choice(_GCP))
            case _:
                return False
        return True

    def _one_of(self, found: Sequence[Thing]) -> Thing | None:
        return self._chance.choice(found) if found else None


def _is_terraform(process: psutil.Process) -> bool:
    """Terraform itself, whichever, or one of its plugins."""
    try:
        program, *arguments = process.cmdline() or [""]
    except psutil.Error:
        return False
    return any("terraform" in word or "tofu" in word for word in (program, *arguments[:2]))


def _kill(process: psutil.Process, *, all_of_it: bool) -> None:
    victims = [process, *(process.children(recursive=True) if all_of_it else ())]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
