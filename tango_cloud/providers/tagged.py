"""A cloud's instances as ours, by tag: what is the same wherever instances carry tags."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tango_cloud.core import tags
from tango_cloud.core.errors import ConfigurationError, Fault
from tango_cloud.core.model import Instance, InstanceStatus, MachineKey
from tango_cloud.providers import cloud_init

log = logging.getLogger(__name__)

_TAG = re.compile(r"[a-z0-9_-]{1,63}")
_OWN = re.compile(r"[0-9a-f]{12}")
"""A uid or a wave's name: nobody makes up one of those by hand."""
_SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class Place:
    """Where a machine answers SSH. `address` is empty as long as that is not known."""

    address: str
    port: int = _SSH_PORT
    username: str = cloud_init.LOGIN


@dataclass(frozen=True, slots=True)
class Described:
    """An instance as its cloud describes it, whosever it is."""

    instance_id: str
    status: InstanceStatus
    place: Place
    zone: str
    instance_type: str
    created: dt.datetime
    labels: Mapping[str, str]


class Reader:
    """Safe for many threads. `lifetime` is the longest that a machine may live."""

    def __init__(self, lifetime: dt.timedelta) -> None:
        self._lifetime = lifetime
        self._told: dict[str, frozenset[str]] = {}

    def instances(self, deployment: str, found: Iterable[Described]) -> Sequence[Instance]:
        """Those of `found` that are the deployment's."""
        wanted = tags.encode(deployment)
        # Once more: a filter that is not understood must never make others' machines ours.
        listed = [
            read(deployment, described, self._lifetime)
            for described in found
            if described.labels.get(tags.DEPLOYMENT) == wanted
        ]
        self._tell(deployment, {one.instance_id: one.faults for one in listed if one.faults})
        return listed

    def _tell(self, deployment: str, damaged: Mapping[str, Sequence[str]]) -> None:
        """Once for each instance as long as it is there: listings come every second."""
        for instance_id in damaged.keys() - self._told.get(deployment, frozenset()):
            faults = ", ".join(damaged[instance_id])
            log.warning(
                "%s is tagged as ours, but cannot be known by its other tags: %s; destroy it by "
                "name if it is yours, nothing else will",
                instance_id,
                faults,
            )
        self._told[deployment] = frozenset(damaged)


def is_part(deployment: str, labels: Mapping[str, str]) -> bool:
    """Whether a volume or disk is tagged as the part of a machine of exactly this deployment."""
    return labels.get(tags.DEPLOYMENT) == tags.encode(deployment) and all(
        _OWN.fullmatch(labels.get(tag, "")) for tag in (tags.UID, tags.WAVE)
    )


def read(deployment: str, described: Described, lifetime: dt.timedelta) -> Instance:
    """The instance, with the names of those tags that are damaged.

    It is ours by `tango-deployment` alone, so whatever the other tags say, it is listed: left out,
    it would be paid for and never found; an error would hide all the others. What cannot be known
    gets a value that no machine of the ledger has.
    """
    instance_id, labels = described.instance_id, described.labels
    faults = []

    def word(tag: str, form: re.Pattern[str], otherwise: str) -> str:
        if form.fullmatch(labels.get(tag, "")):
            return labels[tag]
        faults.append(tag)
        return otherwise

    def number(tag: str) -> int | None:
        text = labels.get(tag, "")
        if text.isascii() and text.isdigit() and len(text) < 16:
            return int(text)
        faults.append(tag)
        return None

    name, image = word(tags.NAME, _TAG, instance_id), labels.get(tags.IMAGE, "")
    expires = _moment(number(tags.EXPIRES))
    if expires is None:
        expires = described.created + lifetime
        if tags.EXPIRES not in faults:
            faults.append(tags.EXPIRES)
    return Instance(
        instance_id=instance_id,
        key=MachineKey(deployment, number(tags.ID) or 0, tags.decode(name) or name),
        uid=word(tags.UID, _OWN, instance_id),
        wave=word(tags.WAVE, _OWN, ""),
        image=tags.decode(image) or image,
        status=described.status,
        address=described.place.address,
        port=described.place.port,
        username=described.place.username,
        zone=described.zone,
        instance_type=described.instance_type,
        created=described.created,
        expires=expires,
        faults=tuple(faults),
    )


def _moment(seconds: int | None) -> dt.datetime | None:
    try:
        return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return None


def place_of(
    private: str,
    public: str | None,
    reach: Mapping[str, Mapping[str, Any]] | None = None,
) -> Place:
    """By its public address, unless that is None. `reach` translates the private addresses of
    emulated instances; one that it lacks is not known."""
    if reach is None:
        return Place(private if public is None else public)
    where = reach.get(private)
    if where is None:
        return Place("")
    return Place(str(where["address"]), int(where["port"]), str(where["username"]))


def read_reach(setting: str, path: Path | None) -> Mapping[str, Mapping[str, Any]] | None:
    """The file that `setting` names. Raises ConfigurationError when it cannot be read."""
    if path is None:
        return None
    try:
        reach = json.loads(path.read_text(encoding="utf-8"))
        return {address: dict(where) for address, where in reach.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            [Fault(setting, f"{path}: {error}", "a JSON file of addresses, for tests only")]
        ) from error
