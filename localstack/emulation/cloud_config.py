"""Reads user data: the part of cloud-init's language that hosts understand. All else is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

HEADER = "#cloud-config"
_TOP = {
    *("ssh_deletekeys", "ssh_genkeytypes", "ssh_keys", "users", "disable_root", "ssh_pwauth"),
    *("ssh_publish_hostkeys", "write_files", "runcmd"),
}
_USER = {
    *("name", "gecos", "homedir", "shell", "lock_passwd", "system", "no_create_home", "uid"),
    *("groups", "sudo", "ssh_authorized_keys"),
}
_FILE = {"path", "content", "permissions", "owner", "encoding", "append"}
_ENCODINGS = {"text/plain", "b64", "base64", "gz+b64", "gz+base64", "gzip+base64"}
_KEYS = {f"{kind}_{half}" for kind in ("ed25519", "ecdsa", "rsa") for half in ("private", "public")}


class Refused(Exception):
    """The user data asks for what hosts do not do. The message lists all of it."""


def parse(user_data: str) -> dict[str, Any] | None:
    """The config; None when this is no user data for cloud-init. Raises Refused."""
    if not user_data.startswith(HEADER):
        return None
    try:
        config: Any = _load(user_data.partition("\n")[2])
    except yaml.YAMLError as error:
        raise Refused(f"not YAML: {error}") from error
    faults = list(_faults(config))
    if faults:
        raise Refused("; ".join(faults))
    return dict(config)


def _load(text: str) -> Any:
    try:
        return json.loads(text)  # a part of YAML, and read a hundred times as fast
    except ValueError:
        return yaml.safe_load(text) or {}


def _faults(config: Any) -> Iterator[str]:
    if not isinstance(config, dict):
        yield "not a mapping"
        return
    yield from _unknown("", config, _TOP)
    yield from _unknown("ssh_keys.", config.get("ssh_keys") or {}, _KEYS)
    for number, user in enumerate(config.get("users") or ()):
        place = f"users[{number}]"
        if not isinstance(user, dict) or "name" not in user:
            yield f"{place}: {user!r} is no user with a name"
            continue
        yield from _unknown(f"{place}.", user, _USER)
        if user.get("lock_passwd") is False:
            yield f"{place}.lock_passwd: accounts have no password here"
    for number, file in enumerate(config.get("write_files") or ()):
        place = f"write_files[{number}]"
        if not isinstance(file, dict) or "path" not in file:
            yield f"{place}: {file!r} is no file with a path"
            continue
        yield from _unknown(f"{place}.", file, _FILE)
        if file.get("encoding", "text/plain") not in _ENCODINGS:
            yield f"{place}.encoding: {file['encoding']!r}"
    for number, command in enumerate(config.get("runcmd") or ()):
        if not isinstance(command, str | list):
            yield f"runcmd[{number}]: {command!r} is neither a line nor a list of words"


def _unknown(place: str, given: Mapping[str, Any], known: set[str]) -> Iterator[str]:
    for key in given.keys() - known:
        yield f"{place}{key}: not supported"
