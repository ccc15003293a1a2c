"""What a machine's agent says when it fails, as errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from tango_cloud.core.errors import (
    InputError,
    JobRefused,
    MachineDamaged,
    MachineNotFound,
    OutputError,
    TangoCloudError,
)
from tango_cloud.machine.failures import DAMAGED, MISSING, REFUSED

IN_STEP = (InputError, OutputError, JobRefused, MachineDamaged, MachineNotFound)
"""Errors after which both ends agree on what comes next, and the session is of further use."""

_ERRORS: dict[str, type[TangoCloudError]] = {
    REFUSED: JobRefused,
    DAMAGED: MachineDamaged,
    MISSING: MachineNotFound,
}


def raise_failure(failure: Mapping[str, Any]) -> NoReturn:
    """Raise the error that the agent's failure stands for."""
    raise _ERRORS.get(str(failure.get("kind")), MachineDamaged)(str(failure.get("message")))
