"""The local provider: machines that are SSH servers on this host's loopback.

Needs no account, no plugin and no root. Terraform makes and removes machines with the program that
stands in `terraform/local/wave/machine`; the inventory is that program's instance documents, one
folder per machine.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from tango_cloud.core import tags
from tango_cloud.core.errors import (
    ConfigurationError,
    Fault,
    NextMove,
    ProviderUnavailable,
    ProvisioningError,
    QuotaError,
    TangoCloudError,
    TerraformError,
)
from tango_cloud.core.model import (
    Instance,
    MachineRequest,
    Market,
    Offer,
    Rate,
    Shape,
)
from tango_cloud.core.settings import Settings
from tango_cloud.providers import local_document, local_strays
from tango_cloud.providers.local_host import Host, examine
from tango_cloud.providers.local_images import LocalImages
from tango_cloud.providers.protocol import BakedImage, Bootstrap, Check, Provider, Recipe, Stray
from tango_cloud.terraform.modules import modules_root

NAME = "local"
_STOP_SECONDS = 90
_STOPS_AT_ONCE = 4


class PortTaken(ProvisioningError):
    """Another server has the machine's port. The next machine gets another one."""

    next_move = NextMove.RETRY


_FAULTS: Sequence[tuple[str, type[TangoCloudError]]] = (
    ("cannot listen on", PortTaken),
    ("no space left on device", QuotaError),
    ("cannot allocate memory", QuotaError),
    ("too many open files", QuotaError),
    ("resource temporarily unavailable", QuotaError),
    ("disk quota exceeded", QuotaError),
)
"""What a failed start says, in lower case, and the class that names the caller's next move."""


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """`root` is the folder that is the cloud; several deployments may share it.

    `server` and `isolate` "auto": bubblewrap if it works here, sshd if that is so and it is
    installed, asyncssh's server else. `python` is the interpreter that starts machines; it must
    have asyncssh for that server.
    """

    root: Path
    server: Literal["auto", "sshd", "asyncssh"] = "auto"
    isolate: Literal["auto", "yes", "no"] = "auto"
    images: tuple[str, ...] = ("local.img",)
    python: Path = field(default_factory=lambda: Path(sys.executable))


@dataclass(frozen=True, slots=True)
class _Document:
    """An instance document with the identity of the file it was read from."""

    version: tuple[int, int]
    content: Mapping[str, Any]


