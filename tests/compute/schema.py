"""Values held to the schemas of a discovery document. Each schema is compiled when first needed.

Requests are read as Google's servers read them: a null is a field left out, a number may stand in
a string and the other way round. Answers must be exactly what the document says.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

Check = Callable[[Any, str, list[str]], None]
"""Adds what is wrong with a value, found at a path, to a list."""
Schema = Mapping[str, Any]

_RANGES = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint64": (0, (1 << 64) - 1),
}
_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_DURATION = re.compile(r"-?\d+(\.\d+)?s")


class Schemas:
    """`schemas` as the document has them, by name."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas
        self._checks: dict[tuple[str, str], Check] = {}

    def faults(self, name: str, value: object, *, request_of: str = "") -> list[str]:
        """What is wrong with a value of that schema. `request_of` is the method (`compute.x.y`)
        that it is sent to; empty: it is an answer."""
        found: list[str] = []
        self._named(name, request_of)(value, "", found)
        return found

    def read(self, schema: Schema, value: Any) -> Any:
        """A value without faults as the schema writes it: without nulls, numbers as such."""
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"]]
        match schema.get("type"):
            case "object":
                inner = schema.get("properties", {})
                other = schema.get("additionalProperties", {})
                return {
                    key: self.read(inner.get(key, other), item)
                    for key, item in value.items()
                    if item is not None
                }
            case "array":
                return [self.read(schema["items"], item) for item in value]
            case kind:
                number = schema.get("format") in _RANGES or kind in {"integer", "number"}
                return _converted(value, str(kind), number)

    def _named(self, name: str, method: str) -> Check:
        key = (name, method)
        if key not in self._checks:
            # Schemas may hold themselves: whoever asks meanwhile gets a way to what will be there.
            self._checks[key] = lambda *arguments: self._checks[key](*arguments)
            self._checks[key] = self._compile(self._schemas[name], method)
        return self._checks[key]

    def _compile(self, schema: Schema, method: str) -> Check:
        if "$ref" in schema:
            return self._named(schema["$ref"], method)
        match schema.get("type"):
            case "object" if "additionalProperties" in schema:
                return _mapping(self._compile(schema["additionalProperties"], method), bool(method))
            case "object":
                return self._object(schema.get("properties", {}), method)
            case "array":
                return _array(self._compile(schema["items"], method))
            case "any":
                return lambda value, path, found: None
            case _:
                return scalar(schema, lenient=bool(method))

    def _object(self, properties: Mapping[str, Schema], method: str) -> Check:
        checks = {name: self._compile(schema, method) for name, schema in properties.items()}
        required = [
            name
            for name, schema in properties.items()
            if method and method in schema.get("annotations", {}).get("required", ())
        ]

        def check(value: Any, path: str, found: list[str]) -> None:
            if not isinstance(value, dict):
                found.append(f"{path or 'it'}: not an object")
                return
            for key, item in value.items():
                if key not in checks:
                    found.append(f"Unknown name \"{key}\" at '{path or 'resource'}'")
                elif not (item is None and method):
                    checks[key](item, f"{path}.{key}" if path else key, found)
            found.extend(
                f"Required field '{path}{'.' * bool(path)}{name}' not specified"
                for name in required
                if value.get(name) is None
            )

        return check


def _mapping(inner: Check, lenient: bool) -> Check:
    def check(value: Any, path: str, found: list[str]) -> None:
        if not isinstance(value, dict):
            found.append(f"{path or 'it'}: not an object")
            return
        for key, item in value.items():
            if not (item is None and lenient):
                inner(item, f"{path}[{key!r}]", found)

    return check


def _array(inner: Check) -> Check:
    def check(value: Any, path: str, found: list[str]) -> None:
        if not isinstance(value, list):
            found.append(f"{path or 'it'}: not a list")
            return
        for number, item in enumerate(value):
            inner(item, f"{path}[{number}]", found)

    return check


def scalar(schema: Schema, *, lenient: bool) -> Check:
    """The check of a string, a number or a truth value; parameters of methods are such too."""
    kind, form = schema["type"], schema.get("format", "")
    wrong = _FORMS.get((kind, form)) or _TYPES[kind]
    choice: Collection[str] = frozenset(schema.get("enum", ()))
    pattern = re.compile(schema["pattern"]) if "pattern" in schema else None
    number = form in _RANGES or kind in {"integer", "number"}

    def check(value: Any, path: str, found: list[str]) -> None:
        if lenient:
            value = _converted(value, kind, number)
        if reason := wrong(value, form):
            found.append(f"Invalid value for field '{path}': {value!r}: {reason}")
        elif choice and value not in choice:
            found.append(f"Invalid value for field '{path}': {value!r} is none of its values")
        elif pattern and not pattern.fullmatch(value):
            found.append(f"Invalid value for field '{path}': {value!r} must be {pattern.pattern}")

    return check


def _converted(value: Any, kind: str, number: bool) -> Any:
    """A number in a string, or a string that is to be one, as the schema wants it."""
    if not number or isinstance(value, bool):
        return value
    if kind == "string":
        return str(value) if isinstance(value, int) else value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value) if _INTEGER.fullmatch(value) else float(value)
    return value


def _not_a_string(value: Any, _: str) -> str:
    return "" if isinstance(value, str) else "not a string"


def _not_a_boolean(value: Any, _: str) -> str:
    return "" if isinstance(value, bool) else "neither true nor false"


def _not_an_integer(value: Any, form: str) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        return "not an integer"
    low, high = _RANGES.get(form, (value, value))
    return "" if low <= value <= high else f"no {form}"


def _not_a_number(value: Any, _: str) -> str:
    right = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if right else "not a number"


def _not_digits(value: Any, form: str) -> str:
    if not (isinstance(value, str) and _INTEGER.fullmatch(value)):
        return f"not a string with an {form}"
    return _not_an_integer(int(value), form)


def _not_bytes(value: Any, _: str) -> str:
    try:
        base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except (AttributeError, binascii.Error):
        return "not base64"
    return ""


def _matching(pattern: re.Pattern[str], name: str) -> Callable[[Any, str], str]:
    def wrong(value: Any, _: str) -> str:
        return "" if isinstance(value, str) and pattern.fullmatch(value) else f"not a {name}"

    return wrong


_TYPES = {
    "string": _not_a_string,
    "boolean": _not_a_boolean,
    "integer": _not_an_integer,
    "number": _not_a_number,
}
_FORMS = {
    ("string", "int64"): _not_digits,
    ("string", "uint64"): _not_digits,
    ("string", "byte"): _not_bytes,
    ("string", "google-datetime"): _matching(_MOMENT, "moment"),
    ("string", "google-duration"): _matching(_DURATION, "duration"),
}
