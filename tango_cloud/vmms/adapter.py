"""TangoCloud: the twelve methods that a Tango server calls, of either generation.

Tango's worker threads die with an exception and then leave their job live for ever, so here nothing
is raised but by `getVMs` (which must never answer "none" when it does not know): the answers are
the integers that the callers act on, and the log says why.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from tango_cloud.core.errors import (
    InputError,
    JobRefused,
    MachineDamaged,
    MachineUnreachable,
    TangoCloudError,
)
from tango_cloud.core.model import MachineKey
from tango_cloud.core.settings import load
from tango_cloud.jobs.limits import limits
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.transports.protocol import Session
from tango_cloud.vmms.translation import (
    ListedVM,
    input_files,
    key_of,
    listed,
    positive_number,
    shape_of,
)
from tango_cloud.wiring import build_deployment

log = logging.getLogger(__name__)

Result = TypeVar("Result")

OK, FAILED = 0, -1
RAN, USAGE, TIMED_OUT, DAMAGED = 0, 1, 2, 3


class TangoCloud:
    """The VMMS. Built without arguments: everything comes from the settings.

    Safe for many threads, and for many processes that each build their own: a machine is known by
    `(prefix, vm.id, vm.name)` alone. Raises ConfigurationError when the settings are wrong.
    """

    def __init__(self) -> None:
        self._settings = load()
        self._lock = threading.Lock()
        self._pid = 0
        self._built: Fleet | None = None
        _ = self._fleet

    @property
    def _fleet(self) -> Fleet:
        # Connections and threads do not survive a fork: a child builds its own.
        with self._lock:
            if self._built is None or self._pid != os.getpid():
                deployment = build_deployment(self._settings)
                deployment.background.start()
                self._built, self._pid = deployment.fleet, os.getpid()
            return self._built

    def instanceName(self, id: int, name: str) -> str:
        """`<prefix>-<id>-<name>`."""
        return MachineKey(self._settings.prefix, id, name).instance_name

    def initializeVM(self, vm: object) -> int:
        """Ask for the machine `vm`; 0 once that is on the books, -1 when it cannot be had.

        Idempotent for the same `(id, name)`. Making it goes on meanwhile: `waitVM` waits. With the
        setting `vmms.initialize_waits` it is 0 once the machine answers; when it does not in
        `machine.ready_seconds` it is -1, and the machine is to be destroyed as after any failure.
        """
        try:
            key = self._request(vm)
            if self._settings.vmms.initialize_waits:
                machine = self._fleet.wait(key, self._settings.machine.ready_seconds)
                _fill(vm, machine.address, machine.instance_id)
        except Exception as error:
            _log("initializeVM", vm, error)
            return FAILED
        return OK

    def waitVM(self, vm: object, max_secs: float) -> int:
        """0 once the machine answers; -1 when it does not within `max_secs` seconds, or is bad.

        A machine that is gone is made again under the same identity.
        """
        try:
            seconds = positive_number("max_secs", max_secs)
            key = self._request(vm)
            machine = self._fleet.wait(key, seconds)
            _fill(vm, machine.address, machine.instance_id)
        except Exception as error:
            _log("waitVM", vm, error)
            return FAILED
        return OK

    def copyIn(
        self,
        vm: object,
        inputFiles: Iterable[object],
        job_id: object = None,
    ) -> int:
        """0 once the job directory holds these files and nothing else; 1 when an input file cannot
        be used; -1 when the machine cannot be talked to.
        """
        try:
            files = input_files(inputFiles)
            key = self._key(vm)
            self._exchange(key, self._fleet.lease(key), lambda session: session.put(files))
        except InputError as error:
            _log(f"copyIn of job {job_id}", vm, error)
            return USAGE
        except Exception as error:
            self._condemn_if_damaged(vm, error)
            _log(f"copyIn of job {job_id}", vm, error)
            return FAILED
        return OK

    def runJob(
        self,
        vm: object,
        runTimeout: float | None,
        maxOutputFileSize: int | None,
        disableNetwork: bool = False,
    ) -> int:
        """0: it ran (whatever make said); 1: not as asked; 2: timed out; 3: the machine is damaged,
        destroy it; -1: the machine could not be talked to. Seconds and bytes; None: the settings'.
        """
        try:
            wanted = limits(
                self._settings.job,
                timeout_seconds=_optional("runTimeout", runTimeout),
                output_bytes=_whole(_optional("maxOutputFileSize", maxOutputFileSize)),
                network=not disableNetwork,
            )
            key = self._key(vm)
            session = self._fleet.session(key)
            try:
                outcome = session.run(wanted)
            except MachineUnreachable:
                self._fleet.broken(session)
                raise
        except (InputError, JobRefused) as error:
            _log("runJob", vm, error)
            return USAGE
        except MachineDamaged as error:
            self._condemn_if_damaged(vm, error)
            _log("runJob", vm, error)
            return DAMAGED
        except Exception as error:
            _log("runJob", vm, error)
            return FAILED
        return TIMED_OUT if outcome.timed_out else RAN

    def copyOut(self, vm: object, destFile: str) -> int:
        """0 once `destFile` holds the last run's output, replaced atomically; else -1."""
        try:
            key, local = self._key(vm), Path(destFile)
            self._exchange(key, self._fleet.session(key), lambda session: session.get(local))
            self._fleet.unlease(key)
        except Exception as error:
            _log("copyOut", vm, error)
            return FAILED
        return OK

    def destroyVM(self, vm: object) -> None:
        """Ask for removal; may return before the machine is gone."""
        try:
            self._fleet.destroy(self._key(vm))
        except Exception as error:
            _log("destroyVM", vm, error)

    def safeDestroyVM(self, vm: object) -> None:
        """Return once the cloud itself says that the machine is gone.

        If it does not within the setting `machine.gone_seconds`, that is logged as an error, and
        the machine stays on the books as destroying.
        """
        try:
            self._fleet.destroy_and_wait(self._key(vm), self._settings.machine.gone_seconds)
        except Exception as error:
            _log("safeDestroyVM", vm, error)

    def getVMs(self) -> list[ListedVM]:
        """This deployment's machines, those still being made included. Raises when the cloud cannot
        be asked: resetTango then stops the server, which must not start blind.
        """
        return [listed(entry) for entry in self._fleet.entries()]

    def existsVM(self, vm: object) -> bool:
        """Whether there is such a machine. True when the cloud cannot be asked: absence is never
        claimed unseen.
        """
        try:
            return self._fleet.exists(self._key(vm))
        except InputError as error:
            _log("existsVM", vm, error)
            return False
        except Exception as error:
            _log("existsVM", vm, error)
            return True

    def getImages(self) -> list[str]:
        """The image names that a job may ask for; none when the cloud cannot be asked."""
        try:
            return list(self._fleet.images())
        except Exception as error:
            log.error("getImages: %s", error)
            return []

    def getPartialOutput(self, vm: object) -> str:
        """The first bytes of output so far of the job that runs on `vm`, in whichever process."""
        try:
            key = self._key(vm)
            size = self._settings.job.output_kib * 1024
            output = self._exchange(
                key, self._fleet.session(key), lambda session: session.peek(size)
            )
        except Exception as error:
            _log("getPartialOutput", vm, error)
            return ""
        return output.decode("utf-8", "replace")

    def _key(self, vm: object) -> MachineKey:
        return key_of(self._settings.prefix, vm)

    def _request(self, vm: object) -> MachineKey:
        settings = self._settings
        shape = shape_of(vm, settings.machine, settings.vmms.memory_unit)
        key = self._key(vm)
        machine = self._fleet.request(key, shape, settings.machine.lifetime_seconds)
        _fill(vm, machine.address, machine.instance_id)
        return key

    def _exchange(
        self, key: MachineKey, session: Session, exchange: Callable[[Session], Result]
    ) -> Result:
        """Do what may be done twice; once more if the connection, kept since the last job, died."""
        try:
            return exchange(session)
        except MachineUnreachable:
            self._fleet.broken(session)
            return exchange(self._fleet.session(key))

    def _condemn_if_damaged(self, vm: object, error: Exception) -> None:
        """The old Tango uses a machine again whatever it answered: make its next `waitVM` fail."""
        if isinstance(error, MachineDamaged):
            try:
                self._fleet.condemn(self._key(vm), str(error))
            except Exception as second:
                _log("condemning", vm, second)


def _fill(vm: object, address: str, instance_id: str) -> None:
    """Tell a TangoMachine what is known: plain strings, which pickle."""
    if address:
        vm.domain_name = address  # type: ignore[attr-defined]
    if instance_id:
        vm.instance_id = instance_id  # type: ignore[attr-defined]
        vm.ec2_id = instance_id  # type: ignore[attr-defined]


def _optional(what: str, value: object) -> float | None:
    return None if value is None else positive_number(what, value)


def _whole(value: float | None) -> int | None:
    return None if value is None else max(1, int(value))


def _log(doing: str, vm: object, error: Exception) -> None:
    name = f"{getattr(vm, 'id', '?')}-{getattr(vm, 'name', '?')}"
    if isinstance(error, TangoCloudError):
        log.error("%s %s: %s", doing, name, error)
    else:
        log.error("%s %s: unexpected: %s", doing, name, error, exc_info=error)
