"""One call: what was asked for, read from a request that fits the discovery document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import catalog
from .errors import Error
from .faults import Struck, Target
from .resources import Place, region_of


@dataclass
class Call:
    """`action` is the method (`instances.insert`), `path` the parameters in its path."""

    action: str
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]
    struck: Struck = field(default_factory=lambda: Struck([]))

    @property
    def project(self) -> str:
        return self.path["project"]

    @property
    def scope(self) -> str:
        """Raises Error when there is no such zone or region."""
        for kind, known in (("zone", catalog.ZONES), ("region", catalog.REGIONS)):
            # `zones.get` and `regions.get` have their own resource there.
            if kind in self.path and not self.action.startswith(f"{kind}s."):
                name = self.path[kind]
                if name not in known:
                    text = f"Invalid value for field '{kind}': '{name}'. Unknown {kind}."
                    raise Error("invalid", text)
                return f"{kind}s/{name}"
        return "" if self.action.startswith(("zones.", "regions.", "projects.")) else "global"

    def place(self, kind: str, name: str = "") -> Place:
        return Place(self.project, self.scope, kind, name)

    @property
    def target(self) -> Target:
        """What faults look at."""
        zone = self.path.get("zone", "")
        region = self.path.get("region", "") or region_of(zone)
        if self.action != "instances.insert":
            return Target(self.action, zone, region)
        kind = str(self.body.get("machineType", "")).rpartition("/")[2]
        return Target(self.action, zone, region, kind, market(self.body))


def market(instance: Mapping[str, Any]) -> str:
    scheduling = instance.get("scheduling") or {}
    spot = scheduling.get("provisioningModel") == "SPOT" or scheduling.get("preemptible")
    return "spot" if spot else "on-demand"
