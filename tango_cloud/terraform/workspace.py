"""Initialised working directories: one per module, serving any number of states.

A *stack* is one use of a module: a folder (0700) with its state `terraform.tfstate` and its inputs
`inputs.tfvars.json`. Nothing secret is in either.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from tango_cloud.core.errors import TerraformError
from tango_cloud.terraform import command
from tango_cloud.terraform.modules import copy_module, module_hash, modules_root
from tango_cloud.terraform.runner import Controls, Result, Terraform

STATE = "terraform.tfstate"
INPUTS = "inputs.tfvars.json"
_READY = ".initialised"
_DEFAULT_PARALLELISM = 10


@dataclass(frozen=True, slots=True)
class Workspace:
    """An initialised working directory. Safe to use from many threads and processes at once.

    Each method raises TerraformError when Terraform fails.
    """

    folder: Path
    terraform: Terraform
    environment: Mapping[str, str]

    def apply(
        self,
        stack: Path,
        inputs: Mapping[str, object],
        secrets: Mapping[str, object] | None = None,
        *,
        parallelism: int = _DEFAULT_PARALLELISM,
        controls: Controls | None = None,
    ) -> Result:
        """Create or change the stack. What was created before an error stays, in the state.

        `inputs` are kept beside the state, for the removal; `secrets` reach Terraform alone.
        """
        stack.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(stack / INPUTS, json.dumps(dict(inputs), indent=1))
        arguments = command.apply(
            stack / STATE, [stack / INPUTS, command.STDIN], parallelism=parallelism
        )
        return self._run(arguments, controls, stdin=command.variables(dict(secrets or {})))

    def destroy(
        self,
        stack: Path,
        targets: Sequence[str] = (),
        *,
        parallelism: int = _DEFAULT_PARALLELISM,
        controls: Controls | None = None,
    ) -> Result:
        """Remove `targets` (resource addresses), or everything, with the inputs of the last apply.

        What is not in the state is success, also when there is no state at all.
        """
        if not (stack / STATE).exists():
            return Result("")
        arguments = command.apply(
            stack / STATE, [stack / INPUTS], parallelism=parallelism, targets=targets, destroy=True
        )
        return self._run(arguments, controls)

    def outputs(self, stack: Path, controls: Controls | None = None) -> Mapping[str, object]:
        """The outputs of the last apply; empty without one."""
        arguments = command.output(stack / STATE)
        text = self._run(arguments, controls).stdout
        try:
            return {name: found["value"] for name, found in json.loads(text).items()}
        except (ValueError, TypeError, KeyError) as error:
            raise TerraformError(arguments, 0, f"these are no outputs: {text[-500:]}") from error

    def resources(self, stack: Path) -> Sequence[str]:
        """The addresses in the state, read from its file: Terraform takes longer to say the same.

        Raises TerraformError when the file cannot be understood.
        """
        path = stack / STATE
        try:
            state = json.loads(path.read_text())
            return sorted(
                _address(resource, instance)
                for resource in state["resources"]
                for instance in resource["instances"]
                if resource["mode"] == "managed"
            )
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise TerraformError(["read", str(path)], None, f"damaged state: {error}") from error

    def _run(self, arguments: Sequence[str], controls: Controls | None, stdin: str = "") -> Result:
        return self.terraform.run(
            arguments, self.folder, controls, stdin=stdin, environment=self.environment
        )


class Workspaces:
    """Makes and remembers the workspaces of one state folder. Safe for threads and processes."""

    def __init__(self, folder: Path, terraform: Terraform, modules: Path | None = None) -> None:
        """`folder` is made; `modules` is where the modules are (ours by default)."""
        self._folder = folder
        self._terraform = terraform
        self._modules = modules
        self._lock = threading.Lock()
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
        version = f"{binary.product} {'.'.join(map(str, binary.version))}"
        folder = self._folder / f"{provider}-{kind}-{module_hash(module, version)}"
        workspace = Workspace(folder, self._terraform, environment)
        if (folder / _READY).exists():
            return workspace
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One lock for all: workspaces share the plugin cache, which `init` must have to itself.
        with FileLock(self._folder / "init.lock"):
            if not (folder / _READY).exists():
                # What is there now is what a killed `init` left.
                shutil.rmtree(folder, ignore_errors=True)
                copy_module(module, folder)
                self._terraform.run(command.init(), folder, controls, environment=environment)
                (folder / _READY).touch()
        return workspace


def _address(resource: Mapping[str, str], instance: Mapping[str, object]) -> str:
    module = f"{resource['module']}." if "module" in resource else ""
    address = f"{module}{resource['type']}.{resource['name']}"
    key = instance.get("index_key")
    if isinstance(key, str):
        return command.address(address, key)
    return address if key is None else f"{address}[{key}]"


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(path)
