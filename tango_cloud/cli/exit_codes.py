"""What the process answers. The same table is in the help and in docs/cli.md."""

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    JOB_FAILED = 1
    """A job failed or timed out, or `doctor` found a fault."""
    USAGE = 2
    """Wrong usage, settings or input: nothing was made."""
    INFRASTRUCTURE = 3
    """The machines, the cloud or Terraform failed."""
    INTERRUPTED = 130
