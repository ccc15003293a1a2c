"""The work directory: the agent's own files, and the directories that belong to a job.

work_dir/          the agent's; 0711, so that a job can be reached below but nothing listed
  agent/           0700: what a job must not see or change
    lock           held while a job is copied in, runs or is removed
    cleaning       held as well while it is removed
    spool, ring    the output (output.py)
    outcome        the last job's header line; absent until it has ended
    artifacts      what is kept of its files, as an archive; absent when nothing was asked for
    root/          an empty directory to mount a job's root on
  job/ tmp/ shm/   the job user's, 0700: the job directory, its /tmp and its /dev/shm
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator

from tango_cloud.machine.facts import Facts
from tango_cloud.machine.failures import DAMAGED, REFUSED, Failure

JOB_DIRECTORIES = ("job", "tmp", "shm")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_SECONDS = 2.0
"""How long to wait for the lock: an agent whose connection broke may still be stopping its job."""
_LOCK_PAUSE = 0.02


class Folders:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.work_dir = facts.work_dir
        self.agent = os.path.join(facts.work_dir, "agent")
        self.root = os.path.join(self.agent, "root")
        self.spool = os.path.join(self.agent, "spool")
        self.ring = os.path.join(self.agent, "ring")
        self.outcome = os.path.join(self.agent, "outcome")
        self.artifacts = os.path.join(self.agent, "artifacts")
        self.job, self.tmp, self.shm = (
            os.path.join(facts.work_dir, name) for name in JOB_DIRECTORIES
        )

    def prepare(self) -> None:
        """Make what is missing and set right what a job may have changed. Idempotent.

        Raises Failure (damaged) when something of another user's is in the way.
        """
        try:
            os.makedirs(self.work_dir, 0o711, exist_ok=True)
            _own(self.work_dir, os.geteuid(), None, 0o711)
            for path in (self.agent, self.root):
                _own(path, os.geteuid(), None, 0o700)
            for path in (self.job, self.tmp, self.shm):
                _own(path, self._facts.job_user.uid, self._facts.job_user.gid, 0o700)
        except OSError as error:
            raise Failure(DAMAGED, f"cannot set up {self.work_dir}: {error}") from error

    def stamp(self) -> tuple[int, ...]:
        """What tells the job's directories from others that may stand there later."""
        found = [os.lstat(path) for path in (self.job, self.tmp, self.shm)]
        return tuple(number for status in found for number in (status.st_dev, status.st_ino))

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[int, ...]]:
        """The job's directories, open: a child that is the job's user may not be able to walk to
        them. Raises Failure (damaged)."""
        tops: list[int] = []
        try:
            try:
                for path in (self.job, self.tmp, self.shm):
                    tops.append(os.open(path, _DIRECTORY))
            except OSError as error:
                raise Failure(DAMAGED, f"cannot open {path}: {error.strerror}") from error
            yield tuple(tops)
        finally:
            for top in tops:
                os.close(top)

    @contextlib.contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the machine for one job. Raises Failure (refused) when another agent's job runs.

        One that has ended is waited for: its agent holds the machine until it is empty again, and
        whoever started that job has its result already.
        """
        with self._lock_file("lock") as lock:
            deadline = time.monotonic() + _LOCK_SECONDS
            while not _try_lock(lock):
                if time.monotonic() > deadline and not self._is_cleaned():
                    raise Failure(REFUSED, "another job holds this machine")
                on_wait()
                time.sleep(_LOCK_PAUSE)
            yield

    @contextlib.contextmanager
    def cleaning(self) -> Iterator[None]:
        """Let other agents know that what holds the machine will soon be done. Only under lock."""
        with self._lock_file("cleaning") as lock:
            _try_lock(lock)  # failing, it is being looked at just now: nobody waits for long yet
            yield

    def _is_cleaned(self) -> bool:
        with self._lock_file("cleaning") as lock:
            return not _try_lock(lock)

    @contextlib.contextmanager
    def _lock_file(self, name: str) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(os.path.join(self.agent, name), flags, 0o600)
        try:
            yield lock
        finally:
            # Not by closing alone: a child forked meanwhile would still hold it.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def forget_output(self) -> None:
        """Drop what is kept of the last job, so that nobody takes it for the next one's.

        Emptied rather than removed: making a file is what takes longest in a short job.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.outcome)
        self.forget_artifacts()
        for path in (self.spool, self.ring):
            with contextlib.suppress(FileNotFoundError):
                os.truncate(path, 0)

    def create_artifacts(self) -> int:
        """The file for a job's artifacts, open and empty. Before the job runs, which may leave the
        disk without room for another file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self.artifacts, flags, 0o600)

    def forget_artifacts(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.artifacts)

    def write_outcome(self, header: bytes) -> None:
        """Record that a job has ended, and how. Replaced as a whole: readers see all or nothing."""
        fresh = self.outcome + ".new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(fresh, flags, 0o600)
        try:
            os.write(file, header)
        finally:
            os.close(file)
        os.replace(fresh, self.outcome)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _own(path: str, uid: int, gid: int | None, mode: int) -> None:
    """Make `path` a directory of `uid`'s with `mode`. Its parent must be out of a job's reach, or
    the job's user be the agent's own: then nothing is gained by tricking this."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        os.mkdir(path, mode)
        found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(path)
        os.mkdir(path, mode)
        found = os.lstat(path)
    if found.st_uid != uid:
        if os.geteuid() != 0:
            raise OSError(f"{path} belongs to user {found.st_uid}")
        os.chown(path, uid, -1 if gid is None else gid, follow_symlinks=False)
    if stat.S_IMODE(found.st_mode) != mode:
        os.chmod(path, mode)
