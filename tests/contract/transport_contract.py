"""What every transport does, whatever carries it. Inherit, and give the fixture `machine`."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
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
from tango_cloud.transports import archive
from tango_cloud.transports.protocol import (
    Artifacts,
    ArtifactStatus,
    InputFile,
    Session,
    Transport,
)

from .jobs import Keeper, Runner, limits, marker, recipe, wait_until_gone, wait_until_there, write
from .servers import Server, free_port, write_keys

CONNECT_SECONDS = 20.0


class TransportContract:
    many = 5000
    """Small files for the test that sends many; one machine of a transport is enough for all."""
    overhead_seconds = 1.5
    """What put, run and get may take together, beside the job's own time."""
    end_seconds = 5.0
    """Within what time a run ends that was cancelled, or whose session was closed; twice as long
    may pass until a peek from beside shows what a job that begins has printed."""

    @pytest.fixture(scope="class")
    @classmethod
    def transport(cls) -> Transport:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def machine(cls) -> Iterator[Server]:
        """A machine that the tests share."""
        with cls.start_machine() as machine:
            yield machine

    @staticmethod
    def start_machine() -> AbstractContextManager[Server]:
        """A machine of a test's own, which it may kill."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def keeper(cls, transport: Transport, machine: Server) -> Iterator[Keeper]:
        keeper = Keeper(lambda: transport.connect(machine.endpoint(), CONNECT_SECONDS))
        yield keeper
        keeper.close()

    @pytest.fixture
    def session(self, keeper: Keeper) -> Session:
        return keeper.session()

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
            transport.connect(nowhere, 0.5)
        assert time.monotonic() - started < 2

    # The main job

    def test_a_job_from_end_to_end(self, job: Runner) -> None:
        files = {"a/b.txt": "hello\n", "script": "#!/bin/sh\necho ran\n"}
        outcome, output = job.run("cat a/b.txt", "./script", files=files)
        assert output == b"Autodriver: Job exited with status 0\nhello\nran\n"
        assert outcome.exit_status == 0
        assert outcome.output_bytes == len(b"hello\nran\n")
        assert not outcome.timed_out
        assert not outcome.disk_exceeded
        assert 0 < outcome.wall_seconds < 10
        assert outcome.cpu_seconds > 0
        assert outcome.peak_memory_bytes > 100_000
        assert outcome.level == job.session.report().level

    def test_compressed_streams_carry_the_same(
        self, transport: Transport, machine: Server, tmp_path: Path
    ) -> None:
        session = transport.connect(machine.endpoint(compress=True), CONNECT_SECONDS)
        text = "some text\n" * 100_000
        job = Runner(session, tmp_path)
        job.put("cat text", files={"text": text})
        session.run(limits(), artifacts=Artifacts(("text",), len(text)))
        session.get(job.output)
        session.collect(tmp_path / "local", len(text))
        session.close()
        header = b"Autodriver: Job exited with status 0\n"
        assert job.output.read_bytes() == header + text.encode()
        assert (tmp_path / "local/text").read_text() == text

    def test_a_job_that_fails(self, job: Runner) -> None:
        outcome, output = job.run("exit 1")
        assert outcome.exit_status == 2  # make's own status for a recipe that failed
        assert output.startswith(b"Autodriver: Job exited with status 2\n")

    def test_a_directory_without_a_makefile(self, job: Runner) -> None:
        job.session.put([])
        outcome = job.session.run(limits())
        job.session.get(job.output)
        assert outcome.exit_status == 2
        assert b"No targets" in job.output.read_bytes()

    def test_each_put_starts_from_an_empty_directory(self, job: Runner) -> None:
        job.put("true", files={"old": "x", "d/old": "x"})
        assert job.says("find . | sort", files={"new": "x"}) == ".\n./Makefile\n./new\n"

    def test_odd_names_and_modes_arrive(self, job: Runner) -> None:
        names = ["-rf", "a b", "new\nline", "ünï/cødé", "deep/er/and/deeper", "$x"]
        job.put("find . -type f -print0 | sort -z", files=dict.fromkeys(names, "x"))
        job.session.run(limits())
        job.session.get(job.output)
        found = job.output.read_bytes().partition(b"\n")[2].split(b"\0")[:-1]
        assert set(found) == {f"./{name}".encode() for name in [*names, "Makefile"]}

    def test_bad_input_is_told_whole_and_nothing_is_sent(self, job: Runner, tmp_path: Path) -> None:
        job.put("cat kept", files={"kept": "kept"})
        with pytest.raises(InputError) as caught:
            job.session.put([InputFile(tmp_path / "absent", "x"), InputFile(tmp_path, "../y")])
        assert len(caught.value.faults) == 3
        job.session.run(limits())
        job.session.get(job.output)
        assert job.output.read_bytes().endswith(b"\nkept")

    def test_a_file_that_shrinks_on_the_way_leaves_nothing_of_the_job(
        self, job: Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = write(job.folder, {"Makefile": recipe("true"), "large": bytes(3_000_000)})
        check = archive.check

        def check_then_shrink(given: Sequence[InputFile]) -> list[archive.Entry]:
            entries = check(given)
            files[1].local.write_bytes(bytes(2_000_000))
            return entries

        monkeypatch.setattr(archive, "check", check_then_shrink)
        with pytest.raises(InputError, match="shrank by 1000000 bytes"):
            job.session.put(files)
        outcome = job.session.run(limits())
        assert outcome.exit_status == 2  # there is no Makefile

    def test_many_small_files(self, job: Runner) -> None:
        source = write(job.folder, {"Makefile": recipe("find d | wc -l"), "small": "x" * 100})
        many = [InputFile(source[1].local, f"d/{n % 50}/{n}") for n in range(self.many)]
        started = time.monotonic()
        job.session.put([source[0], *many])
        assert time.monotonic() - started < 15
        job.session.run(limits())
        job.session.get(job.output)
        assert job.output.read_bytes().endswith(f"\n{self.many + 51}\n".encode())

    def test_a_large_file_both_ways(self, job: Runner) -> None:
        large = os.urandom(1 << 20) * 20
        outcome, output = job.run("cat large", files={"large": large}, output_bytes=None)
        assert outcome.output_bytes == len(large)
        assert output.partition(b"\n")[2] == large

    # Output

    def test_long_output_loses_its_middle(self, job: Runner) -> None:
        outcome, output = job.run("seq 1 100000", output_bytes=1001)
        whole = "".join(f"{number}\n" for number in range(1, 100_001)).encode()
        assert outcome.output_bytes == len(whole)
        assert output.partition(b"\n")[2] == whole[:500] + ELISION + whole[-501:]

    def test_output_comes_live_up_to_the_limit(self, job: Runner) -> None:
        job.put("echo first; sleep 0.5; echo second; seq 1 10000")
        pieces: list[tuple[float, bytes]] = []
        threads = set()

        def hear(data: bytes) -> None:
            threads.add(threading.get_ident())
            pieces.append((time.monotonic(), data))

        job.session.run(limits(output_bytes=1000), hear)
        told = b"".join(data for _, data in pieces)
        assert told.startswith(b"first\nsecond\n1\n")
        assert len(told) == 1000
        assert pieces[-1][0] - pieces[0][0] > 0.3
        assert threads == {threading.get_ident()}

    def test_a_listener_that_fails_leaves_no_job_running(self, job: Runner) -> None:
        word = marker()
        job.put(f"echo x; sh -c 'sleep 60; true' {word}")

        def fail(_: bytes) -> None:
            raise RuntimeError("the listener")

        with pytest.raises(RuntimeError, match="the listener"):
            job.session.run(limits(), fail)
        wait_until_gone(word)

    def test_peek_from_another_session_while_the_job_runs(
        self, job: Runner, transport: Transport, machine: Server
    ) -> None:
        job.put("echo so far; sleep 60; true")
        with ThreadPoolExecutor() as pool:
            running = pool.submit(job.session.run, limits(wall_seconds=60.0))
            other = transport.connect(machine.endpoint(), CONNECT_SECONDS)
            for session in (other, job.session):
                deadline = time.monotonic() + 2 * self.end_seconds
                while session.peek(100) != b"so far\n":
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                assert session.peek(3) == b"so "
                assert session.alive()
            other.close()
            job.session.cancel()
            with pytest.raises(MachineUnreachable):
                running.result(timeout=self.end_seconds)

    def test_get_before_any_job_has_run(self, job: Runner) -> None:
        job.put("true")
        with pytest.raises(MachineNotFound):
            job.session.get(job.output)
        assert not job.output.exists()
        assert job.session.peek(100) == b""

    def test_output_that_cannot_be_written_here(self, job: Runner) -> None:
        job.run("echo x")
        with pytest.raises(OutputError):
            job.session.get(job.folder / "absent" / "output")
        (job.folder / "directory").mkdir()
        with pytest.raises(OutputError):
            job.session.get(job.folder / "directory")
        before = job.output.read_bytes()
        job.session.get(job.output)
        assert job.output.read_bytes() == before
        assert not [path for path in job.folder.iterdir() if path.name.startswith(".")]

    def test_a_full_disk_here(self, job: Runner) -> None:
        job.run("seq 1 100000")
        job.output.write_text("as it was")
        # A limit on the size of files fails a write as a full disk does, with another word.
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(OutputError):
                job.session.get(job.output)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert job.output.read_text() == "as it was"
        assert not [path for path in job.folder.iterdir() if path.name.startswith(".")]
        job.session.get(job.output)
        assert job.output.read_bytes().endswith(b"\n100000\n")

    # Artifacts

    def test_artifacts_come_under_their_names_and_the_rest_goes(self, job: Runner) -> None:
        large = os.urandom(300_000)
        job.put(
            "mkdir -p out/deep && cp large out && mv script out/deep/",
            "echo report > -r; echo not > asked-for",
            files={"large": large, "script": "#!/bin/sh\n", "out/new\nline": "odd"},
        )
        outcome = job.session.run(limits(), artifacts=Artifacts(("out", "-r"), 1_000_000))
        assert [(told.path, told.status, told.files) for told in outcome.artifacts] == [
            ("out", ArtifactStatus.FETCHED, 3),
            ("-r", ArtifactStatus.FETCHED, 1),
        ]
        local = job.folder / "local"
        for _ in range(2):
            job.session.collect(local, 1_000_000)
            found = {str(path.relative_to(local)): path for path in local.rglob("*")}
            assert set(found) == {"-r", "out", "out/large", "out/new\nline", "out/deep",
                                  "out/deep/script"}  # fmt: skip
            assert found["out/large"].read_bytes() == large
            assert os.access(found["out/deep/script"], os.X_OK)
            assert not os.access(found["-r"], os.X_OK)
        job.session.get(job.output)
        assert job.says("ls") == "Makefile\n"
        with pytest.raises(MachineNotFound):
            job.session.collect(job.folder / "later", 1_000_000)

    def test_artifacts_that_cannot_be_had_are_told(self, job: Runner) -> None:
        (job.folder / "secret").write_text("secret")
        job.put(
            f"ln -s {job.folder}/secret link; ln -s {job.folder} links; mkfifo fifo",
            "mkdir d; cp -a link fifo d; ln Makefile d/kept; truncate -s 1T sparse",
            "cd ..; rm -rf tmp; exit 1",
        )
        asked = Artifacts(("absent", "link", "links/secret", "fifo", "sparse", "d"), 1000)
        outcome = job.session.run(limits(), artifacts=asked)
        assert [told.status for told in outcome.artifacts] == [
            ArtifactStatus.MISSING,
            *[ArtifactStatus.UNUSABLE] * 3,
            ArtifactStatus.TOO_LARGE,
            ArtifactStatus.FETCHED,
        ]
        assert outcome.artifacts[-1].left_out >= 1
        job.session.collect(job.folder / "local", 1000)
        came = [path.name for path in (job.folder / "local").rglob("*")]
        assert sorted(came) == ["d", "kept"]

    def test_artifacts_of_a_job_that_outlives_its_time(self, job: Runner) -> None:
        job.put("echo so far > report; chmod 0 .; sleep 60")
        asked = Artifacts(("report",), 10)
        outcome = job.session.run(limits(wall_seconds=0.5), artifacts=asked)
        assert outcome.timed_out
        job.session.collect(job.folder / "local", 10)
        assert (job.folder / "local/report").read_text() == "so far\n"

    def test_artifacts_beside_the_job_directory_cannot_be_asked_for(self, job: Runner) -> None:
        job.put("true")
        with pytest.raises(InputError):
            job.session.run(limits(), artifacts=Artifacts(("../agent/spool",), 1000))
        with pytest.raises(MachineNotFound):
            job.session.collect(job.folder / "local", 1000)
        assert list(job.folder.glob("*local*")) == []

    # What a job used

    def test_processor_time_is_that_of_what_make_started(self, job: Runner) -> None:
        burn = "#!/usr/bin/env python3\nimport time\nwhile time.process_time() < 0.3: pass\n"
        outcome, _ = job.run("./script; sleep 0.2", files={"script": burn})
        assert 0.3 <= outcome.cpu_seconds < 0.8
        assert outcome.wall_seconds > 0.5 - 0.05  # two clocks

    def test_peak_memory_is_that_of_the_largest_process(self, job: Runner) -> None:
        hold = "#!/usr/bin/env python3\nheld = b'x' * (50 << 20)\n"
        outcome, _ = job.run("./script", "true", files={"script": hold})
        assert 50 << 20 <= outcome.peak_memory_bytes < 80 << 20
        assert job.run("true")[0].peak_memory_bytes < 40 << 20

    def test_output_is_counted_before_its_middle_goes(self, job: Runner) -> None:
        outcome, output = job.run("head -c 1000000 /dev/zero", output_bytes=1000)
        assert outcome.output_bytes == 1_000_000
        assert len(output.partition(b"\n")[2]) == 1000 + len(ELISION)

    # Time, and the end

    def test_a_job_that_outlives_its_time(self, job: Runner) -> None:
        word = marker()
        started = time.monotonic()
        outcome, output = job.run(f"echo begun; sh -c 'sleep 60; true' {word}", wall_seconds=0.5)
        assert time.monotonic() - started < 0.5 + self.overhead_seconds
        assert output.startswith(b"Autodriver: Job timed out after 0.5 seconds\nbegun\n")
        assert outcome.timed_out
        assert outcome.exit_status is None
        wait_until_gone(word, 0.1)

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), "abc"])
    def test_a_time_that_is_none_is_refused(self, job: Runner, seconds: Any) -> None:
        job.put("true")
        with pytest.raises(JobRefused, match="wall_seconds"):
            job.session.run(limits(wall_seconds=seconds))
        assert job.session.run(limits()).exit_status == 0

    def test_cancelling_from_another_thread(self, job: Runner) -> None:
        word = marker()
        job.put(f"sh -c 'sleep 60; true' {word}")
        with ThreadPoolExecutor() as pool:
            running = pool.submit(job.session.run, limits())
            wait_until_there(word)
            job.session.cancel()
            with pytest.raises(MachineUnreachable):
                running.result(timeout=self.end_seconds)
        wait_until_gone(word, 0.1)

    def test_a_late_cancellation_does_nothing(self, job: Runner) -> None:
        job.run("true")
        job.session.cancel()
        assert job.run("true")[0].exit_status == 0

    def test_closing_stops_the_job(
        self, job: Runner, transport: Transport, machine: Server
    ) -> None:
        word = marker()
        job.put(f"sh -c 'sleep 60; true' {word}")
        with ThreadPoolExecutor() as pool:
            running = pool.submit(job.session.run, limits())
            wait_until_there(word)
            job.session.close()
            with pytest.raises(MachineUnreachable):
                running.result(timeout=self.end_seconds)
        wait_until_gone(word)
        again = transport.connect(machine.endpoint(), CONNECT_SECONDS)
        assert Runner(again, job.folder).run("true")[0].exit_status == 0
        again.close()

    def test_what_a_job_left_is_removed_though_the_session_ends_at_once(
        self, transport: Transport, machine: Server, tmp_path: Path
    ) -> None:
        session = transport.connect(machine.endpoint(), CONNECT_SECONDS)
        job = Runner(session, tmp_path)
        job.put("mkdir left && cd left && touch $(seq 5000)")
        session.run(limits())
        session.close()
        deadline = time.monotonic() + 10
        while any((machine.work_dir / "job").iterdir()):
            assert time.monotonic() < deadline, "files of the job are still there"
            time.sleep(0.02)

    def test_a_closed_session_says_so(self, session: Session) -> None:
        before = session.open
        session.close()
        session.close()
        assert (before, session.open, session.alive()) == (True, False, False)
        for call in (session.report, lambda: session.peek(1), lambda: session.put([])):
            with pytest.raises(MachineUnreachable):
                call()

    def test_a_machine_that_dies_while_its_job_runs(
        self, transport: Transport, tmp_path: Path
    ) -> None:
        word = marker()
        with self.start_machine() as machine:
            session = transport.connect(machine.endpoint(), CONNECT_SECONDS)
            Runner(session, tmp_path).put(f"sh -c 'sleep 60; true' {word}")
            with ThreadPoolExecutor() as pool:
                running = pool.submit(session.run, limits())
                wait_until_there(word)
                machine.kill()
                with pytest.raises(MachineUnreachable):
                    running.result(timeout=15)
            assert not session.open
            assert not session.alive()
        wait_until_gone(word)

    # Host keys

    def test_a_machine_that_cannot_change_its_host_key_says_so(self, session: Session) -> None:
        with pytest.raises(JobRefused, match="host key"):
            session.stage_host_key()
        with pytest.raises(JobRefused, match="host key"):
            session.activate_host_key()
        assert session.alive()
