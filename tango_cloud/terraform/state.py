"""What is in a state, from its file or from what Terraform says of it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from tango_cloud.terraform import command

_DATA = re.compile(r"(module\.[^.]+\.)*data\.")
_LOCK_ID = re.compile(r"^\W*ID:\s+(\S+)", re.MULTILINE)


def stored_addresses(text: str) -> Sequence[str]:
    """The managed resources in a state's file, sorted. Raises ValueError when it is damaged."""
    try:
        return sorted(
            _address(resource, instance)
            for resource in json.loads(text)["resources"]
            for instance in resource["instances"]
            if resource["mode"] == "managed"
        )
    except (TypeError, KeyError) as error:
        raise ValueError(f"no state: {error!r}") from error


def stored_ids(text: str, resource: str) -> Mapping[str, str]:
    """What the instances of `resource` are called in a state, by key; with those whose creation
    failed after they were there. Raises ValueError when it is damaged."""
    try:
        return {
            instance["index_key"]: instance["attributes"]["id"]
            for one in json.loads(text)["resources"]
            for instance in one["instances"]
            if _address(one, {}) == resource
        }
    except (TypeError, KeyError) as error:
        raise ValueError(f"no state: {error!r}") from error


def listed_addresses(text: str) -> Sequence[str]:
    """The managed resources in the output of `state list`, sorted."""
    return sorted(line for line in text.splitlines() if line and not _DATA.match(line))


def listed_workspaces(text: str) -> Sequence[str]:
    """The names in the output of `workspace list`; the chosen one stands behind an asterisk."""
    return [line.strip(" *") for line in text.splitlines() if line.strip()]


def lock_id(text: str) -> str | None:
    """The id of the lock that a command could not have; None when it failed at something else."""
    found = _LOCK_ID.search(text)
    return found.group(1) if found else None


def _address(resource: Mapping[str, str], instance: Mapping[str, object]) -> str:
    module = f"{resource['module']}." if "module" in resource else ""
    address = f"{module}{resource['type']}.{resource['name']}"
    key = instance.get("index_key")
    if isinstance(key, str):
        return command.address(address, key)
    return address if key is None else f"{address}[{key}]"
