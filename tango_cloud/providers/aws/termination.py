"""Terminating instances directly, without Terraform."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from botocore.exceptions import ClientError

from tango_cloud.core.errors import TangoCloudError
from tango_cloud.providers.attempts import attempt_each
from tango_cloud.providers.aws.clients import Clients
from tango_cloud.providers.aws.errors import TerminationProtected, asking, code_of, message_of

_AT_ONCE = 1000
"""The most that one TerminateInstances may name."""
_QUOTED = re.compile(r"\bi-[0-9a-f]+\b")


def terminate(clients: Clients, instance_ids: Iterable[str]) -> None:
    """Those already absent are a success. Every chunk is tried before the first failure is raised.

    Raises TerminationProtected, ProviderUnavailable, AuthenticationError.
    """
    ids = sorted(set(instance_ids))
    chunks = [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]
    protected: list[str] = []
    attempt_each(chunks, lambda chunk: protected.extend(_terminate(clients, chunk)))
    if protected:
        raise TerminationProtected(protected)


def _terminate(clients: Clients, ids: Sequence[str]) -> Sequence[str]:
    """Those that are protected from it. EC2 refuses a whole call for one id that is not there or
    protected, and names it: the others are asked for again."""
    left, protected = list(ids), set[str]()
    while left:
        try:
            with asking():
                clients.ec2.terminate_instances(InstanceIds=left)
        except TangoCloudError as error:
            said = error.__cause__
            if not isinstance(said, ClientError):
                raise
            code, named = code_of(said), _named(message_of(said), left)
            if code.startswith("InvalidInstanceID"):
                if not named and len(left) > 1:
                    # It does not say which: each by itself.
                    return [i for one in left for i in _terminate(clients, [one])]
                left = [one for one in left if one not in named] if named else []
            elif code == "OperationNotPermitted" and named:
                protected |= named
                left = [one for one in left if one not in named]
            else:
                raise
        else:
            return sorted(protected)
    return sorted(protected)


def _named(message: str, ids: Sequence[str]) -> set[str]:
    """Those of `ids` that a message names. What is no id at all is named in quotes."""
    found = set(_QUOTED.findall(message)) | set(re.findall(r"[\"'\[]([^\"'\]]+)[\"'\]]", message))
    return found & set(ids)
