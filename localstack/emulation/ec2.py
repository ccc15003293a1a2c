"""EC2's wire format: parameters in a form, answers and errors in XML; and questions of our own."""

from __future__ import annotations

import base64
import re
import secrets
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

import aiohttp
from multidict import CIMultiDict

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "expect", "content-length"}
)
"""Headers that concern one connection."""
_NAMESPACE = re.compile(r"\{.*?\}")
_SCOPE = re.compile(r"Credential=[^/]*/\d{8}/([^/]*)/([^/]*)/aws4_request")
_STATUSES = {
    "InsufficientInstanceCapacity": 500,
    "InsufficientHostCapacity": 500,
    "InternalError": 500,
    "InternalFailure": 500,
    "Unavailable": 503,
    "ServiceUnavailable": 503,
    "RequestLimitExceeded": 503,
    "UnauthorizedOperation": 403,
    "AuthFailure": 401,
}
"""The HTTP status of an error; 400 for all others. Clients try 5xx again by themselves."""

Parameters = Mapping[str, str]


class Error(Exception):
    """An answer that EC2 would give. `code` is EC2's, the message is for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def status(self) -> int:
        return _STATUSES.get(self.code, 400)

    def body(self, service: str) -> bytes:
        error = f"<Error><Code>{escape(self.code)}</Code><Message>{escape(str(self))}</Message>"
        request_id = secrets.token_hex(16)
        head = '<?xml version="1.0" encoding="UTF-8"?>\n'
        if service == "ec2":
            inner = f"<Errors>{error}</Error></Errors><RequestID>{request_id}</RequestID>"
            return f"{head}<Response>{inner}</Response>".encode()
        if service == "s3":
            return f"{head}{error}<RequestId>{request_id}</RequestId></Error>".encode()
        inner = f"{error}<Type>Sender</Type></Error><RequestId>{request_id}</RequestId>"
        return f"{head}<ErrorResponse>{inner}</ErrorResponse>".encode()


def scope(authorization: str) -> tuple[str, str]:
    """Region and service that a request was signed for; empty when it was not."""
    found = _SCOPE.search(authorization)
    return (found[1], found[2]) if found else ("", "")


def parameters(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))


def tree(body: bytes) -> ET.Element:
    """The answer without its namespace."""
    root = ET.fromstring(body)
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
    return root


def text(element: ET.Element, path: str) -> str:
    return element.findtext(path) or ""


def put(item: ET.Element, path: str, value: str) -> None:
    """Set the text below `item`, whether that is there or not."""
    for name in path.split("/"):
        found = item.find(name)
        item = found if found is not None else ET.SubElement(item, name)
    item.text = value


def document(root: ET.Element) -> bytes:
    """The answer as it is sent, with its namespace."""
    root.set("xmlns", NAMESPACE)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def items(given: Parameters, prefix: str) -> list[str]:
    """The values of `prefix.1`, `prefix.2`, ..."""
    pattern = re.compile(re.escape(prefix) + r"\.\d+")
    return [value for key, value in given.items() if pattern.fullmatch(key)]


def filter_values(given: Parameters, name: str) -> tuple[dict[str, str], list[str]]:
    """The parameters without the filter of that name, and what it lets through."""
    for key, value in given.items():
        found = re.fullmatch(r"(Filter\.\d+)\.Name", key)
        if found and value == name:
            rest = {k: v for k, v in given.items() if not k.startswith(f"{found[1]}.")}
            return rest, items(given, f"{found[1]}.Value")
    return dict(given), []


def first(given: Parameters, *keys: str) -> str:
    return next((given[key] for key in keys if given.get(key)), "")


def user_data(given: Parameters) -> str:
    return base64.b64decode(given.get("UserData", "")).decode(errors="replace")


@dataclass(frozen=True)
class Backend:
    """The emulated EC2 itself, past the proxy."""

    url: str
    client: aiohttp.ClientSession

    async def ask(self, region: str, action: str, **given: str) -> ET.Element:
        """The answer. Raises Error with the one that it gives instead."""
        return await self.request(region, {"Action": action, "Version": "2016-11-15", **given})

    async def request(self, region: str, form: Parameters) -> ET.Element:
        signed = f"Credential=test/20260101/{region}/ec2/aws4_request"
        authorization = f"AWS4-HMAC-SHA256 {signed}, SignedHeaders=host, Signature=0"
        status, body = await self.post({"Authorization": authorization}, form)
        root = tree(body)
        if status != 200:
            raise error_of(root)
        return root

    async def post(self, headers: Mapping[str, str], form: Parameters) -> tuple[int, bytes]:
        """Status and body of the answer to a request that has a client's headers."""
        own = passed_on(headers)
        own.pop("Accept-Encoding", None)
        own["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
        data = urlencode(form).encode()
        async with self.client.post(
            self.url, data=data, headers=own, skip_auto_headers=("Accept-Encoding",)
        ) as answer:
            return answer.status, await answer.read()


def error_of(answer: ET.Element) -> Error:
    return Error(text(answer, ".//Code"), text(answer, ".//Message"))


def passed_on(headers: Mapping[str, str], length: str | None = None) -> CIMultiDict[str]:
    """Those that go through a proxy. `length` is set where the body goes on as it came."""
    kept = CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in _HOP)
    if length is not None:
        kept["Content-Length"] = length
    return kept


def numbered(prefix: str, values: Iterable[str]) -> dict[str, str]:
    return {f"{prefix}.{number}": value for number, value in enumerate(values, 1)}
