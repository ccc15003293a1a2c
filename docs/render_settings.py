"""Writes docs/settings.md from the settings: `make docs`. A test holds the two together."""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tango_cloud.core.sections import Section
from tango_cloud.core.settings import ENV_PREFIX, Settings

HEAD = """# Settings

<!-- Written by `make docs` from tango_cloud/core/settings.py and sections.py: edit those. -->

Settings are read from one TOML file and from environment variables; a variable beats the file, and
an option of the command line beats both. The file is the first of these that exists: the one that
`TANGO_CLOUD_CONFIG` names, `./tango-cloud.toml`, `tango-cloud.toml` in the user's configuration
folder (on Linux `~/.config/tango-cloud/`). Unknown keys are faults, and all faults are reported
together, each with its key, its source and what was expected.

```toml
# tango-cloud.toml
prefix = "autolab"

[machine]
image = "local.img"
lifetime_seconds = 7200

[job]
timeout_seconds = 120
```

The variable for a key is its name in capitals after `TANGO_CLOUD_`, with two underscores between a
table and its key: `TANGO_CLOUD_JOB__TIMEOUT_SECONDS=120`.
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD, _table("At the top level", "", Settings)]
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            parts.append(_table(f"`[{name}]`", f"{name}__", kind))
    return "\n".join(parts)


def _table(title: str, variable: str, section: type[Section]) -> str:
    lines = [
        f"## {title}",
        "",
        "| key | type | default | variable | meaning |",
        "|---|---|---|---|---|",
    ]
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            continue
        env = f"{ENV_PREFIX}{variable}{name}".upper()
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `{name}` | {_type(field)} | {_default(field)} | `{env}` | {meaning} |")
    return "\n".join([*lines, ""])


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(item, name):g}"
        for item in field.metadata
        for name, sign in (("gt", ">"), ("ge", "≥"), ("le", "≤"))
        if getattr(item, name, None) is not None
    ]
    return ", ".join([_name(field.annotation), *bounds])


def _name(kind: object) -> str:
    arguments = [a for a in typing.get_args(kind) if a not in (type(None), Ellipsis)]
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is typing.Annotated:
        return _name(arguments[0])
    if origin is dict:
        return f"table of {_name(arguments[1])}s"
    if origin is tuple:
        return f"list of {_name(arguments[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_name(argument) for argument in arguments)
    names = {"str": "text", "int": "whole number", "float": "number", "Path": "path"}
    name = getattr(kind, "__name__", str(kind))
    return names.get(name, name)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "the user's state folder"
    if field.default in (None, PydanticUndefined):
        return "unset"
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return f"`{default}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
