"""What this host offers local machines: SSH servers, isolation, loopback addresses."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.providers.protocol import Check

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INSTALL = "apt-get install openssh-server bubblewrap"
_TRY_SECONDS = 20

ServerChoice = Literal["auto", "sshd", "asyncssh"]
IsolateChoice = Literal["auto", "yes", "no"]
Server = Literal["sshd", "asyncssh"]


@dataclass(frozen=True, slots=True)
class Host:
    """Each fault is in words, and empty where there is none."""

    sshd_fault: str
    account_fault: str
    """Why sshd would let nobody in here when it is not isolated and uses this host's accounts."""
    bwrap_fault: str
    addresses: str
    """Loopback addresses that machines may have, in CIDR notation."""

    def choose(self, server: ServerChoice, isolate: IsolateChoice) -> tuple[Server, bool]:
        """The server, and whether it is isolated. Raises ConfigurationError when that cannot be."""
        faults = []
        isolated = isolate == "yes" or (isolate == "auto" and not self.bwrap_fault)
        if isolate == "yes" and self.bwrap_fault:
            faults.append(Fault("local.isolate", self.bwrap_fault, f"auto or no, or: {INSTALL}"))
        fault = self.sshd_fault or ("" if isolated else self.account_fault)
        if server == "sshd" and fault:
            faults.append(Fault("local.server", fault, f"auto or asyncssh, or: {INSTALL}"))
        if faults:
            raise ConfigurationError(faults)
        if server != "auto":
            return server, isolated
        # Alone, sshd isolates no better than asyncssh, and depends on the host's accounts.
        return ("sshd" if isolated and not self.sshd_fault else "asyncssh"), isolated

    def diagnose(self, server: ServerChoice, isolate: IsolateChoice) -> Sequence[Check]:
        try:
            chosen, isolated = self.choose(server, isolate)
        except ConfigurationError as error:
            return [
                Check("local machines", False, str(fault), fault.expected) for fault in error.faults
            ]
        if chosen == "sshd":
            checks = [Check("local SSH server", True, "OpenSSH's sshd")]
        else:
            why = self.sshd_fault or "chosen by the settings, or because there is no bubblewrap"
            checks = [Check("local SSH server", True, f"asyncssh's, from pip ({why})")]
        checks += [_loopback(self.addresses), Check("credentials", True, "none needed: no account")]
        if isolated:
            finding = (
                "bubblewrap, tried and working: each machine has its own processes, home and /tmp "
                "and sees nothing of this host's homes; it shares the network"
            )
            return [*checks, Check("local isolation", True, finding)]
        finding = (
            f"NONE around a machine ({self.bwrap_fault or 'switched off'}): only the driver keeps "
            "jobs from this host, at the level that results and doctor tell"
        )
        return [*checks, Check("local isolation", True, finding, INSTALL, warning=True)]


@functools.cache
def examine() -> Host:
    """This host, examined once per process (starting bubblewrap takes some 10 ms)."""
    linux = sys.platform == "linux"
    return Host(
        sshd_fault=_sshd_fault() if linux else "only used on Linux",
        account_fault=_account_fault(),
        bwrap_fault=_bwrap_fault() if linux else "bubblewrap is for Linux only",
        addresses="127.64.0.0/10" if linux else "127.0.0.1/32",
    )


def _loopback(addresses: str) -> Check:
    """Whether a machine's port can be opened: the first address, and any port."""
    address = addresses.partition("/")[0]
    address = address.rpartition(".")[0] + ".1" if address.endswith(".0") else address
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError as error:
        remedy = f"let this user open ports on {addresses}"
        return Check("loopback ports", False, f"{address} cannot be bound: {error}", remedy)
    return Check("loopback ports", True, f"machines answer on {addresses}, nowhere else")


def _sshd_fault() -> str:
    missing = [name for name in ("sshd", "timeout") if _which(name) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


def _account_fault() -> str:
    try:
        account = pwd.getpwuid(os.geteuid())
    except KeyError:
        return f"user {os.geteuid()} has no entry in passwd"
    if Path(account.pw_shell).name in {"nologin", "false"}:
        return f"{account.pw_name} has {account.pw_shell} as login shell"
    try:
        shadow = Path("/etc/shadow").read_text(errors="replace")
    except OSError:
        return ""  # sshd, as the same user, cannot look either
    if any(line.startswith(f"{account.pw_name}:!") for line in shadow.splitlines()):
        return f"the account {account.pw_name} is locked"
    return ""


def _bwrap_fault() -> str:
    """Tried, not assumed: kernels and containers forbid it in many ways."""
    bwrap = _which("bwrap")
    if bwrap is None:
        return "bubblewrap is not installed"
    if _which("timeout") is None:
        return "timeout (coreutils) is not installed"
    argv = [bwrap, "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    for path in ("/usr", "/bin", "/lib", "/lib64"):
        if Path(path).is_symlink():
            argv += ["--symlink", str(Path(path).readlink()), path]
        else:
            argv += ["--ro-bind-try", path, path]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "/bin/sh", "-c", "exit 7"]
    try:
        tried = subprocess.run(
            argv, check=False, capture_output=True, text=True, timeout=_TRY_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here: {error}"
    if tried.returncode != 7:  # what the shell above was told
        return f"bubblewrap does not work here: {tried.stderr.strip()[-200:]}"
    return ""


def _which(program: str) -> str | None:
    return shutil.which(program, path=SYSTEM_PATH)
