"""Which region, and who said so."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import boto3

from tango_cloud.core.errors import ConfigurationError, Fault

EXPECTED = "aws.region or AWS_REGION, for instance us-east-1"
_ENDPOINT = re.compile(r"https://ec2\.([a-z0-9-]+)\.(?:amazonaws\.com|api\.aws)")


@dataclass(frozen=True, slots=True)
class Region:
    name: str
    source: str
    """In words, for people."""


def choose(
    setting: str | None, session: boto3.session.Session, environ: Mapping[str, str] = os.environ
) -> Region:
    """Terraform's order, which is not quite boto3's: that one does not read AWS_REGION.

    Raises ConfigurationError when nothing says which.
    """
    if setting:
        return Region(setting, "from aws.region")
    if environ.get("AWS_REGION"):
        return Region(environ["AWS_REGION"], "from AWS_REGION")
    if session.region_name:
        variable = environ.get("AWS_DEFAULT_REGION")
        source = "AWS_DEFAULT_REGION" if variable else f"the profile {session.profile_name}"
        return Region(session.region_name, f"from {source}")
    raise ConfigurationError([Fault("aws.region", "no region is set", EXPECTED)])


def fault(text: str) -> Fault | None:
    """What is wrong with the region whose endpoint `text` names; None if nothing seems to be.

    A region may be newer than boto3's list, so this is asked only when it did not answer.
    """
    found = _ENDPOINT.search(text)
    if found is None:
        return None
    session = boto3.session.Session()
    known = [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition_name=partition)
    ]
    if found.group(1) in known:
        return None
    near = difflib.get_close_matches(found.group(1), known, n=1)
    return Fault(
        "aws.region",
        f"no region {found.group(1)!r} answers, and none of that name is known",
        near[0] if near else EXPECTED,
    )
