"""Connecting: a socket, a verified host key, our own client key, an agent."""

from __future__ import annotations

import contextlib
import logging
import socket
import time

import paramiko
import tenacity
from paramiko.pkey import UnknownKeyType

from tango_cloud.core.errors import AuthenticationError, HostKeyMismatch, MachineUnreachable
from tango_cloud.core.model import Endpoint
from tango_cloud.transports import dialing
from tango_cloud.transports.dialing import dial, left
from tango_cloud.transports.ssh.channel import AgentChannel
from tango_cloud.transports.ssh.session import SshSession

KEEP_ALIVE_SECONDS = 5
"""Between two signs of life on a connection where nothing happens."""
DEAD_MILLISECONDS = 10_000
"""How long the kernel waits for a machine to acknowledge what was sent (Linux)."""

_WINDOW_BYTES = 1 << 24
_RELOAD_SECONDS = 2.0
"""How long a server may refuse connections while it takes a new host key into use."""
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
_FAST_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")

# paramiko logs what it raises, with tracebacks, to where nobody looks or to standard error.
_LOG = "tango_cloud.ssh"
logging.getLogger(_LOG).addHandler(logging.NullHandler())


class SshTransport:
    """Satisfies `Transport`."""

    def listens(self, address: str, port: int, timeout: float) -> bool:
        return dialing.listens(address, port, timeout)

    def connect(self, endpoint: Endpoint, timeout: float) -> SshSession:
        """Open a verified session within `timeout` seconds.

        Raises HostKeyMismatch, AuthenticationError, or MachineUnreachable.
        """
        deadline = time.monotonic() + timeout
        transport = _open(endpoint, deadline)
        try:
            _verify(transport, endpoint)
            _authenticate(transport, endpoint, deadline)
            transport.set_keepalive(KEEP_ALIVE_SECONDS)
            agent = AgentChannel.start(transport, left(deadline), sudo=endpoint.sudo)
        except BaseException:
            transport.close()
            raise
        return SshSession(transport, agent, endpoint)


def _open(endpoint: Endpoint, deadline: float) -> paramiko.Transport:
    """A transport with its keys exchanged, not yet verified. Tries again for a moment when the
    server refuses or hangs up: one that reloads its keys does both."""

    def attempt() -> paramiko.Transport:
        try:
            return _exchange_keys(endpoint, deadline)
        except (OSError, EOFError, paramiko.SSHException) as error:
            where = f"{endpoint.address} port {endpoint.port}"
            raise MachineUnreachable(f"{where}: {error or type(error).__name__}") from error

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_brief),
        stop=tenacity.stop_after_delay(min(_RELOAD_SECONDS, left(deadline))),
        wait=tenacity.wait_exponential(multiplier=0.02, max=0.25),
        reraise=True,
    )
    return retrying(attempt)


def _is_brief(error: BaseException) -> bool:
    """Whether a server that reloads would fail so."""
    return isinstance(error, MachineUnreachable) and isinstance(
        error.__cause__, (ConnectionRefusedError, ConnectionResetError, EOFError)
    )


def _exchange_keys(endpoint: Endpoint, deadline: float) -> paramiko.Transport:
    connection = dial((endpoint.address, endpoint.port), deadline)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_MILLISECONDS)
        transport = paramiko.Transport(connection, default_window_size=_WINDOW_BYTES)
    except BaseException:
        connection.close()
        raise
    try:
        transport.set_log_channel(_LOG)
        _restrict(transport, endpoint)
        transport.banner_timeout = left(deadline)
        transport.start_client(timeout=left(deadline))
    except BaseException:
        transport.close()
        raise
    if not transport.initial_kex_done:  # it returns without a word when the time is over
        transport.close()
        raise TimeoutError("no key exchange within the time given")
    return transport


def _restrict(transport: paramiko.Transport, endpoint: Endpoint) -> None:
    """Ask only for host keys of the kinds that we can verify, and for ciphers that are fast."""
    options = transport.get_security_options()
    kinds: list[str] = []
    for key in endpoint.host_keys:
        kind = key.split()[0]
        kinds += _RSA_SIGNATURES if kind == "ssh-rsa" else (kind,)
    try:
        options.key_types = tuple(dict.fromkeys(kinds))
    except ValueError as error:
        raise HostKeyMismatch(f"host key of a kind that cannot be verified: {error}") from error
    available = options.ciphers
    fast = [cipher for cipher in _FAST_CIPHERS if cipher in available]
    options.ciphers = (*fast, *(cipher for cipher in available if cipher not in fast))


def _verify(transport: paramiko.Transport, endpoint: Endpoint) -> None:
    """Right after the key exchange, before anything of ours is told."""
    key = transport.get_remote_server_key()
    found = f"{key.get_name()} {key.get_base64()}"
    expected = {" ".join(key.split()[:2]) for key in endpoint.host_keys}
    if found not in expected:
        raise HostKeyMismatch(
            f"{endpoint.address} port {endpoint.port} answered with the host key {found}, "
            "which is not the machine's"
        )


def _authenticate(transport: paramiko.Transport, endpoint: Endpoint, deadline: float) -> None:
    """With the endpoint's key and nothing else: no agent, no other keys, no password."""
    try:
        key = paramiko.PKey.from_path(endpoint.client_key_file)
    except (OSError, ValueError, paramiko.SSHException, UnknownKeyType) as error:
        raise AuthenticationError(
            f"cannot use the client key {endpoint.client_key_file}: {error}"
        ) from error
    who = f"{endpoint.username} on {endpoint.address} port {endpoint.port}"
    transport.auth_timeout = left(deadline)
    try:
        transport.auth_publickey(endpoint.username, key)
    except paramiko.AuthenticationException as error:
        # A connection that breaks here, or a server that never answers, is told in the same way.
        if not transport.is_active() or time.monotonic() >= deadline:
            raise MachineUnreachable(f"{who}: {error}") from error
        raise AuthenticationError(f"{who}: the machine refused our key: {error}") from error
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise MachineUnreachable(f"{who}: {error or type(error).__name__}") from error
    if not transport.is_authenticated():
        with contextlib.suppress(OSError):
            transport.close()
        raise AuthenticationError(f"{who}: the machine wants more than our key")
