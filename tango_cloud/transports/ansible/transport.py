"""Connecting: whoever listens there, a verified connection, our program on the machine."""

from __future__ import annotations

import time

from tango_cloud.core.errors import MachineUnreachable
from tango_cloud.core.model import Endpoint
from tango_cloud.transports import dialing
from tango_cloud.transports.ansible.gathering import Gathering
from tango_cloud.transports.ansible.host import Host
from tango_cloud.transports.ansible.session import AnsibleSession

_START_SECONDS = 60.0
"""For Ansible's own start, after that of the run before it: on a busy host they take long, and tell
nothing of the machine."""


class AnsibleTransport:
    """Satisfies `Transport`. Sessions of one share runs of playbooks."""

    def __init__(self) -> None:
        self._gathering = Gathering()

    def listens(self, address: str, port: int, timeout: float) -> bool:
        return dialing.listens(address, port, timeout)

    def connect(self, endpoint: Endpoint, timeout: float) -> AnsibleSession:
        """Open a verified session within `timeout` seconds, not counting Ansible's own start.

        Raises HostKeyMismatch, AuthenticationError, or MachineUnreachable.
        """
        deadline = time.monotonic() + timeout + _START_SECONDS
        if not dialing.listens(endpoint.address, endpoint.port, timeout):
            where = f"{endpoint.address} port {endpoint.port}"
            raise MachineUnreachable(f"{where}: nobody answers")
        session = AnsibleSession(
            Host(endpoint, timeout), self._gathering, compress=endpoint.compress
        )
        try:
            session.install(deadline)
        except BaseException:
            session.close()
            raise
        return session
