"""tango_cloud: runs jobs on machines that Terraform makes.

`TangoCloud` is the VMMS for a Tango server, `Cloud` the API for everybody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tango_cloud.api import Cloud
    from tango_cloud.vmms import TangoCloud

__all__ = ["Cloud", "TangoCloud"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Loaded when asked for: the driver, which runs from this package too, needs neither.
    if name == "Cloud":
        from tango_cloud.api import Cloud

        return Cloud
    if name == "TangoCloud":
        from tango_cloud.vmms import TangoCloud

        return TangoCloud
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
