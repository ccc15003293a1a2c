"""The VMMS: the object through which Autolab's Tango drives its machines."""

from tango_cloud.vmms.adapter import TangoCloud
from tango_cloud.vmms.translation import ListedVM

__all__ = ["ListedVM", "TangoCloud"]
