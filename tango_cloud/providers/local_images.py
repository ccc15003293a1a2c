"""Images of local machines: the homes that they had.

An image is two things below `<root>/images/`: its document `<id>.json`, which is there before
anything else and goes last, so that nothing is ever there that nobody knows of; and the folder
`<id>/`, the copy.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tango_cloud.core.errors import ConfigurationError, Fault, ProviderUnavailable
from tango_cloud.core.files import write_whole
from tango_cloud.providers.protocol import BakedImage, Recipe

_ID = re.compile(r"image-[0-9a-f]{12}")
_REMOVED = ".removed"
"""Behind the id: the folder of an image that is being removed."""


class LocalImages:
    """Safe for many threads and processes. `root` is the folder that is the cloud."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "images"

    def homes(self, deployment: str) -> Mapping[str, str]:
        """The folder that a new machine's home is copied from, by the image's name."""
        homes: dict[str, str] = {}
        for image in self.baked(deployment):
            if image.ready:
                homes.setdefault(image.recipe.name, str(self._folder / image.id))
        return homes

    def baked(self, deployment: str) -> Sequence[BakedImage]:
        """Raises ProviderUnavailable when the folder or a document cannot be read."""
        found = [image for owner, image in self._read_all() if owner == deployment]
        return sorted(found, key=lambda image: (image.created, image.id), reverse=True)

    def bake(self, instance_id: str, deployment: str, recipe: Recipe) -> str:
        """Returns when the image is ready. Raises ConfigurationError for an image without a name,
        ProviderUnavailable when the machine or the room for the copy is not there."""
        if not recipe.name:
            raise ConfigurationError([Fault("image", "it has no name", "a name for the image")])
        machine = self._root / "instances" / instance_id
        image_id = f"image-{secrets.token_hex(6)}"
        document: dict[str, object] = {
            "deployment": deployment,
            "name": recipe.name,
            "base": recipe.base,
            "digest": recipe.digest,
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "size_bytes": None,
        }
        with _doing(f"{image_id}, of {instance_id}, cannot be made"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(image_id, document)
            try:
                home = self._folder / image_id
                _run("cp", "-a", machine / "inside" / "home", home)
                # A machine that ends is moved away first: this was all of its home.
                machine.stat()
                self._write(image_id, document | {"size_bytes": _size(home)})
            except BaseException:
                self.remove([image_id])
                raise
        return image_id

    def remove(self, ids: Iterable[str]) -> None:
        """What is no image's id is ignored. Raises ProviderUnavailable when one stays."""
        for image_id in sorted(set(ids)):
            if not _ID.fullmatch(image_id):
                continue
            removed = self._folder / f"{image_id}{_REMOVED}"
            with _doing(f"{image_id} cannot be removed"):
                # At once, so that no machine starts from what is left of it.
                with contextlib.suppress(FileNotFoundError):
                    (self._folder / image_id).rename(removed)
                if removed.exists():
                    _run("chmod", "-R", "u+rwX", removed)
                    shutil.rmtree(removed)
                self._document(image_id).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # as long as there are others
            self._folder.rmdir()

    def _read_all(self) -> Iterator[tuple[str, BakedImage]]:
        """Each with its deployment."""
        for path in self._folder.glob("image-*.json"):
            try:
                document = json.loads(path.read_bytes())
                size = document["size_bytes"]
                recipe = Recipe(document["name"], document["base"], document["digest"])
                created = dt.datetime.fromisoformat(document["created"])
                owner = document["deployment"]
            except FileNotFoundError:
                continue  # removed since the folder was listed
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ProviderUnavailable(f"{path} cannot be read: {error!r}") from error
            ready = size is not None and (self._folder / path.stem).is_dir()
            yield owner, BakedImage(path.stem, recipe, created, ready, size)

    def _document(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.json"

    def _write(self, image_id: str, document: Mapping[str, object]) -> None:
        write_whole(self._document(image_id), json.dumps(document, indent=2) + "\n")


@contextlib.contextmanager
def _doing(failure: str) -> Iterator[None]:
    """Raises what the system refuses as ProviderUnavailable."""
    try:
        yield
    except subprocess.CalledProcessError as error:
        raise ProviderUnavailable(f"{failure}: {error.output.strip()[-2000:]}") from error
    except OSError as error:
        raise ProviderUnavailable(f"{failure}: {error}") from error


def _run(*argv: str | Path) -> None:
    subprocess.run(
        argv,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def _size(top: Path) -> int:
    """What the tree takes on the disk, in bytes."""
    inside = (Path(at, name) for at, *lists in os.walk(top) for names in lists for name in names)
    return sum(path.lstat().st_blocks * 512 for path in (top, *inside))
