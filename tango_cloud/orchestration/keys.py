"""Keys: one ephemeral client key for a deployment, one bootstrap host key for each machine."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from tango_cloud.core.errors import ConfigurationError, Fault


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ed25519 key: OpenSSH's private format, and `"ssh-ed25519 <base64>"`."""

    private: str = field(repr=False)
    public: str


def make_key_pair() -> KeyPair:
    return _pair(Ed25519PrivateKey.generate())


@dataclass(frozen=True, slots=True)
class ClientKey:
    """The deployment's key: the file that holds it (0600), and its public half."""

    file: Path
    public: str


def client_key(folder: Path) -> ClientKey:
    """The client key kept in `folder`, made on first use. Several processes may ask at once.

    Raises ConfigurationError when the file there is not such a key, or others may read it.
    """
    file = folder / "id_ed25519"
    if not file.exists():
        # Written aside and linked into place: whoever loses the race takes the winner's key.
        descriptor, scratch = tempfile.mkstemp(dir=folder, prefix=".id_ed25519.")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as handle:
                handle.write(make_key_pair().private)
            os.link(scratch, file)
        except FileExistsError:
            pass
        finally:
            Path(scratch).unlink()
    if file.stat().st_mode & 0o077:
        raise ConfigurationError(
            [Fault(str(file), "others may read this private key", "mode 0600")]
        )
    try:
        key = load_ssh_private_key(file.read_bytes(), password=None)
    except ValueError as error:
        raise ConfigurationError(
            [Fault(str(file), str(error), "an ed25519 private key")]
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError([Fault(str(file), "not an ed25519 key", "an ed25519 private key")])
    return ClientKey(file, _pair(key).public)


def _pair(key: Ed25519PrivateKey) -> KeyPair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return KeyPair(private.decode("ascii"), public.decode("ascii"))
