"""Google's description of the API: which methods there are, and what fits them."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .errors import Error
from .schema import Check, Schemas, scalar

ROOT = "/compute/v1/"
_FILE = Path("discovery_cache", "documents", "compute.v1.json")
_UNSUPPORTED = {"fields", "callback"}
"""Parameters of every method that would change an answer's form."""
_PARTIAL = "returnPartialSuccess"
"""The document recommends it, and has forgotten to list it among the parameters."""


@dataclass(frozen=True)
class Method:
    """`raw` is the document's; `name` is its id without `compute.`."""

    raw: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.raw["id"]).removeprefix("compute.")

    @functools.cached_property
    def checks(self) -> Mapping[str, Check]:
        found = self.raw.get("parameters", {}).items()
        return {name: scalar(parameter, lenient=True) for name, parameter in found}


class Discovery:
    """Raises FileNotFoundError when the package that has the document is not installed."""

    def __init__(self, path: Path | None = None) -> None:
        self._document: Mapping[str, Any] = json.loads((path or _document()).read_bytes())
        self._schemas = Schemas(self._document["schemas"])
        self._common = {
            name: scalar(parameter, lenient=True)
            for name, parameter in self._document["parameters"].items()
        }
        self._routes: dict[tuple[str, int], list[tuple[Sequence[str], Method]]] = {}
        self._methods: dict[str, Method] = {}
        for resource in self._document["resources"].values():
            for raw in resource["methods"].values():
                method = Method(raw)
                self._methods[method.name] = method
                segments = raw["flatPath"].split("/")
                key = (raw["httpMethod"], len(segments))
                self._routes.setdefault(key, []).append((segments, method))

    def names(self) -> list[str]:
        return list(self._methods)

    def method(self, name: str) -> Method:
        """Raises LookupError when there is none of that name."""
        return self._methods[name]

    def find(self, verb: str, path: str) -> tuple[Method, dict[str, str]]:
        """The method of a request for a path below ROOT, and the parameters in the path.

        Raises Error when there is none, or when they do not fit.
        """
        given = [unquote(segment) for segment in path.split("/")]
        best: tuple[int, Method, dict[str, str]] | None = None
        for segments, method in self._routes.get((verb, len(given)), ()):
            found, literal = _matched(segments, given)
            if found is not None and (best is None or literal > best[0]):
                best = (literal, method, found)
        if best is None:
            raise Error("notFound", f"There is no {verb} {ROOT}{path}")
        _, method, parameters = best
        faults: list[str] = []
        for name, value in parameters.items():
            # A few methods have parts of their path under other names there than here.
            if name in method.checks:
                method.checks[name](value, name, faults)
        _refuse(faults)
        return method, parameters

    def query(self, method: Method, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The parameters in a query, each of the type that it is to have. Raises Error."""
        found: dict[str, Any] = {}
        described: Mapping[str, Any] = method.raw.get("parameters", {})
        names = {name for name, _ in given}
        faults = [
            f"Required parameter: {name}"
            for name, parameter in described.items()
            if parameter["location"] == "query" and parameter.get("required") and name not in names
        ]
        for name, text in given:
            if name in _UNSUPPORTED or (name in {"alt", "$alt"} and not text.startswith("json")):
                raise Error("notImplemented", f"{name}={text} is not emulated")
            if name == "$alt" or (name == "alt" and text.startswith("json;")):
                continue
            if name == _PARTIAL and _PARTIAL in method.raw["description"]:
                found[name] = text == "true"
            elif name in described and described[name]["location"] == "query":
                value = _typed(described[name]["type"], text)
                method.checks[name](value, name, faults)
                repeated = described[name].get("repeated")
                found[name] = [*found.get(name, ()), value] if repeated else value
            elif name in self._common:
                kind = self._document["parameters"][name]["type"]
                self._common[name](_typed(kind, text), name, faults)
            else:
                faults.append(f'Unknown name "{name}": Cannot bind query parameter.')
        _refuse(faults)
        return found

    def body(self, method: Method, raw: bytes) -> dict[str, Any]:
        """The body of a request. Raises Error when it does not fit."""
        if "request" not in method.raw:
            if raw and json.loads(raw) != {}:
                raise Error("badRequest", f"{method.name} has no request body")
            return {}
        try:
            body: dict[str, Any] = json.loads(raw or b"{}")
        except ValueError as error:
            raise Error("parseError", f"Parse Error: {error}") from error
        schema, of = method.raw["request"], method.raw["id"]
        _refuse(self._schemas.faults(schema["$ref"], body, request_of=of))
        read: dict[str, Any] = self._schemas.read(schema, body)
        return read

    def faults_of_answer(self, method: Method, body: object) -> list[str]:
        """What is wrong with an answer of our own."""
        if "response" not in method.raw:
            return [] if body == {} else [f"{method.name} has no answer"]
        return self._schemas.faults(method.raw["response"]["$ref"], body)


def _document() -> Path:
    # The package itself is not imported: that takes longer than all the rest of a start.
    spec = importlib.util.find_spec("googleapiclient")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("google-api-python-client, which has the discovery document")
    return Path(spec.submodule_search_locations[0]) / _FILE


def _matched(segments: Sequence[str], given: Sequence[str]) -> tuple[dict[str, str] | None, int]:
    """The parameters when the path fits, and how many of its segments are literal."""
    found, literal = {}, 0
    for segment, value in zip(segments, given, strict=True):
        if segment.startswith("{"):
            found[segment[1:-1]] = value
        elif segment == value:
            literal += 1
        else:
            return None, 0
    return found, literal


def _typed(kind: str, text: str) -> object:
    """A truth value as one; all else is text, which a lenient check reads."""
    return {"true": True, "false": False}.get(text, text) if kind == "boolean" else text


def _refuse(faults: Sequence[str]) -> None:
    """Raises Error when there are faults."""
    if faults:
        raise Error("invalid", "; ".join(faults))
