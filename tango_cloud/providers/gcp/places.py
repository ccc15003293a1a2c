"""How Google names things: by links, of which the last word is the name. Pure."""

from __future__ import annotations


def last(link: str) -> str:
    """The name at the end of a link or path; a name alone is one."""
    return link.rpartition("/")[2]


def region_of(zone: str) -> str:
    return zone.rpartition("-")[0]


def instance_id_in(link: str) -> str:
    """That of the instance which a link or path leads to: `…/zones/ZONE/instances/NAME`."""
    *_, zone, _, name = link.split("/")
    return instance_id(zone, name)


def instance_id(zone: str, name: str) -> str:
    """What `terminate` needs to know."""
    return f"{zone}/{name}"
