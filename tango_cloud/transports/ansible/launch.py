"""Runs ansible-playbook in a process that does not outlive the one that started it.

With nobody left to read it, a playbook would follow its job to the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from ansible.cli.playbook import main

from tango_cloud.machine import syscalls

if __name__ == "__main__":
    parent = int(sys.argv[1])
    with contextlib.suppress(OSError):  # not Linux: it ends when it next writes to its terminal
        syscalls.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that wanted this playbook has ended")
    sys.exit(main(["ansible-playbook", *sys.argv[2:]]))
