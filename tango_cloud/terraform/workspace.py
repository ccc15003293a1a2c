"""Initialised working directories: one per module, serving any number of states.

A *stack* is one use of a module: a folder (0700) with its inputs `inputs.tfvars.json` and its state
`terraform.tfstate`, which a backend keeps under the folder's name instead. Nothing secret is in
either.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tenacity
from filelock import FileLock

from tango_cloud.core.errors import TerraformError
from tango_cloud.core.files import write_whole
from tango_cloud.terraform import command
from tango_cloud.terraform.backend import FILE as BACKEND
from tango_cloud.terraform.backend import Backend, backend_block, workspace_name
from tango_cloud.terraform.modules import copy_module, module_hash, modules_root
from tango_cloud.terraform.runner import Controls, Result, Terraform
from tango_cloud.terraform.state import (
    listed_addresses,
    listed_workspaces,
    lock_id,
    stored_addresses,
    stored_ids,
)

STATE = "terraform.tfstate"
INPUTS = "inputs.tfvars.json"
_READY = ".initialised"
_DEFAULT_PARALLELISM = 10
_LOCK_TRIES = 6
_NO_RESOURCE = "terraform_data.none_is_called_so"
_NO_MATCH = "No matching objects found"


@dataclass(frozen=True, slots=True)
class Workspace:
    """An initialised working directory. Safe to use from many threads and processes at once.

    Each method raises TerraformError when Terraform fails. With `remote` the folder's backend has
    the states, and what is asked of a stack may be asked on any host.
    """

    folder: Path
    terraform: Terraform
    environment: Mapping[str, str]
    remote: bool = False

    def apply(
        self,
        stack: Path,
        inputs: Mapping[str, object],
        secrets: Mapping[str, object] | None = None,
        *,
        parallelism: int = _DEFAULT_PARALLELISM,
        refresh: bool = False,
        controls: Controls | None = None,
    ) -> Result:
        """Create or change the stack. What was created before an error stays, in the state.

        `inputs` are kept beside the state, for the removal; `secrets` reach Terraform alone. With
        `refresh` the cloud is asked first what there is, and what others have changed is put right.
        """
        write_inputs(stack, inputs)
        arguments = command.apply(
            self._state(stack),
            [stack / INPUTS, command.STDIN],
            parallelism=parallelism,
            refresh=refresh,
        )
        given = command.variables(dict(secrets or {}))
        # Terraform waits for the lock of a state, but not to make one: of two that come first at
        # once, one fails at that. The next time there is a state, and it waits.
        return _again_if(_was_first_too)(self._run, arguments, controls, stack, stdin=given)

    def destroy(
        self,
        stack: Path,
        *,
        parallelism: int = _DEFAULT_PARALLELISM,
        refresh: bool = False,
        controls: Controls | None = None,
    ) -> Result:
        """Remove everything, with the inputs of the last apply, which must be on this host.

        What is not in the state is success, also when there is no state at all.
        """
        if not self._exists(stack):
            return Result("")
        arguments = command.apply(
            self._state(stack),
            [stack / INPUTS],
            parallelism=parallelism,
            destroy=True,
            refresh=refresh,
        )
        return self._run(arguments, controls, stack)

    def forget(self, stack: Path, addresses: Sequence[str]) -> None:
        """Take resources that are gone out of the state. Idempotent. Needs no plugin."""
        if not addresses or not self._exists(stack):
            return
        try:
            self._run(command.state_rm(self._state(stack), addresses), None, stack)
        except TerraformError:
            # It fails too when none of them was there.
            left = self.resources(stack)
            if not set(addresses).isdisjoint(left):
                raise
            if self.remote and not left:
                # Another host dropped the state meanwhile: the command has made an empty one.
                self.discard(stack)

    def discard(self, stack: Path) -> None:
        """Forget the stack: its state, whatever that holds, and its folder. Idempotent."""
        if self.remote:
            try:
                self._run(command.workspace_delete(workspace_name(stack.name)), None)
            except TerraformError:
                if self._exists(stack):
                    raise
        shutil.rmtree(stack, ignore_errors=True)

    def break_lock(self, stack: Path) -> None:
        """Take the state's lock away from whoever holds it. Idempotent.

        Only for a stack whose owner is known to be dead: one killed leaves its lock in the backend.
        The lock of a state in a file dies with its owner.
        """
        if not self.remote or not self._exists(stack):
            return
        lock = self._lock(stack)
        if lock is None:
            return
        try:
            self._run(command.force_unlock(lock), None, stack)
        except TerraformError:
            if self._lock(stack) == lock:
                raise

    def outputs(self, stack: Path, controls: Controls | None = None) -> Mapping[str, object]:
        """The outputs of the last apply; empty without one."""
        if not self._exists(stack):
            return {}
        arguments = command.output(self._state(stack))
        text = self._run(arguments, controls, stack).stdout
        try:
            return {name: found["value"] for name, found in json.loads(text).items()}
        except (ValueError, TypeError, KeyError) as error:
            raise TerraformError(arguments, 0, f"these are no outputs: {text[-500:]}") from error

    def resources(self, stack: Path) -> Sequence[str]:
        """The addresses in the state.

        Those in a file are read from it: Terraform takes longer to say the same. Raises
        TerraformError when the file cannot be understood.
        """
        if self.remote:
            if not self._exists(stack):
                return []
            return listed_addresses(self._run(command.state_list(), None, stack).stdout)
        path = stack / STATE
        try:
            return stored_addresses(path.read_text())
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise TerraformError(["read", str(path)], None, f"damaged state: {error}") from error

    def ids(self, stack: Path, resource: str) -> Mapping[str, str]:
        """What the state calls the instances of `resource`, by key. Raises as `resources`."""
        path = stack / STATE
        try:
            if not self.remote:
                return stored_ids(path.read_text(), resource) if path.exists() else {}
            text = (
                self._run(command.state_pull(), None, stack).stdout if self._exists(stack) else ""
            )
            return stored_ids(text, resource) if text.strip() else {}
        except ValueError as error:
            raise TerraformError(["read", str(path)], None, f"damaged state: {error}") from error

    def remote_stacks(self) -> Sequence[str]:
        """The workspaces that the backend has a state of."""
        return listed_workspaces(self._run(command.workspace_list(), None).stdout)

    def _exists(self, stack: Path) -> bool:
        """Whether there is a state. Any other command would make the backend's, to look at it."""
        if not self.remote:
            return (stack / STATE).exists()
        return workspace_name(stack.name) in self.remote_stacks()

    def _lock(self, stack: Path) -> str | None:
        """The id of the lock on the backend's state; None when it is free.

        Terraform tells it to whoever wants the lock, here for nothing.
        """
        try:
            self._run(command.state_rm(None, [_NO_RESOURCE], lock_seconds=0), None, stack)
        except TerraformError as error:
            lock = lock_id(error.stderr)
            if lock is None and _NO_MATCH not in error.stderr:
                raise
            return lock
        return None

    def _state(self, stack: Path) -> Path | None:
        return None if self.remote else stack / STATE

    def _run(
        self,
        arguments: Sequence[str],
        controls: Controls | None,
        stack: Path | None = None,
        *,
        stdin: str = "",
    ) -> Result:
        environment = dict(self.environment)
        if self.remote and stack is not None:
            environment["TF_WORKSPACE"] = workspace_name(stack.name)
        return _again_if(_lock_went_away)(
            self.terraform.run,
            arguments,
            self.folder,
            controls,
            stdin=stdin,
            environment=environment,
        )


