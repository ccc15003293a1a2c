"""Filter expressions of lists: `labels.a=b AND (status != "RUNNING" OR name:x*)`, `name eq re`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import Error

Holds = Callable[[Mapping[str, Any]], bool]
_TOKEN = re.compile(r"""\s*(?:(\()|(\))|(!=|<=|>=|[=<>:])|"([^"]*)"|'([^']*)'|([^\s()=!<>:"']+))""")
_FIELD = re.compile(r"[A-Za-z][\w-]*(\.[\w-]+)*")
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": lambda has, wanted: has < wanted,
    "<=": lambda has, wanted: has <= wanted,
    ">": lambda has, wanted: has > wanted,
    ">=": lambda has, wanted: has >= wanted,
}


def parse(text: str) -> Holds:
    """Whether a resource is to be listed. Raises Error for what is no filter."""
    if not text.strip():
        return lambda resource: True
    if found := re.fullmatch(r"\s*\(?\s*([\w.-]+)\s+(eq|ne)\s+(.*?)\s*\)?\s*", text):
        return _regular(found[1], found[2], found[3], text)
    return _Parser(text).whole()


def _regular(name: str, operator: str, literal: str, text: str) -> Holds:
    if len(literal) > 1 and literal[0] == literal[-1] and literal[0] in "'\"":
        literal = literal[1:-1]
    try:
        pattern = re.compile(literal)
    except re.error as error:
        raise _invalid(text) from error
    wanted = operator == "eq"
    return lambda resource: bool(pattern.fullmatch(_text(_value(resource, name)))) is wanted


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))

    def whole(self) -> Holds:
        holds = self._either()
        if self._tokens:
            raise _invalid(self._text)
        return holds

    def _either(self) -> Holds:
        # AND and OR bind as they do in Google's language: OR first.
        terms = [self._one()]
        while self._tokens and self._tokens[0] != ("sign", ")"):
            if self._tokens[0] == ("word", "AND"):
                self._tokens.pop(0)
                terms.append(self._one())
            elif self._tokens[0] == ("word", "OR"):
                self._tokens.pop(0)
                terms[-1] = _or(terms[-1], self._one())
            else:
                terms.append(self._one())
        return lambda resource: all(term(resource) for term in terms)

    def _one(self) -> Holds:
        kind, value = self._next()
        if (kind, value) == ("word", "NOT"):
            inner = self._one()
            return lambda resource: not inner(resource)
        if (kind, value) == ("sign", "("):
            holds = self._either()
            if self._next() != ("sign", ")"):
                raise _invalid(self._text)
            return holds
        sign, operator = self._next()
        how, wanted = self._next()
        if kind != "word" or not _FIELD.fullmatch(value) or sign != "operator":
            raise _invalid(self._text)
        if how not in {"word", "quoted"}:
            raise _invalid(self._text)
        return _comparison(value, operator, wanted)

    def _next(self) -> tuple[str, str]:
        if not self._tokens:
            raise _invalid(self._text)
        return self._tokens.pop(0)


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if not match:
            raise _invalid(text)
        opening, closing, operator, double, single, word = match.groups()
        at = match.end()
        if opening or closing:
            found.append(("sign", opening or closing))
        elif operator:
            found.append(("operator", operator))
        elif word is not None:
            found.append(("word", word))
        else:
            found.append(("quoted", double if double is not None else single))
    return found


def _or(one: Holds, other: Holds) -> Holds:
    return lambda resource: one(resource) or other(resource)


def _comparison(name: str, operator: str, wanted: str) -> Holds:
    def holds(resource: Mapping[str, Any]) -> bool:
        has = _value(resource, name)
        if operator == ":" and wanted == "*":
            return has is not None
        if has is None:
            return operator == "!="
        if operator in _ORDER:
            return _compared(operator, has, wanted)
        values = has if isinstance(has, list) else [has]
        equal = any(_equal(_text(value), wanted, operator) for value in values)
        return equal is (operator != "!=")

    return holds


def _equal(has: str, wanted: str, operator: str) -> bool:
    if operator == ":" and "*" not in wanted:
        return wanted.casefold() in has.casefold()
    return fnmatch.fnmatchcase(has, wanted.replace("[", "[[]").replace("?", "[?]"))


def _compared(operator: str, has: Any, wanted: str) -> bool:
    try:
        return _ORDER[operator](float(has), float(wanted))
    except (TypeError, ValueError):
        return _ORDER[operator](_text(has), wanted)


def _value(resource: Mapping[str, Any], name: str) -> Any:
    found: Any = resource
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _invalid(text: str) -> Error:
    return Error("invalid", f"Invalid value for field 'filter': '{text}'. Invalid list filter.")
