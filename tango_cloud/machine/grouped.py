"""The levels "systemd" and "cgroup": the view of "namespaces", and each job in a cgroup of its own.

They differ in who made room for the groups, systemd or the agent itself.
"""

from __future__ import annotations

from tango_cloud.machine.cgroups import Group, Groups
from tango_cloud.machine.facts import Facts
from tango_cloud.machine.namespaces import Namespaces


class Grouped(Namespaces):
    whole_job = True

    def __init__(self, name: str, groups: Groups) -> None:
        self.name = name
        self._groups = groups

    def group(self, facts: Facts) -> Group:
        return self._groups.make(facts)
