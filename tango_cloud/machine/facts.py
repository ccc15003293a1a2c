"""What a machine is told about itself: its work directory, its job user, its host key's commands.

The facts stand in a JSON file, named by the environment variable TANGO_CLOUD_MACHINE or else at
/etc/tango-cloud/machine.json, with any of these keys:

- `work_dir`: the directory for our files;
- `job_user`: the user that jobs run as (name, number or null); used only when the agent is root;
- `levels`: the isolation levels that jobs may get here, strongest first (all, if not told): a
  machine may be told to refuse jobs rather than run them with less;
- `cgroup`: the path of a control group (version 2) in which the agent may make others;
- `host_key`: `{"stage": [...], "activate": [...]}`, two command lines.

Without a file everything has a default, except that the host key cannot be changed.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping
from typing import Any, NamedTuple

from tango_cloud.machine.failures import DAMAGED, Failure

VARIABLE = "TANGO_CLOUD_MACHINE"
DEFAULT_FILE = "/etc/tango-cloud/machine.json"
TANGOS_ACCOUNT = "autograde"
"""The account that images made for Tango have for their jobs."""
NOBODY = 65534


class User(NamedTuple):
    """Who jobs run as."""

    uid: int
    gid: int
    name: str


class Facts(NamedTuple):
    """`separate`: whether jobs run as another user than the agent, so that its files are safe."""

    work_dir: str
    job_user: User
    separate: bool
    levels: tuple[str, ...] | None
    cgroup: str
    stage_host_key: tuple[str, ...]
    activate_host_key: tuple[str, ...]


def load(environ: Mapping[str, str]) -> Facts:
    """This machine's facts. Raises Failure (damaged) when they cannot be read or make no sense."""
    path = environ.get(VARIABLE)
    try:
        with open(path or DEFAULT_FILE, encoding="utf-8") as file:
            told = json.load(file)
    except FileNotFoundError:
        if path:
            raise Failure(DAMAGED, f"{VARIABLE} names {path}, which does not exist") from None
        told = {}
    except (OSError, ValueError) as error:
        raise Failure(DAMAGED, f"cannot read {path or DEFAULT_FILE}: {error}") from error
    if not isinstance(told, dict):
        raise Failure(DAMAGED, f"{path or DEFAULT_FILE} does not hold a JSON object")
    return interpret(told)


def interpret(told: Mapping[str, Any]) -> Facts:
    """The facts that `told` gives, completed with defaults. Raises Failure (damaged)."""
    root = os.geteuid() == 0
    host_key = told.get("host_key") or {}
    return Facts(
        work_dir=_work_dir(told.get("work_dir"), root),
        job_user=_job_user(told.get("job_user")) if root else _user(os.geteuid()),
        separate=root,
        levels=_words(told, "levels") if "levels" in told else None,
        cgroup=_cgroup(told.get("cgroup", "")),
        stage_host_key=_words(host_key, "stage"),
        activate_host_key=_words(host_key, "activate"),
    )


def _work_dir(told: Any, root: bool) -> str:
    if told is None:
        if root:
            return "/var/lib/tango-cloud"
        return os.path.join(os.path.expanduser("~"), ".local", "state", "tango-cloud", "machine")
    if not isinstance(told, str) or not os.path.isabs(told):
        raise Failure(DAMAGED, f"work_dir is {told!r}, not an absolute path")
    return os.path.normpath(told)


def _cgroup(told: Any) -> str:
    if not isinstance(told, str) or (told and not os.path.isabs(told)):
        raise Failure(DAMAGED, f"cgroup is {told!r}, not an absolute path")
    return told


def _job_user(told: Any) -> User:
    if told is None:
        try:
            return _named(TANGOS_ACCOUNT)
        except KeyError:
            return _user(NOBODY)
    if isinstance(told, str):
        try:
            user = _named(told)
        except KeyError:
            raise Failure(DAMAGED, f"job_user: there is no user {told!r}") from None
    elif isinstance(told, int) and not isinstance(told, bool) and told >= 0:
        user = _user(told)
    else:
        raise Failure(DAMAGED, f"job_user is {told!r}, neither a name nor a number")
    if user.uid == 0:
        raise Failure(DAMAGED, "job_user is root: jobs must not run as root")
    return user


def _named(name: str) -> User:
    entry = pwd.getpwnam(name)
    return User(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _user(uid: int) -> User:
    """The user of a number, which needs no account: the group is the same number then."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, uid, str(uid))
    return User(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _words(told: Any, key: str) -> tuple[str, ...]:
    words = told.get(key, []) if isinstance(told, Mapping) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Failure(DAMAGED, f"{key} is not a list of words")
    return tuple(words)
