"""The `ssh` transport: one paramiko connection per machine, and an agent at its other end."""

from tango_cloud.transports.ssh.transport import SshTransport

__all__ = ["SshTransport"]
