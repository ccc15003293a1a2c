"""Lists: filtered, in order, in pages; of one scope, or aggregated over all of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from . import filters
from .errors import Error
from .resources import Place, Resource

_PAGE = 500
Items = Sequence[tuple[Place, Resource]]


def listed(kind: str, place: Place, items: Items, query: Mapping[str, Any]) -> Resource:
    """The answer of a `list`. `kind` is the API's name of one (`instance`). Raises Error."""
    page, token = _page(items, query)
    answer: Resource = {
        "kind": f"compute#{kind}List",
        "id": place.path,
        "selfLink": place.link,
    }
    if page:
        answer["items"] = [resource for _, resource in page]
    if token:
        answer["nextPageToken"] = token
    return answer


def aggregated(
    kind: str,
    place: Place,
    items: Items,
    query: Mapping[str, Any],
    *,
    scopes: Collection[str],
    unreachable: Collection[str] = (),
) -> Resource:
    """The answer of an `aggregatedList`: on every page each scope is named. Raises Error."""
    there = [item for item in items if item[0].scope not in unreachable]
    page, token = _page(there, query)
    found: dict[str, Resource] = {}
    for scope in sorted(scopes):
        resources = [resource for where, resource in page if where.scope == scope]
        found[scope] = {place.kind: resources} if resources else {"warning": _nothing(scope)}
        if scope in unreachable:
            found[scope] = {"warning": _unreachable(scope)}
    answer: Resource = {
        "kind": f"compute#{kind}AggregatedList",
        "id": f"projects/{place.project}/aggregated/{place.kind}",
        "selfLink": f"{place.link.removesuffix(place.path)}projects/{place.project}"
        f"/aggregated/{place.kind}",
        "items": found,
    }
    if gone := sorted(set(unreachable) & set(scopes)):
        answer["unreachables"] = [f"projects/{place.project}/{scope}" for scope in gone]
    if token:
        answer["nextPageToken"] = token
    return answer


def _page(items: Items, query: Mapping[str, Any]) -> tuple[Items, str]:
    """One page of what the filter leaves, and the token of the next; empty: it is the last."""
    size = int(query.get("maxResults", _PAGE))
    if not 0 <= size <= _PAGE:
        text = f"Invalid value for field 'maxResults': '{size}'. Value must be at most {_PAGE}."
        raise Error("invalid", text)
    order = query.get("orderBy", "name")
    if order not in {"", "name", "creationTimestamp desc"}:
        raise Error("invalid", f"Invalid value for field 'orderBy': '{order}'.")
    holds = filters.parse(query.get("filter", ""))
    left = [item for item in items if holds(item[1])]
    if order == "creationTimestamp desc":
        left.sort(key=lambda item: int(item[1].get("id", 0)), reverse=True)
    if token := query.get("pageToken"):
        # By the last one that was given, not by their number: others may be gone by now.
        last = _decoded(token)
        keys = [(place.scope, place.name) for place, _ in left]
        after = [n for n, key in enumerate(keys) if key > last]
        start = keys.index(last) + 1 if last in keys else min(after, default=len(left))
        left = left[start:]
    page = left[: size or _PAGE]
    return page, _encoded(page[-1][0]) if len(page) < len(left) else ""


def _encoded(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps([place.scope, place.name]).encode()).decode()


def _decoded(token: str) -> tuple[str, str]:
    try:
        scope, name = json.loads(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise Error("invalid", f"Invalid value for field 'pageToken': '{token}'.") from error
    return scope, name


def _nothing(scope: str) -> Resource:
    return {
        "code": "NO_RESULTS_ON_PAGE",
        "message": f"There are no results for scope '{scope}' on this page.",
        "data": [{"key": "scope", "value": scope}],
    }


def _unreachable(scope: str) -> Resource:
    return {
        "code": "UNREACHABLE",
        "message": f"The scope '{scope}' is unreachable.",
        "data": [{"key": "scope", "value": scope}],
    }
