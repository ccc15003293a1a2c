"""A fresh host key, made on the machine: by the commands that the machine was told.

Both commands are the machine's own affair and must be idempotent: `stage` prints the public half
of a key that is not yet in use (or of the one in use, when that was staged before), `activate` lets
the SSH server answer with it.
"""

from __future__ import annotations

from tango_cloud.machine.facts import Facts
from tango_cloud.machine.failures import DAMAGED, REFUSED, Failure

_SECONDS = 8
"""Less than the silence after which the other end gives the agent up."""


def stage(facts: Facts) -> str:
    """The staged key, `"<algorithm> <base64>"`. Raises Failure."""
    words = _run(facts.stage_host_key, "stage").split()
    if len(words) < 2:
        raise Failure(DAMAGED, "the machine staged a host key but does not say which")
    return f"{words[0]} {words[1]}"


def activate(facts: Facts) -> None:
    """Raises Failure."""
    _run(facts.activate_host_key, "activate")


def _run(command: tuple[str, ...], what: str) -> str:
    # Most agents never come here, and starting up without this module is a quarter faster.
    import subprocess

    if not command:
        raise Failure(REFUSED, f"this machine was not told how to {what} a host key")
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failure(DAMAGED, f"cannot {what} a host key: {error}") from error
    if done.returncode != 0:
        said = done.stderr.strip()[-500:]
        raise Failure(DAMAGED, f"cannot {what} a host key: status {done.returncode}: {said}")
    return done.stdout