class LocalProvider:
    """Satisfies `Provider`, `Strays`, `Baker` and `Diagnosable`. Safe to use from many threads.

    `deployment` is whose baked images machines can be made of.
    """

    def __init__(self, options: LocalOptions, deployment: str) -> None:
        self._options = options
        self._deployment = deployment
        self._root = options.root.expanduser().absolute()
        self._baked = LocalImages(self._root)
        self._lock = threading.Lock()
        self._documents: dict[str, _Document] = {}

    @property
    def name(self) -> str:
        return NAME

    @property
    def machine_resource(self) -> str:
        return "terraform_data.machine"

    def instance_id(self, _stored_id: str, /) -> str:
        """None: that it is in the state does not say that there is a machine, and all that there
        is a listing shows at once."""
        return ""

    @property
    def poll_interval(self) -> float:
        return 0.05

    @property
    def compress(self) -> bool:
        return False

    @property
    def sudo(self) -> bool:
        return False

    @property
    def own_host_keys(self) -> bool:
        return False

    @property
    def creation_rate(self) -> Rate | None:
        return None

    @property
    def removal_rate(self) -> Rate | None:
        return None

    def host_key(self, instance_id: str) -> str:
        raise NotImplementedError(f"{instance_id} was told its host key")

    def images(self) -> Sequence[str]:
        """First those of the options, then the baked ones."""
        return list(dict.fromkeys([*self._options.images, *self._baked.homes(self._deployment)]))

    def offers(self, shape: Shape) -> Sequence[Offer]:
        """This host, if it is big enough. Raises ConfigurationError when it is not."""
        cores, memory_mib = os.cpu_count() or 1, psutil.virtual_memory().total >> 20
        faults = []
        images = self.images()
        if shape.image not in images:
            faults.append(_absent(shape.image, images))
        if shape.cores is not None and shape.cores > cores:
            faults.append(Fault("cores", f"{shape.cores} are asked for", f"at most {cores}"))
        if shape.memory_mib is not None and shape.memory_mib > memory_mib:
            faults.append(
                Fault("memory", f"{shape.memory_mib} MiB are asked for", f"at most {memory_mib}")
            )
        if faults:
            raise ConfigurationError(faults)
        return [Offer(NAME, NAME, NAME, NAME, Market.ON_DEMAND, 0.0)]

    def envelope_variables(self, deployment: str) -> Mapping[str, object]:
        """Raises ConfigurationError when this host does not have what the options ask for."""
        host = examine()
        server, isolate = host.choose(self._options.server, self._options.isolate)
        return {
            "deployment": tags.encode(deployment),
            "root": str(self._root),
            # Not resolved: a virtual environment is known by the path it is called by.
            "python": str(self._options.python.absolute()),
            "server": server,
            "isolate": isolate,
            "addresses": host.addresses,
        }

    def user_data(self, bootstrap: Bootstrap) -> str:
        return json.dumps(
            {
                "host_private_key": bootstrap.host_private_key,
                "host_public_key": bootstrap.host_public_key,
                "authorized_keys": list(bootstrap.authorized_keys),
                "expires": _rfc3339(bootstrap.expires),
            }
        )

    def wave_machines(self, requests: Iterable[MachineRequest]) -> Mapping[str, object]:
        """Raises ConfigurationError when an image is not there any more."""
        requests, homes = list(requests), self._baked.homes(self._deployment)
        images = [*self._options.images, *homes]
        faults = [_absent(r.shape.image, images) for r in requests if r.shape.image not in images]
        if faults:
            raise ConfigurationError(faults)
        return {
            request.uid: {
                "image": request.shape.image,
                "instance_type": request.offer.instance_type,
                "zone": request.offer.zone,
                "market": str(request.offer.market),
                "disk_gib": request.shape.disk_gib,
                "tags": dict(request.tags),
                "expires": _rfc3339(request.expires),
                "home": homes.get(request.shape.image),
            }
            for request in requests
        }

    def environment(self) -> Mapping[str, str]:
        return {}

    def instances(self, deployment: str) -> Sequence[Instance]:
        """Reads each document once as long as it does not change: others' machines cost a look at
        their file's date."""
        wanted = tags.encode(deployment)
        found = []
        with self._lock:
            self._documents = dict(self._read_all())
            documents = self._documents
        folder = self._root / "instances"
        for instance_id, document in documents.items():
            content = document.content
            try:
                if content["tags"].get(tags.DEPLOYMENT) == wanted:
                    found.append(local_document.read(deployment, content, folder))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise ProviderUnavailable(
                    f"{folder / instance_id} is damaged: {error!r}"
                ) from error
        return found

    def strays(self, deployment: str) -> Sequence[Stray]:
        return local_strays.find(self._root, self.instances(deployment))

    def remove_strays(self, ids: Iterable[str]) -> None:
        self.terminate(ids)

    def bake(self, instance_id: str, deployment: str, recipe: Recipe) -> str:
        """The machine goes on running. Returns when the image is ready."""
        return self._baked.bake(instance_id, deployment, recipe)

    def baked(self, deployment: str) -> Sequence[BakedImage]:
        return self._baked.baked(deployment)

    def remove_images(self, ids: Iterable[str]) -> None:
        self._baked.remove(ids)

    def _read_all(self) -> Iterable[tuple[str, _Document]]:
        instances = self._root / "instances"
        try:
            # Not iterdir: with thousands of machines its objects cost more than the listing.
            names = [name for name in os.listdir(instances) if name[0] != "."]  # noqa: PTH208
        except FileNotFoundError:
            return  # no machine was ever made here
        except OSError as error:
            raise ProviderUnavailable(f"{instances} cannot be listed: {error}") from error
        for name in names:
            path = f"{instances}/{name}/instance.json"
            try:
                status = os.stat(path)  # noqa: PTH116
                version = (status.st_mtime_ns, status.st_ino)
                document = self._documents.get(name)
                if document is None or document.version != version:
                    document = _Document(version, json.loads(Path(path).read_bytes()))
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed since the folder was listed
            except (OSError, ValueError) as error:
                raise ProviderUnavailable(f"{path} cannot be read: {error}") from error
            yield name, document

    def terminate(self, instance_ids: Iterable[str]) -> None:
        """Returns once they are gone. Raises ProviderUnavailable when one cannot be stopped."""
        ids = sorted(set(instance_ids))
        chunks = [ids[i::_STOPS_AT_ONCE] for i in range(min(_STOPS_AT_ONCE, len(ids)))]
        with ThreadPoolExecutor(_STOPS_AT_ONCE) as pool:
            # Every chunk is tried before the first failure is raised.
            failures = [text for text in pool.map(self._stop, chunks) if text]
        if failures:
            raise ProviderUnavailable("; ".join(failures))

    def _stop(self, ids: Sequence[str]) -> str:
        """What went wrong; empty when nothing did."""
        program = modules_root() / NAME / "wave" / "machine"
        argv = [sys.executable, "-I", "-S", "-B", str(program), "stop", str(self._root), *ids]
        try:
            stopped = subprocess.run(
                argv,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_STOP_SECONDS,
                env={"LANG": "C.UTF-8"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"stopping local machines: {error}"
        if stopped.returncode == 0:
            return ""
        said = stopped.stdout.strip()[-2000:]
        return said or f"stopping local machines: the program ended with {stopped.returncode}"

    def classify(self, error: TerraformError) -> TangoCloudError:
        text = str(error)
        lowered = text.lower()
        for sign, kind in _FAULTS:
            if sign in lowered:
                return kind(text)
        return ProvisioningError(text)

    def warnings(self) -> Sequence[Check]:
        return [check for check in self.diagnose() if check.warning]

    def diagnose(self) -> Sequence[Check]:
        return examine().diagnose(self._options.server, self._options.isolate)


def from_settings(settings: Settings) -> Provider:
    """The provider as the settings describe it: what the entry point names."""
    local = settings.local
    return LocalProvider(
        LocalOptions(
            root=local.root or settings.state_dir / NAME,
            server=local.server,
            isolate=local.isolate,
            images=local.images,
        ),
        settings.prefix,
    )


def _absent(image: str, images: Iterable[str]) -> Fault:
    return Fault("image", f"there is no {image!r} here", f"one of: {', '.join(images)}")


def _rfc3339(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


__all__ = ["Host", "LocalOptions", "LocalProvider", "PortTaken", "from_settings"]
