"""Starts the emulated AWS: LocalStack in host mode, or moto's server as its stand-in."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import aiohttp

from tango_cloud.machine import syscalls

Name = Literal["localstack", "moto"]
Choice = Literal["auto", "localstack", "moto"]
VARIABLE = "LOCALSTACK_PYTHON"
_DEFAULT = Path(__file__).parents[2] / ".venv-localstack" / "bin" / "python"
_MAIN = """
import runpy
from localstack.utils.aws import aws_stack
aws_stack.CACHE_S3_HOSTNAME_DNS_STATUS = False
runpy.run_module("localstack.runtime.main", run_name="__main__")
"""
"""LocalStack, told that `s3.localhost.localstack.cloud` cannot be looked up: it would ask."""
_START_SECONDS = 90
_END_SECONDS = 10


class NoBackend(Exception):
    """The backend cannot be started. The message is for a person."""


def localstack_python() -> Path | None:
    """The interpreter that has LocalStack; None when it is not installed."""
    path = Path(os.environ.get(VARIABLE) or _DEFAULT)
    return path if os.access(path, os.X_OK) else None


def choose(choice: str) -> Name:
    """Raises NoBackend when that one is not installed."""
    if choice != "moto" and localstack_python():
        return "localstack"
    if choice == "localstack":
        raise NoBackend(f"LocalStack is not installed: make .venv-localstack, or set {VARIABLE}")
    if importlib.util.find_spec("moto") is None:
        raise NoBackend("neither LocalStack nor moto is installed: make .venv-localstack")
    return "moto"


class Elsewhere:
    """A backend that somebody else runs."""

    name = "elsewhere"
    log = None

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    async def wait(self, client: aiohttp.ClientSession) -> None:
        """Raises NoBackend when it does not answer."""
        try:
            async with client.get(self.url):
                return
        except (aiohttp.ClientError, OSError) as error:
            raise NoBackend(f"nothing answers at {self.url}: {error}") from error

    def ended(self) -> bool:
        return False

    def stop(self) -> None:
        """It is not ours."""


class Process:
    """A backend of our own. `url` is where it answers, on loopback."""

    def __init__(self, name: Name, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.name = name
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        argv, environment = _command(name, port, folder)
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("AWS_", "TANGO_CLOUD_", "PYTHON"))
        }
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=folder,
                env=clean | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Out of the terminal's reach; with us however we die.
                start_new_session=True,
                preexec_fn=lambda: syscalls.die_with_parent(signal.SIGKILL),
            )

    async def wait(self, client: aiohttp.ClientSession) -> None:
        """Return once it answers. Raises NoBackend when it ends or takes too long."""
        path = "/_localstack/health" if self.name == "localstack" else "/moto-api/"
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with client.get(self.url + path) as answer:
                    if answer.status == 200:
                        return
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-2000:]
                raise NoBackend(f"{self.name} did not start: {said}")
            await asyncio.sleep(0.05)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """It has nothing to save."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_END_SECONDS)


def _command(name: Name, port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    if name == "moto":
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {}
    python = localstack_python()
    environment = {
        "SERVICES": "ec2,s3,sts,iam",
        "GATEWAY_LISTEN": f"127.0.0.1:{port}",
        # Its default server listens on all addresses, whatever the line above says.
        "GATEWAY_SERVER": "hypercorn",
        "OVERRIDE_IN_DOCKER": "0",
        "FILESYSTEM_ROOT": str(folder),
        "DNS_ADDRESS": "0",
        "SKIP_SSL_CERT_DOWNLOAD": "1",
        "DISABLE_EVENTS": "1",
    }
    return [str(python), "-c", _MAIN], environment


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
