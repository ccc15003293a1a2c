"""Answers in the place of Google, below its client: real requests and real parsing, no socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from requests.adapters import HTTPAdapter

PROJECT = "tango-test"
ENDPOINT = "http://127.0.0.1:9/compute/v1/"

Answer = Mapping[str, Any] | Exception


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Below the project."""
    query: Mapping[str, str]
    body: Any


def error(status: int, reason: str, message: str = "no", *, newer: str = "") -> Answer:
    """As Google's HTTP errors are; `newer` is the reason of the newer form, beside the older."""
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": newer}
    details = [info] if newer else []
    one = {"message": message, "domain": "global", "reason": reason}
    return {"error": {"code": status, "message": message, "errors": [one], "details": details}}


@dataclass
class Google:
    """Queue answers by method and path; the last one of a path is given again and again."""

    asked: list[Request] = field(default_factory=list)
    _answers: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)

    def answer(self, path: str, *answers: Answer, method: str = "GET") -> None:
        self._answers[method, path] = list(answers)

    def of(self, path: str) -> list[Request]:
        return [request for request in self.asked if request.path == path]

    def send(self, sent: requests.PreparedRequest, **more: object) -> requests.Response:
        url = urlsplit(str(sent.url))
        assert url.hostname == "127.0.0.1", "nobody else is ever talked to"
        path = url.path.removeprefix("/compute/v1/projects/").removeprefix(f"{PROJECT}/")
        query = {key: found[0] for key, found in parse_qs(url.query).items()}
        body = json.loads(sent.body) if isinstance(sent.body, bytes | str) else None
        self.asked.append(Request(str(sent.method), path, query, body))
        queue = self._answers.get((str(sent.method), path), [])
        given = (queue.pop(0) if len(queue) > 1 else queue[0]) if queue else _absent(path)
        if isinstance(given, Exception):
            raise given
        response = requests.Response()
        response.status_code = given.get("error", {}).get("code", 200) if _failed(given) else 200
        response._content = json.dumps(given).encode()
        response.request, response.url = sent, str(sent.url)
        return response


def _failed(given: Mapping[str, Any]) -> bool:
    return "code" in given.get("error", {})


def _absent(path: str) -> Answer:
    return error(404, "notFound", f"The resource 'projects/{PROJECT}/{path}' was not found")


def install(set_attribute: Callable[..., None]) -> Google:
    google = Google()
    set_attribute(HTTPAdapter, "send", lambda _, sent, **more: google.send(sent, **more))
    return google
