"""Between Tango's loosely typed objects and ours. Tango itself is never imported.

Any attribute of a TangoMachine may be missing or of an unexpected type: what cannot be used raises
InputError naming it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tango_cloud.api import shape_or
from tango_cloud.core.errors import Fault, InputError
from tango_cloud.core.model import MachineKey, Shape
from tango_cloud.core.sections import MachineSettings
from tango_cloud.orchestration.fleet import Entry
from tango_cloud.transports.protocol import InputFile

VMMS_NAME = "tangoCloud"
_KIB_IN_MIB = 1024


@dataclass
class ListedVM:
    """What `getVMs` lists: a TangoMachine's attributes, as far as its callers read them.

    `name` is the instance name, as resetTango expects; `pool_name` keeps the machine's own name, so
    that the same object can be handed to `destroyVM`. Plain strings and numbers: it pickles.
    """

    name: str
    id: int
    image: str
    instance_id: str
    domain_name: str
    pool_name: str
    vmms: str = VMMS_NAME

    @property
    def ec2_id(self) -> str:
        return self.instance_id


def listed(entry: Entry) -> ListedVM:
    machine, instance = entry.machine, entry.instance
    return ListedVM(
        name=entry.key.instance_name,
        id=entry.key.id,
        image=machine.shape.image if machine else instance.image if instance else "",
        instance_id=instance.instance_id if instance else "",
        domain_name=instance.address if instance else "",
        pool_name=entry.key.name,
    )


def key_of(prefix: str, vm: object) -> MachineKey:
    """The identity of a TangoMachine, or of what `getVMs` listed."""
    name = getattr(vm, "pool_name", None) or getattr(vm, "name", None)
    number = getattr(vm, "id", None)
    faults = []
    if not isinstance(name, str) or not name:
        faults.append(Fault("vm.name", f"{name!r} will not do", "the name of its pool"))
    if isinstance(number, bool) or not isinstance(number, int):
        faults.append(Fault("vm.id", f"{number!r} will not do", "a number"))
    if faults:
        raise InputError(faults)
    return MachineKey(prefix, int(str(number)), str(name))


def shape_of(vm: object, defaults: MachineSettings, memory_unit: Literal["MiB", "KiB"]) -> Shape:
    """The shape a TangoMachine asks for; what it leaves open comes from the settings."""
    faults: list[Fault] = []
    memory = _count(vm, "memory", faults)
    if memory is not None and memory_unit == "KiB":
        memory = -(-memory // _KIB_IN_MIB)
    cores = _count(vm, "cores", faults)
    disk = _count(vm, "disk", faults)
    if faults:
        raise InputError(faults)
    image = getattr(vm, "image", None)
    return shape_or(defaults, str(image) if image else None, cores, memory, disk)


def input_files(files: Iterable[object]) -> Sequence[InputFile]:
    """Tango's InputFiles. The transport follows links: the server's own files may be links."""
    found: list[InputFile] = []
    faults: list[Fault] = []
    for number, file in enumerate(files or ()):
        local = getattr(file, "localFile", None)
        destination = getattr(file, "destFile", None)
        if not isinstance(local, str) or not local:
            faults.append(Fault(f"inputFiles[{number}].localFile", f"{local!r} will not do"))
            continue
        path = Path(local)
        if destination is not None and not isinstance(destination, str):
            faults.append(Fault(f"inputFiles[{number}].destFile", f"{destination!r} will not do"))
            continue
        found.append(InputFile(path, destination or path.name))
    if faults:
        raise InputError(faults)
    return found


def positive_number(what: str, value: object) -> float:
    """`value` as a number greater than zero. Raises InputError."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise InputError([Fault(what, f"{value!r} will not do", "a number greater than 0")])
    return number


def _count(vm: object, name: str, faults: list[Fault]) -> int | None:
    value = getattr(vm, name, None)
    if value is None or value == "":
        return None
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if count <= 0:
        faults.append(Fault(f"vm.{name}", f"{value!r} will not do", "a number greater than 0"))
        return None
    return count
