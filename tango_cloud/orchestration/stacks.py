"""Terraform's side of a deployment: its envelopes and waves, each a module with its own state.

Folders, below the deployment's own (0700)::

    envelope/<provider>/  state and inputs of the reviewed, long-lived part
    waves/<wave>/         state and inputs of the machines that one apply created
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from tango_cloud.core import tags
from tango_cloud.core.errors import NextMove, TangoCloudError, TerraformError
from tango_cloud.core.files import write_whole
from tango_cloud.core.model import MachineRequest
from tango_cloud.core.settings import Settings
from tango_cloud.orchestration.site import Sites
from tango_cloud.providers.protocol import Provider
from tango_cloud.terraform import command
from tango_cloud.terraform.backend import backend_from_settings
from tango_cloud.terraform.binary import resolve
from tango_cloud.terraform.environment import find_mirror, terraform_environment, write_cli_config
from tango_cloud.terraform.events import Diagnostic, Event, ResourceDone
from tango_cloud.terraform.runner import Controls, Terraform, failed
from tango_cloud.terraform.workspace import INPUTS, Workspace, Workspaces, write_inputs

log = logging.getLogger(__name__)

_OUTPUT = "envelope.json"
_WAVE = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class WaveReport:
    """What one apply did: the uids it created, what failed one by one, and as a whole;
    `instance_ids`, as far as they are known, by uid. `interrupted`: it was ended by us."""

    created: frozenset[str]
    errors: Mapping[str, TangoCloudError] = field(default_factory=dict)
    failure: TangoCloudError | None = None
    instance_ids: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False


class Stacks:
    """Applies and forgets, for one deployment. Safe for many threads.

    Terraform is looked for when it is first needed: any method may raise TerraformUnusable.
    """

    def __init__(self, settings: Settings, folder: Path, sites: Sites) -> None:
        self._settings = settings
        self._folder = folder
        self._sites = sites
        self._halted = False
        self._unwanted: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._made: Workspaces | None = None
        self._envelopes: dict[str, object] = {}
        self._envelope_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def check(self) -> None:
        """See to it that Terraform can be used, before anything is asked for.

        Raises ConfigurationError, TerraformUnusable.
        """
        with self._lock:
            self._workspaces()

    def apply(
        self,
        provider: str,
        wave: str,
        requests: Sequence[MachineRequest],
        *,
        on_created: Callable[[str], None],
        on_start: Callable[[int], None],
    ) -> WaveReport:
        """Create the machines of `wave`; what each one met is in the report.

        `on_created` is told each uid as its instance exists, `on_start` Terraform's pid. Raises
        TerraformError when not even the envelope could be applied, OSError when the wave's files
        could not be written.
        """
        with self._interruptible(wave) as unwanted:
            site = self._sites[provider].provider
            try:
                envelope = self._envelope(site, unwanted)
            except TerraformError:
                if not unwanted.is_set():
                    raise
            if unwanted.is_set():
                return WaveReport(frozenset(), interrupted=True)
            inputs = {
                "deployment": tags.encode(self._settings.prefix),
                "wave": wave,
                "machines": site.wave_machines(requests),
                "envelope": envelope,
            }
            account = _Account(site.machine_resource, on_created)
            failure: TerraformError | None = None
            workspace, folder = self._workspace(site, "wave"), self._wave_folder(wave)
            try:
                result = workspace.apply(
                    folder,
                    inputs,
                    {"user_data": {request.uid: request.user_data for request in requests}},
                    parallelism=self._settings.wave.parallelism,
                    controls=Controls(
                        on_event=account.take, on_start=on_start, cancelled=unwanted.is_set
                    ),
                )
                made: Any = result.outputs.get("machines", {})
                instance_ids = {uid: str(machine["instance_id"]) for uid, machine in made.items()}
            except TerraformError as error:
                failure = error
                instance_ids = self._ids_in_state(site, workspace, folder)
            finally:
                if workspace.remote:  # whoever removes the wave, on whatever host, needs no inputs
                    shutil.rmtree(folder, ignore_errors=True)
            interrupted = failure is not None and unwanted.is_set()
            report = replace(
                account.report(failure), instance_ids=instance_ids, interrupted=interrupted
            )
            if failure is not None and not report.created and not interrupted:
                self._doubt_envelope(site, failure)
            return report

    @contextlib.contextmanager
    def _interruptible(self, wave: str) -> Iterator[threading.Event]:
        """What is set once nobody needs the end of the wave's apply any more."""
        with self._lock:
            unwanted = self._unwanted[wave] = threading.Event()
            if self._halted:
                unwanted.set()
        try:
            yield unwanted
        finally:
            with self._lock:
                del self._unwanted[wave]

    def _ids_in_state(
        self, provider: Provider, workspace: Workspace, folder: Path
    ) -> dict[str, str]:
        """The instance ids of what an apply made before it failed, which has no outputs then."""
        try:
            stored = workspace.ids(folder, provider.machine_resource)
        except TerraformError as error:
            log.warning("%s: what was made is not known by its id: %s", folder.name, error)
            return {}
        ids = {uid: provider.instance_id(stored_id) for uid, stored_id in stored.items()}
        return {uid: instance_id for uid, instance_id in ids.items() if instance_id}

    def forget(self, provider: str, wave: str, uids: set[str]) -> None:
        """Take machines that are gone out of the wave's state. Idempotent.

        Raises TerraformError: the state then names machines that are gone, which harms nobody.
        """
        site = self._sites[provider].provider
        addresses = [command.address(site.machine_resource, uid) for uid in sorted(uids)]
        self._workspace(site, "wave").forget(self._wave_folder(wave), addresses)

    def discard(self, provider: str, wave: str) -> None:
        """Forget a wave that has no machine left. Idempotent. Raises TerraformError."""
        site = self._sites[provider].provider
        self._workspace(site, "wave").discard(self._wave_folder(wave))

    def waves(self) -> Mapping[str, float]:
        """The waves that have a state, and how many seconds ago it was changed (infinity where that
        is not told). Raises TerraformError when the backend cannot be asked.
        """
        now = time.time()
        found: dict[str, float] = {}
        if self._settings.terraform.remote_state is not None:
            site = self._sites[self._sites.chosen[0]].provider
            found = dict.fromkeys(self._workspace(site, "wave").remote_stacks(), math.inf)
        folder = self._folder / "waves"
        for path in folder.iterdir() if folder.exists() else ():
            with contextlib.suppress(FileNotFoundError):  # somebody else discards it just now
                found[path.name] = now - path.stat().st_mtime
        return {wave: age for wave, age in found.items() if _WAVE.fullmatch(wave)}

    def break_lock(self, provider: str, wave: str) -> None:
        """Free the state of a wave whose owner and Terraform are dead. Raises TerraformError."""
        site = self._sites[provider].provider
        self._workspace(site, "wave").break_lock(self._wave_folder(wave))

    def remove_envelope(self, provider: str) -> None:
        """Remove the envelope, by Terraform; absent is success. The next wave makes it anew.

        Only when no machine is left: the cloud refuses it else. Raises TerraformError.
        """
        site = self._sites[provider].provider
        folder = self._envelope_folder(site)
        with self._envelope_lock(site), FileLock(folder / "lock"):
            self._distrust_envelope(site)
            workspace = self._workspace(site, "envelope")
            if not (folder / INPUTS).exists():  # applied on another host, or never
                write_inputs(folder, site.envelope_variables(self._settings.prefix))
            workspace.destroy(folder, refresh=True)
            workspace.discard(folder)

    def halt(self) -> None:
        """Interrupt every apply of this process, now and until `resume`. Removals go on."""
        with self._lock:
            self._halted = True
            for unwanted in self._unwanted.values():
                unwanted.set()

    def resume(self) -> None:
        with self._lock:
            self._halted = False

    def interrupt(self, wave: str) -> None:
        """Interrupt the apply of one wave, if it is this process': nobody needs its end."""
        unwanted = self._unwanted.get(wave)
        if unwanted is not None:
            unwanted.set()

    def _envelope_folder(self, provider: Provider) -> Path:
        folder = self._folder / "envelope" / provider.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _wave_folder(self, wave: str) -> Path:
        return self._folder / "waves" / wave

    def _envelope_lock(self, provider: Provider) -> threading.Lock:
        """Of each provider's own: one that does not answer holds up none of the others."""
        with self._lock:
            return self._envelope_locks[provider.name]

    def _envelope(self, provider: Provider, unwanted: threading.Event) -> object:
        """The envelope's output; applied first if it never was, or if its inputs have changed."""
        with self._envelope_lock(provider):
            if provider.name not in self._envelopes:
                folder = self._envelope_folder(provider)
                with FileLock(folder / "lock"):
                    applied = self._applied_envelope(provider, folder, unwanted)
                self._envelopes[provider.name] = applied
            return self._envelopes[provider.name]

    def _applied_envelope(
        self, provider: Provider, folder: Path, unwanted: threading.Event
    ) -> object:
        inputs = dict(provider.envelope_variables(self._settings.prefix))
        output = folder / _OUTPUT
        if output.exists() and json.loads((folder / INPUTS).read_text()) == inputs:
            return json.loads(output.read_text())
        output.unlink(missing_ok=True)
        result = self._workspace(provider, "envelope").apply(
            folder, inputs, refresh=True, controls=Controls(cancelled=unwanted.is_set)
        )
        envelope = result.outputs["envelope"]
        write_whole(output, json.dumps(envelope))
        return envelope

    def _doubt_envelope(self, provider: Provider, failure: TerraformError) -> None:
        """Have the next wave apply the envelope again: somebody else may have removed it."""
        full = provider.classify(failure).next_move in (NextMove.NEXT_OFFER, NextMove.NEXT_REGION)
        if full:
            return
        with self._envelope_lock(provider), FileLock(self._envelope_folder(provider) / "lock"):
            self._distrust_envelope(provider)

    def _distrust_envelope(self, provider: Provider) -> None:
        """Go no more by what the last apply put out. Called with the locks held."""
        self._envelopes.pop(provider.name, None)
        (self._envelope_folder(provider) / _OUTPUT).unlink(missing_ok=True)

    def _workspace(self, provider: Provider, kind: str) -> Workspace:
        with self._lock:
            workspaces = self._workspaces()
        return workspaces.open(provider.name, kind, environment=provider.environment())

    def _workspaces(self) -> Workspaces:
        if self._made is None:
            settings = self._settings.terraform
            folder = self._settings.state_dir / "terraform"
            cache = folder / "plugins"
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            configuration = write_cli_config(
                folder / "cli.tfrc", find_mirror(settings.plugin_mirror)
            )
            terraform = Terraform(
                resolve(settings.binary),
                terraform_environment(os.environ, cli_config=configuration, plugin_cache=cache),
                grace_seconds=settings.grace_seconds,
                timeout_seconds=settings.timeout_seconds,
            )
            backend = backend_from_settings(self._settings, os.environ)
            self._made = Workspaces(folder, terraform, backend=backend)
        return self._made


class _Account:
    """Keeps account of one apply, event by event."""

    def __init__(self, resource: str, on_created: Callable[[str], None]) -> None:
        self._resource = resource
        self._on_created = on_created
        self._created: set[str] = set()
        self._diagnostics: dict[str, list[str]] = {}

    def take(self, event: Event) -> None:
        match event:
            case ResourceDone(resource=self._resource, key=uid):
                self._created.add(uid)
                self._on_created(uid)
            case Diagnostic(resource=self._resource, key=uid) if event.is_error:
                self._diagnostics.setdefault(uid, []).append(str(event))

    def report(self, failure: TerraformError | None) -> WaveReport:
        errors: dict[str, TangoCloudError] = {}
        if failure is not None:
            errors = {
                uid: failed(failure.argv, failure.exit_code, failure.stderr, told)
                for uid, told in self._diagnostics.items()
            }
        return WaveReport(frozenset(self._created - errors.keys()), errors, failure)
