"""Requests to the Compute API on a loopback address, as the real plugin makes them.

They are repeated, waited for and told of in the same way, but an operation is asked for more often
(the real one does every `poll_interval`), and a cancel also ends the repetition of a request.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_REQUEST_SECONDS = 120
"""The time that one request has."""
_RETRY_SECONDS = 300
"""The time for which a request is repeated that meets a passing fault."""
_PASSING = {429, 500, 502, 503}
_POLL_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses between questions after an operation; the last one holds on."""

Answer = dict[str, Any]


class Refused(Exception):
    """What the user is told, in the words of the real plugin. `status` is HTTP's, if any."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class NotLoopback(Exception):
    """An address that this plugin does not talk to."""


@dataclass(frozen=True)
class Endpoint:
    """`base` is the path that every request begins with, ending in a slash."""

    host: str
    port: int
    base: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Raises NotLoopback."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.path.endswith("/"):
            raise NotLoopback(f"{url or 'no address'}: an http address that ends in / is needed")
        try:
            address = ipaddress.ip_address(parts.hostname or "")
        except ValueError:
            address = None
        if address is None or not address.is_loopback:
            # Names, even localhost, are what a resolver makes of them.
            raise NotLoopback(f"{parts.hostname} is no loopback address")
        return cls(str(address), parts.port or 80, parts.path)


@dataclass(frozen=True)
class Compute:
    """One configured plugin, used by many threads at once."""

    endpoint: Endpoint
    project: str
    token: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """What is added to every resource's own labels."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when Terraform cancels."""

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def request(self, method: str, path: str, body: object = None) -> Answer:
        """The answer to `path` below the API's base. Raises Refused."""
        deadline = time.monotonic() + _RETRY_SECONDS
        for pause in _fibonacci():
            try:
                return self._once(method, path, body)
            except Refused as refused:
                is_passing = refused.status in _PASSING or isinstance(
                    refused.__cause__, TimeoutError | ConnectionResetError
                )
                if not is_passing or time.monotonic() + pause > deadline or self.stop.wait(pause):
                    raise
        raise AssertionError

    def _once(self, method: str, path: str, body: object) -> Answer:
        where = self.endpoint
        connection = http.client.HTTPConnection(where.host, where.port, timeout=_REQUEST_SECONDS)
        target = f"{where.base}{path}{'&' if '?' in path else '?'}alt=json"
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Content-Type": "application/json",
            "User-Agent": "terraform-provider-google (simulated)",
        }
        content = None if body is None else json.dumps(body)
        try:
            connection.request(method, target, content, headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            what = "EOF" if isinstance(error, http.client.HTTPException) else error
            url = f"http://{where.host}:{where.port}{target}"
            raise Refused(f'{method.capitalize()} "{url}": {what}') from error
        finally:
            connection.close()
        if response.status >= 300:
            raise Refused(_words(response.status, text), response.status)
        answer: Answer = json.loads(text) if text else {}
        return answer

    def wait(self, operation: Answer, activity: str, project: str) -> None:
        """Until the operation is done. Raises Refused, also when it failed or Terraform cancels."""
        if operation.get("status") == "DONE":
            _raise_error(operation, "")
            return
        waiting = f"Error waiting for {activity}: "
        path = f"projects/{project}/{_scope(operation)}/operations/{operation['name']}"
        for pause in _pauses():
            # The first question comes at once.
            if self.stop.wait(pause):
                raise Refused(
                    f"{waiting}error while retrieving operation: unable to finish polling, "
                    "context has been cancelled"
                )
            try:
                operation = self.get(path)
            except Refused as refused:
                if refused.status == 404:
                    continue
                raise Refused(
                    f"{waiting}error while retrieving operation: {refused}", refused.status
                ) from refused
            _raise_error(operation, waiting)
            if operation.get("status") == "DONE":
                return

    def wait_for_status(self, path: str, status: str) -> Answer:
        """The instance, once it has that status. Raises Refused."""
        for pause in _pauses():
            if self.stop.wait(pause):
                raise Refused("context canceled")
            instance = self.get(path)
            if instance.get("status") == status:
                return instance
        raise AssertionError


def _fibonacci() -> Iterator[float]:
    pause, following = 0.5, 1.0
    while True:
        yield pause
        pause, following = following, pause + following


def _pauses() -> Iterator[float]:
    yield 0
    yield from _POLL_SECONDS
    while True:
        yield _POLL_SECONDS[-1]


def _scope(operation: Answer) -> str:
    for kind in ("zone", "region"):
        if operation.get(kind):
            return f"{kind}s/{operation[kind].rsplit('/', 1)[-1]}"
    return "global"


def _words(status: int, text: bytes) -> str:
    """An error answer as Google's library for Go words it."""
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return (
            f"googleapi: got HTTP response code {status} with body: {text.decode(errors='replace')}"
        )
    message = error.get("message", "")
    words = f"googleapi: Error {status}: {message}"
    if error.get("details"):
        words += f"\nDetails:\n{json.dumps(error['details'], indent=2)}\n"
    reasons = error.get("errors", [])
    if len(reasons) == 1 and reasons[0].get("message") == message:
        return f"{words}, {reasons[0].get('reason', '')}"
    if reasons:
        words += "\nMore details:\n"
        words += "".join(
            f"Reason: {one.get('reason', '')}, Message: {one.get('message', '')}\n"
            for one in reasons
        )
    return words.strip()


def _raise_error(operation: Answer, prefix: str) -> None:
    """An operation's errors are told by their messages. Their codes are not told."""
    error = operation.get("error")
    if error:
        raise Refused(prefix + "".join(map(_error_words, error.get("errors", []))))


def _error_words(error: Answer) -> str:
    words = f"{error['message']}\n" if "message" in error else ""
    details = error.get("errorDetails", [])
    quota = next((detail["quotaInfo"] for detail in details if "quotaInfo" in detail), None)
    if error.get("code") == "QUOTA_EXCEEDED" and quota is not None:
        for name, key in (("metric name", "metricName"), ("limit name", "limitName")):
            words += f"\t{name} = {quota[key]}\n" if key in quota else ""
        words += f"\tlimit = {quota['limit']:g}\n" if quota.get("limit") else ""
    local = (detail.get("localizedMessage", {}).get("message") for detail in details)
    if (text := next(filter(None, local), None)) is not None:
        words += f"\n\n{text}\n"
    helps = (detail.get("help", {}).get("links") for detail in details)
    if (links := next(filter(None, helps), None)) is not None:
        about = links[0].get("description")
        words += "\n\n" + (f"{about}\n" if about else "") + f"{links[0].get('url', '')}\n"
    return words
