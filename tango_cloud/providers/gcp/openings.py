"""Firewall rules of others that let the world reach our machines' SSH. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tango_cloud.providers.gcp.places import last

if TYPE_CHECKING:
    from google.cloud import compute_v1

_SSH = 22


def found(
    rules: Iterable[compute_v1.Firewall], network: str, ssh_from: Sequence[str]
) -> Sequence[str]:
    """The rules of `network` that let in public addresses which are not in `ssh_from`, in words.

    Those for machines with a tag or a service account do not count: ours have neither.
    """
    told = []
    for rule in rules:
        ranges = [text for text in rule.source_ranges if _is_wider(text, ssh_from)]
        if (
            last(rule.network) == last(network)
            and rule.direction == "INGRESS"
            and not rule.disabled
            and not rule.target_tags
            and not rule.target_service_accounts
            and ranges
            and any(_has_ssh(allowed) for allowed in rule.allowed)
        ):
            told.append(f"{rule.name} (from {', '.join(ranges)})")
    return told


def _has_ssh(allowed: compute_v1.Allowed) -> bool:
    if allowed.I_p_protocol not in ("tcp", "6", "all"):
        return False
    return not allowed.ports or any(_holds_ssh(ports) for ports in allowed.ports)


def _holds_ssh(ports: str) -> bool:
    first, _, end = ports.partition("-")
    return int(first) <= _SSH <= int(end or first)


def _is_wider(text: str, ssh_from: Sequence[str]) -> bool:
    try:
        source = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    if source.is_private and source.prefixlen > 0:
        return False
    known = [ipaddress.ip_network(one, strict=False) for one in ssh_from]
    return not any(
        source.version == one.version and source.subnet_of(one)  # type: ignore[arg-type]
        for one in known
    )
