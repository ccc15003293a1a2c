"""The schema of hashicorp/google, out of the package that its bindings for Python are published in.

    extract.py PACKAGE.whl FOLDER

writes FOLDER/schema.json, in the form of `terraform providers schema -json`, and FOLDER/published,
the parts of the package that a test holds the schema against. What the bindings do not tell is not
in it: which values are sensitive, defaults, what a change replaces, the schemas' own versions, and
what must be said in a block of the provider.
"""

from __future__ import annotations

import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESOURCES = ("compute_network", "compute_subnetwork", "compute_firewall", "compute_instance")
DATA_SOURCES = ("compute_subnetwork",)
"""Those that our modules use."""

_CLASS = re.compile(r"^class (\w+) extends cdktn\.\w+ \{$", re.MULTILINE)
_FACT = re.compile(
    r"^    // (\w+) - computed: (true|false), optional: (true|false), required: (true|false)$",
    re.MULTILINE,
)
_GETTER = re.compile(r"return (cdktn\.Fn\.tolist\()?this\.get(\w+)Attribute\(")
_MAP = re.compile(r"= new cdktn\.(String|Number|Boolean)Map\(this, ")
_STRUCTURE = re.compile(r"= new (\w+?)(List|OutputReference)\(this, \"\w+\"(?:, (true|false))?\);")
_WRITTEN = re.compile(
    r"^ +(\w+): \{\n +value: .*\n +isBlock: (true|false),\n"
    r" +type: \"(\w+)\",\n +storageClassType: \"(\w+)\",$",
    re.MULTILINE,
)
_WRITTEN_TYPES = {"string": "string", "number": "number", "boolean": "bool"}
_TYPES: Mapping[str, object] = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
}


class NotUnderstood(Exception):
    """The bindings have a form that is not known here. `args`: what, and where."""


@dataclass(frozen=True)
class Fact:
    """One attribute or block, with the text that follows in its class."""

    name: str
    computed: bool
    optional: bool
    required: bool
    text: str


def main(package: Path, folder: Path) -> None:
    with zipfile.ZipFile(package) as wheel:
        archive = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        sources = _sources(wheel.read(archive))
        published = folder / "published"
        published.mkdir(parents=True, exist_ok=True)
        for module in _modules():
            name = f"cdktn_provider_google/{module}/__init__.py"
            (published / f"{module}.py").write_bytes(wheel.read(name))
    (folder / "schema.json").write_text(json.dumps(schema(sources), indent=1, sort_keys=True))


def _modules() -> list[str]:
    return ["provider", *RESOURCES, *(f"data_google_{name}" for name in DATA_SOURCES)]


def _sources(archive: bytes) -> dict[str, str]:
    """The modules' JavaScript, and the package's description."""
    wanted = {f"package/lib/{module.replace('_', '-')}/index.js": module for module in _modules()}
    wanted["package/package.json"] = "package"
    found: dict[str, str] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r|gz") as content:
        for member in content:
            file = content.extractfile(member) if member.name in wanted else None
            if file is not None:
                found[wanted[member.name]] = file.read().decode()
    return found


def schema(sources: Mapping[str, str]) -> dict[str, Any]:
    """Raises NotUnderstood."""
    return {
        "provider_version": json.loads(sources["package"])["cdktn"]["provider"]["version"],
        "provider": {"version": 0, "block": _provider(sources["provider"])},
        "resource_schemas": {
            f"google_{name}": {"version": 0, "block": _root(sources[name])} for name in RESOURCES
        },
        "data_source_schemas": {
            f"google_{name}": {"version": 0, "block": _root(sources[f"data_google_{name}"])}
            for name in DATA_SOURCES
        },
    }


