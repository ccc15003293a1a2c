"""Another place than Google's own: an emulated Compute API, for tests."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from tango_cloud.core.errors import ConfigurationError, Fault

VARIABLE = "GOOGLE_COMPUTE_CUSTOM_ENDPOINT"
"""Terraform's plugin reads it too."""
_PATH = "/compute/v1/"


def emulated(environ: Mapping[str, str] = os.environ) -> str | None:
    """The URL in VARIABLE; None when it is unset, and Google itself is meant.

    Raises ConfigurationError when that is not on this host: without credentials nobody else is to
    be talked to.
    """
    url = environ.get(VARIABLE, "")
    if not url:
        return None
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.port is not None
        sound = sound and parts.path == _PATH and _is_loopback(parts.hostname or "")
    except ValueError:
        sound = False
    if not sound:
        expected = f"nothing; for tests a URL on this host, http://127.0.0.1:8080{_PATH}"
        raise ConfigurationError([Fault(VARIABLE, f"{url!r} will not do", expected)])
    return url


def origin(url: str) -> str:
    """As Google's client wants it, with the scheme: without one it means https."""
    return url.removesuffix(_PATH)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback
