"""Tags: how the cloud itself knows which instance is whose.

Keys and values fit the strictest cloud (Google's labels): lower case, `[a-z0-9_-]`, at most 63
characters. Any text is encoded into that alphabet and back without loss, except that what would be
too long keeps a readable head and a hash (so it is still unique, but cannot be decoded).
"""

from __future__ import annotations

import hashlib
import re

DEPLOYMENT = "tango-deployment"
ID = "tango-id"
NAME = "tango-name"
UID = "tango-uid"
WAVE = "tango-wave"
IMAGE = "tango-image"
CREATED = "tango-created"
EXPIRES = "tango-expires"
BAKE = "tango-bake"
"""Of an image and its parts: the same on all of them, and on no other's."""
BASE = "tango-base"
DIGEST = "tango-digest"

MAX_LENGTH = 63
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_HASH_DIGITS = 16
_TRUNCATED = "_h_"
_ESCAPE = re.compile(r"_(?:([0-9a-f]+)_|_)")


def encode(text: str) -> str:
    """`text` in the alphabet of tags.

    A character outside `[a-z0-9-]` becomes `_<hex code point>_`, an underscore `__`. Longer than 63
    characters, the encoded text is cut and `_h_` and 16 digits of its SHA-256 are appended.
    """
    encoded = "".join(
        char if char in _PLAIN else "__" if char == "_" else f"_{ord(char):x}_" for char in text
    )
    if len(encoded) <= MAX_LENGTH:
        return encoded
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    head = encoded[: MAX_LENGTH - len(_TRUNCATED) - _HASH_DIGITS]
    return f"{head}{_TRUNCATED}{digest}"


def decode(tag: str) -> str | None:
    """The text that `encode` made `tag` of; None when it was too long to keep, or is not ours."""
    decoded: list[str] = []
    position = 0
    while position < len(tag):
        char = tag[position]
        if char in _PLAIN:
            decoded.append(char)
            position += 1
            continue
        escape = _ESCAPE.match(tag, position)
        if escape is None:
            return None
        code = escape.group(1)
        if code is None:
            decoded.append("_")
        else:
            if int(code, 16) > 0x10FFFF:
                return None
            decoded.append(chr(int(code, 16)))
        position = escape.end()
    text = "".join(decoded)
    return text if encode(text) == tag else None