def _provider(source: str) -> dict[str, Any]:
    """The provider's own block. Nothing of it can be read: its types are those it is written in."""
    optional = {fact.name for fact in _facts(source) if fact.optional}
    block = _written(source, source[source.index("    synthesizeHclAttributes() {") :])
    # Terraform's own, not the plugin's.
    del block["attributes"]["alias"]
    if missing := optional - {"alias"} - {*block["attributes"], *block["block_types"]}:
        raise NotUnderstood(missing, "the provider")
    return block


def _written(source: str, body: str) -> dict[str, Any]:
    block: dict[str, Any] = {"attributes": {}, "block_types": {}}
    for name, is_block, kind, stored in _WRITTEN.findall(body):
        if is_block == "true":
            function = (
                f"function {stored[0].lower()}{stored.removesuffix('List')[1:]}ToHclTerraform("
            )
            start = source.index(function)
            nested = _written(source, source[start : source.index("\n}\n", start)])
            block["block_types"][name] = {"nesting_mode": kind, "max_items": 1, "block": nested}
        else:
            element = _WRITTEN_TYPES[re.sub("(List|Map)$", "", stored)]
            block["attributes"][name] = {
                "type": element if kind == "simple" else [kind, element],
                "optional": True,
            }
    return block


def _root(source: str) -> dict[str, Any]:
    """The block of the class that is the resource itself: the last one."""
    starts = list(_CLASS.finditer(source))
    ends = [start.start() for start in starts[1:]] + [len(source)]
    classes = {
        start.group(1): source[start.end() : end] for start, end in zip(starts, ends, strict=True)
    }
    return _block(classes, starts[-1].group(1))


def _facts(body: str) -> Iterator[Fact]:
    starts = list(_FACT.finditer(body))
    for index, start in enumerate(starts):
        end = starts[index + 1].start() if index + 1 < len(starts) else len(body)
        computed, optional, required = (flag == "true" for flag in start.groups()[1:])
        yield Fact(start.group(1), computed, optional, required, body[start.end() : end])


def _block(classes: Mapping[str, str], name: str) -> dict[str, Any]:
    block: dict[str, Any] = {"attributes": {}, "block_types": {}}
    for fact in _facts(classes[name]):
        structure = _STRUCTURE.search(fact.text)
        if structure is None:
            block["attributes"][fact.name] = _attribute(fact, _type(fact, name))
        elif fact.computed and not fact.optional:
            nested = _block(classes, f"{structure.group(1)}OutputReference")
            block["attributes"][fact.name] = _attribute(fact, _object_type(structure, nested))
        else:
            block["block_types"][fact.name] = _nested(classes, fact, structure)
    return block


def _attribute(fact: Fact, kind: object) -> dict[str, Any]:
    flags = {"computed": fact.computed, "optional": fact.optional, "required": fact.required}
    return {"type": kind} | {name: True for name, is_set in flags.items() if is_set}


def _type(fact: Fact, place: str) -> object:
    if (found := _MAP.search(fact.text)) is not None:
        return _TYPES[f"{found.group(1)}Map"]
    getter = _GETTER.search(fact.text)
    if getter is None or getter.group(2) not in _TYPES:
        raise NotUnderstood(fact.name, place)
    # A set is read as a list: its elements have no order to be named by.
    return ["set", "string"] if getter.group(1) else _TYPES[getter.group(2)]


def _object_type(structure: re.Match[str], nested: Mapping[str, Any]) -> object:
    fields = {name: attribute["type"] for name, attribute in nested["attributes"].items()}
    return ["set" if structure.group(3) == "true" else "list", ["object", fields]]


def _nested(classes: Mapping[str, str], fact: Fact, structure: re.Match[str]) -> dict[str, Any]:
    content = _block(classes, f"{structure.group(1)}OutputReference")
    if fact.name == "timeouts":
        return {"nesting_mode": "single", "block": content}
    made: dict[str, Any] = {
        "nesting_mode": "set" if structure.group(3) == "true" else "list",
        "block": content,
    }
    if fact.required:
        made["min_items"] = 1
    if structure.group(2) == "OutputReference":
        made["max_items"] = 1
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
