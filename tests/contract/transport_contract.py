"""What every transport does, whatever carries it. Inherit, and give the fixture `machine`."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import (
    AuthenticationError,
    HostKeyMismatch,
    InputError,
    JobRefused,
    MachineNotFound,
    MachineUnreachable,
    OutputError,
)
from tango_cloud.machine.output import ELISION
from tango_cloud.transports.protocol import InputFile, Session, Transport

from .jobs import Runner, limits, marker, recipe, wait_until_gone, wait_until_there, write
from .servers import Server, free_port, write_keys

CONNECT_SECONDS = 20.0


class TransportContract:
    @pytest.fixture(scope="class")
    def transport(self) -> Transport:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def machine(self) -> Iterator[Server]:
        """A machine that the tests share."""
        raise NotImplementedError

    def start_machine(self) -> Any:
        """A context manager that gives a machine of a test's own, to be killed by it."""
        raise NotImplementedError

    @pytest.fixture
    def session(self, transport: Transport, machine: Server) -> Iterator[Session]:
        session = transport.connect(machine.endpoint(), CONNECT_SECONDS)
        yield session
        session.close()

    @pytest.fixture
    def job(self, session: Session, tmp_path: Path) -> Runner:
        return Runner(session, tmp_path)

    # Connecting

    def test_a_wrong_host_key_is_never_spoken_to(
        self, transport: Transport, machine: Server, tmp_path: Path
    ) -> None:
        other = write_keys(tmp_path)
        with pytest.raises(HostKeyMismatch):
            transport.connect(machine.endpoint(host_keys=(other,)), CONNECT_SECONDS)

    def test_one_of_several_host_keys_is_enough(
        self, transport: Transport, machine: Server, tmp_path: Path
    ) -> None:
        keys = (write_keys(tmp_path), machine.host_key + " a-comment")
        session = transport.connect(machine.endpoint(host_keys=keys), CONNECT_SECONDS)
        assert session.alive()
        session.close()

    def test_a_client_key_that_the_machine_does_not_know(
        self, transport: Transport, machine: Server, tmp_path: Path
    ) -> None:
        write_keys(tmp_path)
        stranger = machine.endpoint(client_key_file=str(tmp_path / "client"))
        with pytest.raises(AuthenticationError):
            transport.connect(stranger, CONNECT_SECONDS)

    @pytest.mark.parametrize("content", [None, "no key"])
    def test_a_client_key_that_is_none(
        self, transport: Transport, machine: Server, tmp_path: Path, content: str | None
    ) -> None:
        file = tmp_path / "key"
        if content is not None:
            file.write_text(content)
        with pytest.raises(AuthenticationError):
            transport.connect(machine.endpoint(client_key_file=str(file)), CONNECT_SECONDS)

    def test_nothing_listens(self, transport: Transport, machine: Server) -> None:
        nowhere = machine.endpoint(port=free_port())
        started = time.monotonic()
        with pytest.raises(MachineUnreachable):
            transport.connect(nowhere, 1.0)
        assert time.monotonic() - started < 2

    # The main job

    def test_a_job_from_end_to_end(self, job: Runner) -> None:
        outcome, output = job.run("cat a/b.txt", "./script", files={"a/b.txt": "hello\n"} | {
            "script": "#!/bin/sh\necho ran\n"
        }) if False else self._with_script(job)  # fmt: skip
        assert output == b"Autodriver: Job exited with status 0\nhello\nran\n"
        assert outcome.exit_status == 0
        assert outcome.output_bytes == len(b"hello\nran\n")
        assert not outcome.timed_out
        assert not outcome.disk_exceeded
        assert 0 < outcome.wall_seconds < 10
        assert outcome.cpu_seconds > 0
        assert outcome.peak_memory_bytes > 100_000
        assert outcome.level == job.session.report().level

    def _with_script(self, job: Runner) -> Any:
        files = write(
            job.folder,
            {
                "Makefile": recipe("cat a/b.txt", "./script"),
                "a/b.txt": "hello\n",
                "script": "#!/bin/sh\necho ran\n",
            },
        )
        files[2].local.chmod(0o755)
        job.session.put(files)
        outcome = job.session.run(limits())
        job.session.get(job.output)
        return outcome, job.output.read_bytes()
