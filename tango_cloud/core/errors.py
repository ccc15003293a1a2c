"""Errors, named by the caller's next move.

Every error prints short and carries its evidence as attributes. `next_move` tells what the
orchestration does about it; a person reads the message, which ends with what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class NextMove(StrEnum):
    """What the caller does after an error."""

    STOP = "stop"
    """A person has to change something: settings, credentials, an input file."""
    RETRY = "retry"
    """The same request may work a moment later."""
    NEXT_OFFER = "next-offer"
    """This zone or instance type has no capacity; another one may have."""
    NEXT_REGION = "next-region"
    """The account's quota is used up here; another region or account may have some."""
    DONE = "done"
    """The thing asked for is already so (for instance: to be destroyed, and absent)."""
    REPLACE = "replace"
    """The machine can no longer be trusted: destroy it and take another."""


class TangoCloudError(Exception):
    """Base of everything this package raises on purpose."""

    next_move: NextMove = NextMove.STOP


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with the settings or the input.

    `where` is the key or path at fault, `problem` what is wrong, `expected` what would be right.
    """

    where: str
    problem: str
    expected: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}" + (
            f" (expected {self.expected})" if self.expected else ""
        )


class UserError(TangoCloudError):
    """What a person gave us cannot be used. `faults` lists everything found, in one go."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ConfigurationError(UserError):
    """The settings are wrong."""


class InputError(UserError):
    """A job's input cannot be used."""


class OutputError(TangoCloudError):
    """A result could not be written on this host (disk full, no permission).

    The machine still holds it until the next copy-in: the same copy-out may be tried again.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"cannot write {path}: {reason}")


class AuthenticationError(TangoCloudError):
    """The cloud or the machine refused our credentials."""


class CapacityError(TangoCloudError):
    """The zone has no such machine to give."""

    next_move = NextMove.NEXT_OFFER


class QuotaError(TangoCloudError):
    """The account may not have more of this here."""

    next_move = NextMove.NEXT_REGION


class ProviderUnavailable(TangoCloudError):
    """The cloud could not be asked. Says nothing about what exists."""

    next_move = NextMove.RETRY


class LedgerUnavailable(TangoCloudError):
    """The ledger cannot be read or written now: a full disk, say, or a database that is away."""

    next_move = NextMove.RETRY


class ProvisioningError(TangoCloudError):
    """A machine could not be made, for a reason that has no class of its own."""


class TerraformError(TangoCloudError):
    """A Terraform command failed.

    `argv` holds the command line, `exit_code` its status (None when it was killed before it had
    one), `stderr` the end of its error output, `diagnostics` the errors of its event stream.
    """

    def __init__(
        self,
        argv: Sequence[str],
        exit_code: int | None,
        stderr: str,
        diagnostics: Sequence[str] = (),
    ) -> None:
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.stderr = stderr
        self.diagnostics = tuple(diagnostics)
        command = next((word for word in self.argv[1:] if not word.startswith("-")), "")
        evidence = "; ".join(self.diagnostics) or stderr.strip()[-500:] or "no output"
        super().__init__(f"terraform {command} exited with {exit_code}: {evidence}")


class TerraformKilled(TerraformError):
    """It or a plugin of its was killed, and not by us: for want of memory, say."""

    next_move = NextMove.RETRY


class TerraformUnusable(TangoCloudError):
    """No Terraform (or OpenTofu) was found, or it is too old. The message says how to get one."""


class MachineUnreachable(TangoCloudError):
    """The machine did not answer, or the connection to it broke."""

    next_move = NextMove.RETRY


class HostKeyMismatch(MachineUnreachable):
    """Something answered at the machine's address with a host key that is not the machine's."""

    next_move = NextMove.REPLACE


class MachineDamaged(TangoCloudError):
    """The machine answered, but cannot be trusted with another job."""

    next_move = NextMove.REPLACE


class PreparationFailed(TangoCloudError):
    """A machine could not be made what a playbook says.

    `task` is the one that failed, `where` its file and line; both are empty when it was none.
    """

    def __init__(self, reason: str, task: str = "", where: str = "") -> None:
        self.reason = reason
        self.task = task
        self.where = where
        place = f"{where}, {task!r}: " if task else ""
        super().__init__(f"{place}{reason.rstrip('.')}. Once that is mended: tango-cloud prepare")


class MachineNotFound(TangoCloudError):
    """No such machine in the ledger or in the cloud."""

    next_move = NextMove.DONE


class Cancelled(TangoCloudError):
    """The caller gave up waiting."""


class InterruptedTwice(KeyboardInterrupt):
    """Interrupted again while cleaning up: threads of ours are still at it."""


class NotReadyInTime(TangoCloudError):
    """The machine was not ready before the deadline. `seconds` is how long was waited."""

    next_move = NextMove.REPLACE

    def __init__(self, machine: str, seconds: float, last_seen: str) -> None:
        self.machine = machine
        self.seconds = seconds
        self.last_seen = last_seen
        super().__init__(f"{machine} was not ready after {seconds:.0f} s: {last_seen}")


class NotGoneInTime(TangoCloudError):
    """The cloud still shows the machine after the deadline. It stays on the books."""

    next_move = NextMove.RETRY

    def __init__(self, machine: str, seconds: float, why: str = "") -> None:
        self.machine = machine
        self.seconds = seconds
        self.why = why
        because = f" ({why})" if why else ""
        super().__init__(
            f"{machine} is still there after {seconds:.0f} s{because}; it stays on the books as "
            "destroying. Try again with: tango-cloud destroy"
        )


class JobRefused(TangoCloudError):
    """The machine will not run the job as asked (for instance: it cannot cut off the network)."""
