"""The Python API, for people who have no Tango: context managers, typed results, exceptions.

::

    with Cloud() as cloud:
        for result in cloud.run([cloud.job("hw1/alice"), cloud.job("hw1/bob")], machines=2):
            print(result.job, result.status, result.output)
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from tango_cloud.core.errors import Fault, InputError
from tango_cloud.core.model import Event, MachineKey, Shape
from tango_cloud.core.sections import MachineSettings
from tango_cloud.core.settings import Settings, load
from tango_cloud.jobs.execution import execute, utc_now
from tango_cloud.jobs.job import Job, JobResult, StepTimes, load_directory
from tango_cloud.jobs.limits import limits
from tango_cloud.orchestration import ansible_inventory
from tango_cloud.orchestration.burst import Burst, MachinePlan, OnHappening
from tango_cloud.orchestration.fleet import Entry, Fleet
from tango_cloud.orchestration.images import Image
from tango_cloud.orchestration.keys import client_key
from tango_cloud.orchestration.mending import Outcome
from tango_cloud.orchestration.preparation import (
    ImagePreparation,
    OnProgress,
    Order,
    Prepared,
)
from tango_cloud.transports.artifacts import check as check_artifacts
from tango_cloud.transports.protocol import Artifacts, MachineReport, OnOutput
from tango_cloud.wiring import (
    build_deployment,
    build_preparer,
    build_transport,
    state_folder,
)

_KIB, _MIB = 1024, 1024 * 1024


class CloudMachine:
    """A machine held by a `with` block: ready, and destroyed at its end."""

    def __init__(self, fleet: Fleet, key: MachineKey, ready_seconds: float) -> None:
        self._fleet = fleet
        self._ready_seconds = ready_seconds
        self.key = key

    @property
    def name(self) -> str:
        return self.key.instance_name

    def report(self) -> MachineReport:
        """What the machine says of itself. Raises MachineUnreachable."""
        return self._fleet.session(self.key).report()

    def run(self, job: Job, output: Path, on_output: OnOutput | None = None) -> JobResult:
        """Run `job`; its output is in the file `output` afterwards, its artifacts are in the
        directory beside it that ends in `.artifacts`.

        `on_output` gets output as it comes. Raises InputError, OutputError, JobRefused,
        MachineDamaged, MachineUnreachable, or what waiting for the machine raises.
        """
        asked = utc_now()
        machine = self._fleet.wait(self.key, self._ready_seconds)
        session = self._fleet.lease(self.key, job.transport)
        try:
            times = StepTimes(asked, utc_now())
            return execute(job, session, machine, times, output, on_output)
        finally:
            self._fleet.unlease(self.key)


class Cloud:
    """A deployment: its settings, its machines, and ways to run jobs on them.

    `overrides` are settings, nested as in the file (`Cloud({"provider": "local"})`). Raises
    ConfigurationError with every fault of the settings.
    """

    def __init__(
        self, overrides: Mapping[str, Any] | None = None, *, settings: Settings | None = None
    ) -> None:
        self.settings = settings or load(overrides)
        self._deployment = build_deployment(self.settings)
        self._deployment.background.start()
        self._fleet = self._deployment.fleet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish what was begun and close connections. Machines that were kept stay."""
        self._deployment.close()

    def job(
        self,
        directory: str | Path,
        *,
        name: str | None = None,
        timeout_seconds: float | None = None,
        output_kib: int | None = None,
        network: bool = True,
        artifacts: Iterable[str] = (),
        artifact_mib: int | None = None,
        transport: str | None = None,
    ) -> Job:
        """The job in `directory`, of which `artifacts` are to be fetched: files and directories
        that it makes, at most `artifact_mib` MiB of them. `transport` is "ssh", "ansible", or None
        for the settings'.

        Raises InputError with everything that is wrong with it, ConfigurationError when there is no
        such transport.
        """
        if transport is not None:
            build_transport(transport)
        path = Path(directory)
        return Job(
            _file_name(name or path.resolve().name),
            tuple(load_directory(path)),
            limits(
                self.settings.job,
                timeout_seconds=timeout_seconds,
                output_bytes=None if output_kib is None else output_kib * _KIB,
                network=network,
            ),
            _artifacts(
                artifacts, self.settings.job.artifact_mib if artifact_mib is None else artifact_mib
            ),
            transport,
        )

    def run(
        self,
        jobs: Sequence[Job],
        *,
        output_dir: str | Path = "output",
        machines: int = 1,
        shape: Shape | None = None,
        keep: bool = False,
        on_happening: OnHappening | None = None,
    ) -> Sequence[JobResult]:
        """Run jobs side by side on up to `machines` machines, each output in a file below
        `output_dir`; results come in the order of `jobs`.

        A job that could not be run has the status `error` and a detail. Raises InputError for jobs
        that would write the same file, ConfigurationError, NotGoneInTime; on KeyboardInterrupt
        everything that it made is destroyed before it goes on its way.
        """
        if machines < 1:
            raise InputError([Fault("machines", f"{machines} will not do", "at least 1")])
        folder = _prepare_output(Path(output_dir), jobs)
        self._deployment.stacks.check()
        plan = self._plan(shape or self.shape(), keep=keep)
        return Burst(self._fleet, plan, folder, on_happening or _ignore).run(jobs, machines)

    def _plan(self, shape: Shape, *, keep: bool = False) -> MachinePlan:
        machine = self.settings.machine
        return MachinePlan(
            shape=shape,
            lifetime=machine.lifetime_seconds,
            ready_seconds=machine.ready_seconds,
            gone_seconds=machine.gone_seconds,
            keep=keep,
        )

    @contextmanager
    def machine(self, shape: Shape | None = None) -> Iterator[CloudMachine]:
        """A ready machine for the length of the block.

        Raises ConfigurationError, ProvisioningError, NotReadyInTime; NotGoneInTime at the end.
        """
        settings = self.settings.machine
        wanted = shape or self.shape()
        self._deployment.stacks.check()
        requested = self._fleet.request_next(wanted, settings.lifetime_seconds)
        try:
            self._fleet.wait(requested.key, settings.ready_seconds)
            yield CloudMachine(self._fleet, requested.key, settings.ready_seconds)
        finally:
            self._fleet.destroy_and_wait(requested.key, settings.gone_seconds)

    def shape(
        self,
        image: str | None = None,
        cores: int | None = None,
        memory_mib: int | None = None,
        disk_gib: int | None = None,
    ) -> Shape:
        """A shape; what is not given comes from the settings."""
        return shape_or(self.settings.machine, image, cores, memory_mib, disk_gib)

    def warnings(self) -> Sequence[str]:
        """What its user should know before trusting the provider with jobs: weak isolation."""
        return self._fleet.warnings()

    def machines(self) -> Sequence[Entry]:
        """All machines of the deployment, as the cloud and the ledger show them.

        Raises ProviderUnavailable or AuthenticationError when the cloud cannot be asked.
        """
        return self._fleet.entries()

    def prepare(
        self,
        image: str,
        playbook: str | Path | None = None,
        *,
        base: str = "",
        force: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Prepared:
        """Make an image that jobs may ask for by the name `image`: of a machine of `base` to which
        `playbook` was applied, or only what runs jobs. One of the same recipe that is there already
        is taken as it is, unless it is to be made by `force`.

        Raises InputError, ConfigurationError, PreparationFailed, ProvisioningError, NotReadyInTime,
        NotGoneInTime, MachineUnreachable, ProviderUnavailable, AuthenticationError. Nothing is left
        then, nor on KeyboardInterrupt.
        """
        preparation = ImagePreparation(
            self._fleet,
            self._deployment.connections,
            self._deployment.images,
            build_preparer(),
            self._plan(self.shape()),
            limits(self.settings.job),
            on_progress or _ignore,
        )
        return preparation.run(Order(image, Path(playbook) if playbook else None, base, force))

    def images(self) -> Sequence[Image]:
        """The images that this deployment has baked, by name, newest first.

        Raises ProviderUnavailable or AuthenticationError when a cloud cannot be asked.
        """
        return self._deployment.images.all()

    def prune_images(
        self,
        *,
        keep: int = 2,
        older_than: dt.timedelta = dt.timedelta(0),
        dry_run: bool = False,
    ) -> Sequence[Image]:
        """Remove old images, or with `dry_run` only say which; those images.

        Of each name the newest `keep` stay, one at least; and what is younger than that or in use.
        Half-made images go as soon as nobody can be at them any more. Raises as `images`.
        """
        return self._deployment.images.prune(keep, older_than, dry_run=dry_run)

    def ansible_inventory(self) -> Mapping[str, Any]:
        """The machines that can be used, as a dynamic inventory tells them to Ansible.

        The host keys that it refers to are in a file of the state folder, written anew each time.
        Raises as `machines`.
        """
        folder = state_folder(self.settings)
        known_hosts = folder / ansible_inventory.KNOWN_HOSTS
        machines = ansible_inventory.usable(self.machines())
        ansible_inventory.write_known_hosts(machines, known_hosts)
        key = client_key(folder).file
        return ansible_inventory.document(machines, self._fleet.sudo(), key, known_hosts)

    def history(self, name: str) -> Sequence[Event]:
        """The story of the machines that bore this id or instance name, oldest first."""
        return self._fleet.history(name)

    def destroy(self, key: MachineKey) -> None:
        """Destroy a machine and return once it is gone. Raises NotGoneInTime."""
        self._fleet.destroy_and_wait(key, self.settings.machine.gone_seconds)

    def end_instance(self, entry: Entry) -> None:
        """Remove an instance that is only tagged as if it were ours, and return once it is gone.

        For a person who has looked at it. Raises NotGoneInTime, InputError when there is none.
        """
        if entry.instance is None:
            raise InputError([Fault(entry.key.instance_name, "there is no such instance", "")])
        seconds = self.settings.machine.gone_seconds
        self._fleet.end_instance(entry.provider, entry.instance.instance_id, seconds)

    def destroy_envelope(self) -> None:
        """Remove what the deployment's machines share at its providers: networks, firewall rules,
        templates. The next machine makes them anew.

        Raises InputError while there are machines, TerraformError when it cannot be removed.
        """
        left = [entry.key.instance_name for entry in self.machines()]
        if left:
            raise InputError(
                [Fault("envelope", f"{len(left)} machines still use it", "destroy --all first")]
            )
        for provider in self.settings.provider:
            self._deployment.stacks.remove_envelope(provider)

    def reconcile(self, *, dry_run: bool = False) -> Sequence[Outcome]:
        """Hold cloud, ledger and states against each other and mend what disagrees, or with
        `dry_run` only say what does. Without a word when all is well.

        Raises ProviderUnavailable or AuthenticationError when a cloud cannot be asked, before
        anything is done; what cannot be mended is in the outcomes.
        """
        reconciler = self._deployment.reconciler
        if dry_run:
            return [Outcome(finding) for finding in reconciler.look()]
        return reconciler.run()

    def recover(self) -> Sequence[Outcome]:
        """Put machines back on the books that the cloud has and a lost ledger had. Raises as
        `reconcile`."""
        return self._deployment.reconciler.recover()


def shape_or(
    defaults: MachineSettings,
    image: str | None = None,
    cores: int | None = None,
    memory_mib: int | None = None,
    disk_gib: int | None = None,
) -> Shape:
    """A shape; what is not given comes from `defaults`."""
    return Shape(
        image or defaults.image or "",
        cores or defaults.cores,
        memory_mib or defaults.memory_mib,
        disk_gib or defaults.disk_gib,
    )


def _file_name(name: str) -> str:
    """The job's name, which its output's file has too. Raises InputError when none can have it."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        expected = "a name that a file can have"
        raise InputError([Fault("name", f"a job cannot be called {name!r}", expected)])
    return name


def _artifacts(paths: Iterable[str], limit_mib: int) -> Artifacts:
    """The artifacts, `./build/` as `build`. Raises InputError."""
    if isinstance(paths, str):
        raise InputError([Fault("artifacts", f"{paths!r} is one path", f"[{paths!r}]")])
    wanted = Artifacts(tuple(str(PurePosixPath(path)) for path in paths), limit_mib * _MIB)
    check_artifacts(wanted)
    return wanted


def _prepare_output(folder: Path, jobs: Sequence[Job]) -> Path:
    names = [job.name for job in jobs]
    faults = [
        Fault(name, "two jobs have this name, and would share one output file", "distinct names")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if faults:
        raise InputError(faults)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError([Fault(str(folder), str(error), "a folder to write output to")]) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError([Fault(str(folder), "it may not be written to", "a folder of yours")])
    taken = [folder / f"{name}.txt" for name in names]
    faults = [Fault(str(path), "is a folder", "a file") for path in taken if path.is_dir()]
    if faults:
        raise InputError(faults)
    return folder


def _ignore(_happening: object) -> None:
    """Nobody watches."""
