"""A deployment on real parts, of its own for a test, and the proof that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tango_cloud.core import tags
from tango_cloud.core.ledger import Ledger

CHECKOUT = Path(__file__).parents[1]
EXAMPLES = CHECKOUT / "examples"


@dataclass
class Deployment:
    """A state folder, a working folder, and the environment that names both."""

    folder: Path
    environment: dict[str, str]
    marks: list[str] = field(default_factory=list)
    patience: float = 120.0
    """How many seconds a command may take."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tango_cloud", *arguments]

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`tango-cloud ARGUMENTS` to its end; `more` is added to its environment."""
        return self.execute(self.command(*arguments), **more)

    def execute(self, argv: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        """Any command of this deployment's to its end; `more` is added to its environment."""
        return subprocess.run(
            argv,
            env=self.environment | more,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=self.patience,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def python(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Another process of the deployment: Python code that uses the package."""
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def job(self, name: str, makefile: str) -> str:
        """A job directory; returns its path."""
        directory = self.folder / "jobs" / name
        directory.mkdir(parents=True)
        (directory / "Makefile").write_text(makefile)
        return str(directory)

    def sleeper(self, name: str, before: str = "true", seconds: int = 600) -> tuple[str, str]:
        """A job that sleeps. Returns its directory, and an argument that only its process has."""
        mark = f"{seconds}.{secrets.randbelow(10**12):012}"
        self.marks.append(mark)
        return self.job(name, f"all:\n\t{before}\n\t@sleep {mark}\n"), mark

    def wait_until_running(self, mark: str, seconds: float = 150) -> psutil.Process:
        """Return once a process has `mark` among its arguments."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for process in psutil.process_iter():
                if _tells(process, mark):
                    return process
            time.sleep(0.02)
        raise AssertionError(f"no process with the argument {mark}")

    @property
    def state(self) -> Path:
        return Path(self.environment["TANGO_CLOUD_STATE_DIR"])

    @property
    def prefix(self) -> str:
        return self.environment.get("TANGO_CLOUD_PREFIX", "tango")

    def instances(self) -> list[str]:
        """What the cloud shows of this deployment."""
        folder = self.state / "local" / "instances"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def uids(self) -> dict[str, str]:
        """The uid of each instance that the cloud shows, by its tag; empty without one."""
        folder = self.state / "local" / "instances"
        found = {}
        for name in self.instances():
            document = folder / name / "instance.json"
            labels = json.loads(document.read_text())["tags"] if document.exists() else {}
            found[name] = labels.get(tags.UID, "")
        return found

    def waves(self) -> list[Path]:
        return sorted(self.state.glob("*/waves/*"))

    def work_folders(self) -> list[Path]:
        """Folders outside ours that this deployment's machines may have had, as root."""
        ledger = self.state / "ledger.sqlite3"
        if not ledger.exists():
            return []
        with sqlite3.connect(ledger) as connection:
            uids = [row[0] for row in connection.execute("SELECT uid FROM machines")]
        connection.close()
        folders = [Path(f"/var/tmp/tango-cloud-i-{uid}") for uid in uids]
        return [folder for folder in folders if folder.exists()]

    def processes(self) -> list[psutil.Process]:
        """Every process that was started for this deployment: its folder, or a mark of its jobs, is
        in the command line, environment or working directory.
        """
        marks = [str(self.folder), *self.marks]
        return [
            process
            for process in psutil.process_iter()
            if process.pid != os.getpid() and any(_tells(process, mark) for mark in marks)
        ]

    def assert_nothing_left(self) -> None:
        deadline = time.monotonic() + 5  # a process that has just been killed may linger
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [p.cmdline() for p in left if p.is_running()]
        assert not self.instances()
        assert not self.waves()
        assert not self.work_folders()

    def kill(self) -> None:
        """By the pids found, never by name."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)

    def clean(self) -> None:
        self.kill()
        shutil.rmtree(self.state, ignore_errors=True)


@contextlib.contextmanager
def leaving_nothing(deployment: Deployment) -> Iterator[None]:
    """It must leave nothing. What a failed test does leave goes, for the sake of the next."""
    try:
        yield
        deployment.assert_nothing_left()
    finally:
        deployment.clean()


def make_deployment(folder: Path, **more: str) -> Deployment:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TANGO_CLOUD_", "TF_", "AWS_", "GOOGLE_"))
    }
    environment |= {
        "TANGO_CLOUD_STATE_DIR": str(folder / "state"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PYTHONPATH": str(CHECKOUT),
        # Without a terminal to fit, help texts are as wide as this.
        "COLUMNS": "200",
        **more,
    }
    return Deployment(folder, environment)


def ledger_in(state: Path) -> Ledger:
    """The books that a deployment with this state folder has by itself."""
    return Ledger(f"sqlite:///{state / 'ledger.sqlite3'}", state)


def _tells(process: psutil.Process, mark: str) -> bool:
    try:
        told = [*process.cmdline(), *process.environ().values(), process.cwd()]
    except (psutil.Error, OSError):  # a working directory may be deeper than a path may be long
        return False
    return any(mark in text for text in told)
