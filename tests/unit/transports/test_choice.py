"""The settings choose the transport."""

from __future__ import annotations

import sys

import pytest

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.core.settings import Settings
from tango_cloud.transports.ansible.transport import AnsibleTransport
from tango_cloud.transports.ssh import SshTransport
from tango_cloud.wiring import build_transport


def test_the_transport_is_chosen_by_a_setting() -> None:
    assert isinstance(build_transport(Settings().transport), SshTransport)
    assert isinstance(build_transport("ansible"), AnsibleTransport)


def test_a_transport_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(ConfigurationError, match=r"telnet.*ssh, ansible"):
        build_transport("telnet")


def test_ansible_that_is_not_installed_is_a_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("tango_cloud.transports.ansible")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ansible_runner", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        build_transport("ansible")
