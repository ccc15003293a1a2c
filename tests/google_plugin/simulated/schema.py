"""The extracted schema, as Terraform is told it, and walks over values that have its form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgpack.ext import ExtType
from tf.gen import tfplugin_pb2 as pb
from tf.types import Unknown

Block = Mapping[str, Any]
"""As in `terraform providers schema -json`: attributes and block types by name."""
Values = dict[str, Any]

_NESTING = pb.Schema.NestedBlock.NestingMode


class Schema:
    """Read when it is first needed."""

    def __init__(self, file: Path) -> None:
        content = json.loads(file.read_text())
        self.provider: Mapping[str, Any] = content["provider"]
        self.resources: Mapping[str, Mapping[str, Any]] = content["resource_schemas"]
        self.data_sources: Mapping[str, Mapping[str, Any]] = content["data_source_schemas"]

    def resource(self, kind: str) -> Block:
        block: Block = self.resources[kind]["block"]
        return block

    def response(self) -> pb.GetProviderSchema.Response:
        return pb.GetProviderSchema.Response(
            provider=_message(self.provider),
            provider_meta=pb.Schema(version=0, block=pb.Schema.Block()),
            resource_schemas={name: _message(one) for name, one in self.resources.items()},
            data_source_schemas={name: _message(one) for name, one in self.data_sources.items()},
        )


def _message(schema: Mapping[str, Any]) -> pb.Schema:
    return pb.Schema(version=schema["version"], block=_block(schema["block"]))


def _block(block: Block) -> pb.Schema.Block:
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=name,
                type=json.dumps(attribute["type"]).encode(),
                required=attribute.get("required", False),
                optional=attribute.get("optional", False),
                computed=attribute.get("computed", False),
            )
            for name, attribute in sorted(block["attributes"].items())
        ],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=name,
                block=_block(nested["block"]),
                nesting=_NESTING.Value(nested["nesting_mode"].upper()),
                min_items=nested.get("min_items", 0),
                max_items=nested.get("max_items", 0),
            )
            for name, nested in sorted(block["block_types"].items())
        ],
    )


def is_unknown(value: object) -> bool:
    # The second: unknown, but with something known of it.
    return value is Unknown or isinstance(value, ExtType)


def nested_values(
    block: Block, name: str, value: Any
) -> tuple[Block, Sequence[Values], Callable[[list[Values]], Any]]:
    """What is in a nested block: its schema, its values, and how to put such values back."""
    nested = block["block_types"][name]
    if nested["nesting_mode"] == "single":
        return nested["block"], [] if value is None else [value], lambda made: (made or [None])[0]
    return nested["block"], value or [], list


def planned(block: Block, values: Values) -> Values:
    """What a new resource will have: computed values are not known yet, unless they are given."""
    made: Values = {}
    for name, attribute in block["attributes"].items():
        is_open = values.get(name) is None and attribute.get("computed", False)
        made[name] = Unknown if is_open else values.get(name)
    for name in block["block_types"]:
        nested, items, put = nested_values(block, name, values.get(name))
        made[name] = put([planned(nested, item) for item in items])
    return made


def filled(block: Block, values: Values, known: Values) -> Values:
    """`values`, with what was not known taken from `known`; null where that has nothing."""
    made: Values = {}
    for name in block["attributes"]:
        made[name] = known.get(name) if is_unknown(values.get(name)) else values.get(name)
    for name in block["block_types"]:
        nested, items, put = nested_values(block, name, values.get(name))
        found = known.get(name) or []
        made[name] = put(
            [
                filled(nested, item, found[index] if index < len(found) else {})
                for index, item in enumerate(items)
            ]
        )
    return made


def refreshed(block: Block, values: Values, known: Values) -> Values:
    """`values`, replaced by what `known` says otherwise; what it does not name stays."""
    made: Values = {}
    for name in block["attributes"]:
        old = values.get(name)
        made[name] = old if name not in known or same(old, known[name]) else known[name]
    for name in block["block_types"]:
        nested, items, put = nested_values(block, name, values.get(name))
        if name not in known:
            made[name] = values.get(name)
        elif len(known[name]) == len(items):
            pairs = zip(items, known[name], strict=True)
            made[name] = put([refreshed(nested, *pair) for pair in pairs])
        else:
            made[name] = put([filled(nested, planned(nested, {}), now) for now in known[name]])
    return made


def same(old: Any, new: Any) -> bool:
    """Whether they mean the same: nothing and empty, a name and its path, lists in any order."""
    if old == new or not (old or new):
        return True
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and sorted(map(str, old)) == sorted(map(str, new))
    if isinstance(old, str) and isinstance(new, str) and ("/" in old or "/" in new):
        one, other = path(old), path(new)
        return one.endswith(f"/{other}") or other.endswith(f"/{one}") or one == other
    return False


def path(link: str) -> str:
    """The relative path of a link: projects/..."""
    start = link.find("projects/")
    return link[start:] if start >= 0 else link


def given(block: Block, values: Values, prefix: str = "") -> Iterator[str]:
    """The arguments that have a value, dotted."""
    for name in block["attributes"]:
        if values.get(name) is not None:
            yield f"{prefix}{name}"
    for name in block["block_types"]:
        nested, items, _ = nested_values(block, name, values.get(name))
        for item in items:
            yield from given(nested, item, f"{prefix}{name}.")
