"""What an interrupted command says of what it made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tango_cloud.api import Cloud
from tango_cloud.cli.display import errors
from tango_cloud.cli.exit_codes import ExitCode
from tango_cloud.core.errors import InterruptedTwice


@contextmanager
def saying_what_is_left(cloud: Cloud) -> Iterator[None]:
    """Around what makes machines. Interrupted twice in it, the process ends at once."""
    try:
        yield
    except InterruptedTwice:
        _say(cloud)
        # Threads are still removing machines: whoever asks twice does not want to wait for them.
        os._exit(ExitCode.INTERRUPTED)
    except KeyboardInterrupt:
        _say(cloud)
        raise


def _say(cloud: Cloud) -> None:
    left = [entry.key.instance_name for entry in cloud.machines()]
    if left:
        errors.print(f"[yellow]still there:[/] {', '.join(left)}", highlight=False)
        errors.print("Remove them with: tango-cloud destroy --all")
    else:
        errors.print("Interrupted; nothing is left.")
