"""What people push jobs to many machines with: a playbook by itself, and pyinfra.

Both verify host keys and work on all machines at once. They get the job as an archive, to their
advantage: file by file either takes many times as long.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from tango_cloud.core.model import Endpoint

_PERSIST_SECONDS = 3
"""Longer than from one task to the next; who counts processor time waits for its end."""

_PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.file: {path: plain, state: directory, mode: "0700"}
    - ansible.builtin.unarchive: {src: "{{ archive }}", dest: plain}
    - ansible.builtin.shell: make -C plain > plain-output 2>&1
    - ansible.builtin.fetch:
        {src: plain-output, dest: "{{ output }}-{{ inventory_hostname }}", flat: true}
"""

_DEPLOY = """\
from pyinfra import host
from pyinfra.operations import files, server
files.put(src={archive!r}, dest="push.tar")
server.shell("mkdir -p push && tar -xf push.tar -C push && make -C push > push-output 2>&1")
files.get(src="push-output", dest={output!r} + "-" + host.name, force=True)
"""


class _Tool:
    name: str

    def __init__(self, folder: Path, job: Path) -> None:
        self._folder = folder / self.name
        self._folder.mkdir()
        self._archive = self._folder / "job.tar"
        self._output = self._folder / "output"
        with tarfile.open(self._archive, "w") as archive:
            for file in sorted(job.iterdir()):
                archive.add(file, file.name)

    def run_jobs(self, machines: Sequence[Endpoint]) -> None:
        """The whole job on every machine. Raises RuntimeError when it went wrong on one."""
        names = [f"m{number}" for number in range(len(machines))]
        known = self._folder / "known_hosts"
        known.write_text(
            "".join(f"[{m.address}]:{m.port} {key}\n" for m in machines for key in m.host_keys)
        )
        argv = self._command(dict(zip(names, machines, strict=True)), known)
        done = subprocess.run(argv, cwd=self._folder, check=False, capture_output=True, text=True)
        outputs = [Path(f"{self._output}-{name}") for name in names]
        if done.returncode or not all(output.exists() for output in outputs):
            raise RuntimeError(
                f"{self.name}: {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
            )
        for output in outputs:
            output.unlink()

    def _command(self, machines: dict[str, Endpoint], known: Path) -> list[str]:
        raise NotImplementedError


class AnsiblePlaybook(_Tool):
    name = "ansible-playbook"

    def missing(self) -> str:
        return (
            ""
            if shutil.which("ssh")
            else "ansible-playbook: no ssh (apt-get install openssh-client)"
        )

    def _command(self, machines: dict[str, Endpoint], known: Path) -> list[str]:
        hosts = {
            name: {
                "ansible_host": machine.address,
                "ansible_port": machine.port,
                "ansible_user": machine.username,
                "ansible_ssh_private_key_file": machine.client_key_file,
            }
            for name, machine in machines.items()
        }
        variables = {
            "archive": str(self._archive),
            "output": str(self._output),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_args": "-F none -o ControlMaster=auto "
            f"-o ControlPersist={_PERSIST_SECONDS} -o UserKnownHostsFile={known} "
            "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
        }
        inventory = {"all": {"hosts": hosts, "vars": variables}}
        (self._folder / "inventory.json").write_text(json.dumps(inventory))
        (self._folder / "playbook.yml").write_text(_PLAYBOOK)
        (self._folder / "ansible.cfg").write_text(
            "[ssh_connection]\npipelining = true\nusetty = false\n"
        )
        command = [sys.executable, "-m", "ansible", "playbook", "-i", "inventory.json"]
        return [*command, "--forks", str(len(machines)), "playbook.yml"]


class Pyinfra(_Tool):
    name = "pyinfra"

    def missing(self) -> str:
        return (
            "" if shutil.which("pyinfra") else "pyinfra is not on the PATH (pipx install pyinfra)"
        )

    def _command(self, machines: dict[str, Endpoint], known: Path) -> list[str]:
        hosts = [
            (
                name,
                {
                    "ssh_hostname": machine.address,
                    "ssh_port": machine.port,
                    "ssh_user": machine.username,
                    "ssh_key": machine.client_key_file,
                    "ssh_known_hosts_file": str(known),
                    "ssh_strict_host_key_checking": "yes",
                },
            )
            for name, machine in machines.items()
        ]
        deploy = _DEPLOY.format(archive=str(self._archive), output=str(self._output))
        (self._folder / "inventory.py").write_text(f"machines = {hosts!r}\n")
        (self._folder / "deploy.py").write_text(deploy)
        return ["pyinfra", "-y", "--parallel", str(len(machines)), "inventory.py", "deploy.py"]
