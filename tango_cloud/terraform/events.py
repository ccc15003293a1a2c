"""The lines of Terraform's `-json` output as typed events. Pure.

Terraform promises to add event types and fields; whatever is not known here becomes `Unknown`, and
nothing raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_KEY = re.compile(r'\["((?:[^"\\]|\\.)*)"\]$')


@dataclass(frozen=True, slots=True)
class ResourceStarted:
    """`resource` is the address without its key, `key` the for_each key (empty without one)."""

    resource: str
    key: str
    action: str


@dataclass(frozen=True, slots=True)
class ResourceDone:
    """`id` is what the provider calls it (for an instance: its instance id); `seconds` took it."""

    resource: str
    key: str
    action: str
    id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ResourceErrored:
    """The reason comes in a `Diagnostic` of its own, at the end."""

    resource: str
    key: str
    action: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A warning or an error. `resource` is empty when it concerns none."""

    severity: str
    summary: str
    detail: str
    resource: str = ""
    key: str = ""

    @property
    def is_error(self) -> bool:
        return self.severity == "error"

    def __str__(self) -> str:
        return ": ".join(part.strip() for part in (self.summary, self.detail) if part.strip())


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs at the end of an apply; sensitive ones are left out."""

    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Summary:
    """How many resources an `operation` (plan, apply, destroy) adds, changes and removes."""

    operation: str
    add: int
    change: int
    remove: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Any other line, as it came."""

    line: str


Event = ResourceStarted | ResourceDone | ResourceErrored | Diagnostic | Outputs | Summary | Unknown


def parse(line: str) -> Event:
    """The event that one line of output is."""
    if not line.startswith("{"):
        return Unknown(line)
    try:
        message = json.loads(line)
        return _event(message, line)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Unknown(line)


def _event(message: Mapping[str, Any], line: str) -> Event:
    match message["type"]:
        case "apply_start":
            return ResourceStarted(*_resource(message))
        case "apply_complete":
            hook = message["hook"]
            return ResourceDone(
                *_resource(message), str(hook.get("id_value", "")), float(hook["elapsed_seconds"])
            )
        case "apply_errored":
            return ResourceErrored(*_resource(message))
        case "diagnostic":
            found = message["diagnostic"]
            resource, key = split_address(found.get("address", ""))
            return Diagnostic(
                found["severity"], found["summary"], found.get("detail", ""), resource, key
            )
        case "outputs":
            outputs: Mapping[str, Mapping[str, object]] = message["outputs"]
            return Outputs({name: o["value"] for name, o in outputs.items() if "value" in o})
        case "change_summary":
            changes = message["changes"]
            counts = (int(changes[name]) for name in ("add", "change", "remove"))
            return Summary(changes["operation"], *counts)
        case _:
            return Unknown(line)


def _resource(message: Mapping[str, Any]) -> tuple[str, str, str]:
    hook = message["hook"]
    resource, key = split_address(hook["resource"]["addr"])
    return resource, key, hook["action"]


def split_address(address: str) -> tuple[str, str]:
    """`aws_instance.machine["key"]` as ("aws_instance.machine", "key"); the key empty without."""
    match = _KEY.search(address)
    if match is None:
        return address, ""
    return address[: match.start()], str(json.loads(f'"{match.group(1)}"'))