class Workspaces:
    """Makes and remembers the workspaces of one state folder. Safe for threads and processes."""

    def __init__(
        self,
        folder: Path,
        terraform: Terraform,
        modules: Path | None = None,
        backend: Backend | None = None,
    ) -> None:
        """`folder` is made; `modules` is where the modules are (ours by default).

        Raises ConfigurationError when this Terraform cannot use the backend.
        """
        if backend is not None:
            backend.check(terraform.binary)
        self._backend = backend
        self._folder = folder
        self._terraform = terraform
        self._modules = modules
        self._lock = threading.Lock()
        self._locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._opened: dict[tuple[str, str], Workspace] = {}

    def open(
        self,
        provider: str,
        kind: str,
        *,
        environment: Mapping[str, str] | None = None,
        controls: Controls | None = None,
    ) -> Workspace:
        """The initialised workspace of `<provider>/<kind>`; initialised on the first call.

        `environment` is what the provider's Terraform needs. Raises TerraformError when `init`
        fails, TerraformUnusable when the modules are missing.
        """
        with self._lock:
            lock = self._locks[provider, kind]
        with lock:  # one for each: who has one open waits for nobody's `init`
            opened = self._opened.get((provider, kind))
            if opened is None:
                opened = self._open(provider, kind, environment or {}, controls)
                self._opened[provider, kind] = opened
        return replace(opened, environment=environment or {})

    def _open(
        self,
        provider: str,
        kind: str,
        environment: Mapping[str, str],
        controls: Controls | None,
    ) -> Workspace:
        module = (self._modules or modules_root()) / provider / kind
        binary = self._terraform.binary
        salt = f"{binary.product} {'.'.join(map(str, binary.version))}"
        block = None if self._backend is None else backend_block(self._backend, kind)
        if block is not None:
            salt += block
        folder = self._folder / f"{provider}-{kind}-{module_hash(module, salt)}"
        workspace = Workspace(folder, self._terraform, environment, remote=block is not None)
        if (folder / _READY).exists():
            return workspace
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One lock for all: workspaces share the plugin cache, which `init` must have to itself.
        with FileLock(self._folder / "init.lock"):
            if not (folder / _READY).exists():
                # What is there now is what a killed `init` left.
                shutil.rmtree(folder, ignore_errors=True)
                copy_module(module, folder)
                if block is not None:
                    write_whole(folder / BACKEND, block)
                self._init(folder, environment, controls)
                (folder / _READY).touch()
        return workspace

    def _init(
        self, folder: Path, environment: Mapping[str, str], controls: Controls | None
    ) -> None:
        try:
            self._terraform.run(command.init(), folder, controls, environment=environment)
        except TerraformError as error:
            if self._backend is None:
                raise
            told = " ".join(error.stderr.split())
            where = f"states are kept in {self._backend} (terraform.remote_state)"
            raise TerraformError(
                error.argv, error.exit_code, error.stderr, [*error.diagnostics, told, where]
            ) from error


def write_inputs(stack: Path, inputs: Mapping[str, object]) -> None:
    """Keep the inputs of a stack: Terraform wants them for its removal too."""
    stack.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(stack / INPUTS, json.dumps(dict(inputs), indent=1))


def _again_if(lost: Callable[[BaseException], bool]) -> tenacity.Retrying:
    """Tries again when a race for a lock was lost in a way that Terraform does not wait out."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lost),
        stop=tenacity.stop_after_attempt(_LOCK_TRIES),
        wait=tenacity.wait_random(0.2, 1.0),
        reraise=True,
    )


def _lock_went_away(error: BaseException) -> bool:
    """Whether a lock in S3 was freed between being found and being read: Terraform gives up then,
    before it has done anything."""
    return isinstance(error, TerraformError) and any(
        ".tflock" in text and "NoSuchKey" in text for text in (error.stderr, *error.diagnostics)
    )


def _was_first_too(error: BaseException) -> bool:
    return isinstance(error, TerraformError) and any(
        "failed to lock" in text for text in (error.stderr, *error.diagnostics)
    )
