"""The VMMS: the object through which Autolab's Tango drives its machines."""

from tango_cloud.vmms.adapter import ListedVM, TangoCloud

__all__ = ["ListedVM", "TangoCloud"]
