"""A burst: many jobs on a few machines that are made for them and removed after them."""

from __future__ import annotations

import datetime as dt
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tango_cloud.core.errors import (
    Cancelled,
    InputError,
    JobRefused,
    MachineDamaged,
    MachineUnreachable,
    NotReadyInTime,
    OutputError,
    TangoCloudError,
)
from tango_cloud.core.model import Machine, MachineKey, Shape
from tango_cloud.jobs.execution import execute, failed, utc_now
from tango_cloud.jobs.job import Job, JobResult, JobStatus, StepTimes
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.undisturbed import undisturbed
from tango_cloud.transports.protocol import Session

log = logging.getLogger(__name__)

_TRIES = 2
"""How many machines a job may be tried on: the second only if the first broke under it."""


class Step(StrEnum):
    MACHINE_REQUESTED = "machine requested"
    MACHINE_READY = "machine ready"
    MACHINE_GONE = "machine gone"
    JOB_STARTED = "job started"
    JOB_OUTPUT = "job output"
    JOB_ENDED = "job ended"


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, for progress displays. Which fields are set depends on `step`."""

    step: Step
    machine: str = ""
    job: str = ""
    output: bytes = b""
    result: JobResult | None = None


OnHappening = Callable[[Happening], None]


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """What machines a burst uses. Times in seconds."""

    shape: Shape
    lifetime: float
    ready_seconds: float
    gone_seconds: float
    keep: bool = False


class Burst:
    """Runs jobs side by side, one worker thread for each machine. Use an instance once."""

    def __init__(
        self, fleet: Fleet, plan: MachinePlan, output_dir: Path, on_happening: OnHappening
    ) -> None:
        self._fleet = fleet
        self._plan = plan
        self._output_dir = output_dir
        self._tell = on_happening
        self._stop = threading.Event()
        self._jobs: queue.SimpleQueue[tuple[int, Job]] = queue.SimpleQueue()
        self._results: dict[int, JobResult] = {}
        self._coming: set[MachineKey] = set()
        """Asked for, and never ready yet."""
        self._running: dict[MachineKey, Session] = {}
        self._lock = threading.Lock()
        self._last_error = "no machine could be had"
        self._asked: dt.datetime | None = None

    def run(self, jobs: Sequence[Job], machines: int) -> Sequence[JobResult]:
        """Run every job and return their results in the order of `jobs`.

        At most `machines` machines exist for it; they are gone when this returns (unless the plan
        keeps them). A job that cannot be run gets a result that says why: only what concerns all
        of them is raised (ConfigurationError, NotGoneInTime). Interrupted, it stops the jobs and
        removes the machines before it lets go; InterruptedTwice when it may not even do that.
        """
        self._asked = utc_now()
        for numbered in enumerate(jobs):
            self._jobs.put(numbered)
        undisturbed(lambda: self._work(min(machines, len(jobs))), self.cancel)
        return [self._results.get(n) or self._unrun(job) for n, job in enumerate(jobs)]

    def _work(self, machines: int) -> None:
        """Serve every job. Raises what concerns them all, once no machine is left."""
        errors: list[Exception] = []
        workers: list[threading.Thread] = []
        try:
            for _ in range(machines):
                if self._stop.is_set():
                    break
                workers += self._employ(errors)
        except Exception as error:
            self._stop.set()
            errors.append(error)
        for worker in workers:
            worker.join()
        if errors:
            raise errors[0]

    def cancel(self) -> None:
        """Stop what runs and start nothing more. `run` then returns once the machines are gone."""
        self._stop.set()
        with self._lock:
            coming, running = list(self._coming), list(self._running.values())
        self._fleet.halt(coming)
        for session in running:
            session.close()  # the machine then stops the job

    def _employ(self, errors: list[Exception]) -> Sequence[threading.Thread]:
        """Ask for a machine; its worker."""
        plan = self._plan
        key = self._fleet.request_next(plan.shape, plan.lifetime, keep=plan.keep).key
        with self._lock:
            self._coming.add(key)
        worker = threading.Thread(target=self._serve, args=(key, errors), name=str(key))
        try:
            self._tell(Happening(Step.MACHINE_REQUESTED, key.instance_name))
            worker.start()
        except BaseException:  # who is told may fail, and there may be no more threads
            self._stop.set()
            self._serve(key, errors)  # which by now is no more than its removal
            raise
        return [worker]

    def _serve(self, key: MachineKey, errors: list[Exception]) -> None:
        """A worker: jobs on one machine until none are left, then the machine's removal."""
        try:
            while not self._stop.is_set():
                try:
                    number, job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if not self._attend(key, number, job):
                    break
        except Exception as error:  # of who is told: nothing of ours lets one through
            self._stop.set()
            errors.append(error)
        try:
            if not self._plan.keep or (self._stop.is_set() and key in self._coming):
                self._fleet.destroy_and_wait(key, self._plan.gone_seconds)
                self._tell(Happening(Step.MACHINE_GONE, key.instance_name))
        except Exception as error:
            errors.append(error)

    def _attend(self, key: MachineKey, number: int, job: Job) -> bool:
        """Run one job. False when no machine can be had: the job goes back for other workers."""
        result = self._unrun(job)
        for _ in range(_TRIES):
            try:
                machine = self._fleet.wait(key, self._plan.ready_seconds, self._stop)
                with self._lock:
                    self._coming.discard(key)
                self._tell(Happening(Step.MACHINE_READY, key.instance_name))
                session = self._fleet.lease(key, job.transport)
            except TangoCloudError as no_machine:
                self._jobs.put((number, job))
                if not isinstance(no_machine, Cancelled):
                    self._last_error = str(no_machine)
                    log.error("%s", no_machine)
                return False
            times = StepTimes(self._asked, utc_now())
            try:
                result = self._execute(machine, session, job, times)
                break
            except (InputError, OutputError, JobRefused) as unfit:
                result = failed(job, machine, times, unfit)
                break
            except (MachineDamaged, MachineUnreachable, NotReadyInTime) as broken:
                if self._stop.is_set():
                    result = failed(job, machine, times, broken, JobStatus.CANCELLED)
                    break
                result = failed(job, machine, times, broken)
                log.warning("%s: %s: %s", key, job.name, broken)
                self._replace(key, broken)
        self._end(number, result)
        return True

    def _execute(self, machine: Machine, session: Session, job: Job, times: StepTimes) -> JobResult:
        key, name = machine.key, machine.key.instance_name
        self._tell(Happening(Step.JOB_STARTED, name, job.name))
        with self._lock:
            self._running[key] = session
        try:
            if self._stop.is_set():
                raise MachineUnreachable("cancelled")  # just before `cancel` could see the session
            return execute(
                job,
                session,
                machine,
                times,
                self._output_dir / f"{job.name}.txt",
                lambda chunk: self._tell(Happening(Step.JOB_OUTPUT, name, job.name, output=chunk)),
            )
        finally:
            self._fleet.unlease(key)
            with self._lock:
                self._running.pop(key, None)

    def _replace(self, key: MachineKey, broken: TangoCloudError) -> None:
        """Give a broken machine up, so that the next `wait` gets a new one of the same identity."""
        self._fleet.condemn(key, str(broken))
        self._fleet.destroy(key)

    def _end(self, number: int, result: JobResult) -> None:
        self._results[number] = result
        self._tell(Happening(Step.JOB_ENDED, result.machine, result.job, result=result))

    def _unrun(self, job: Job) -> JobResult:
        status, detail = JobStatus.ERROR, self._last_error
        if self._stop.is_set():
            status, detail = JobStatus.CANCELLED, "not started"
        return JobResult(job.name, status, detail=detail, times=StepTimes(self._asked))
