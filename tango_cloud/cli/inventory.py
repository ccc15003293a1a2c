"""`tango-cloud inventory`: the machines that can be used, for Ansible."""

from __future__ import annotations

from typing import Annotated

import typer

from tango_cloud.api import Cloud
from tango_cloud.cli.display import print_json
from tango_cloud.core.errors import Fault, InputError


def inventory(
    everything: Annotated[
        bool, typer.Option("--list", help="Print all groups and machines. [default]")
    ] = False,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="Print one machine's variables.")
    ] = None,
) -> None:
    """Tell Ansible which machines can be used, by provider, image and pool.

    Ansible calls it itself: `ansible/inventory` is a program that does nothing else.

    **Examples:** `tango-cloud inventory | jq '.pool_course.hosts'` ·
    `ansible-playbook -i ansible/inventory -l provider_aws course.yml`
    """
    if everything and host is not None:
        raise typer.BadParameter("either --list, or --host NAME")
    with Cloud() as cloud:
        told = cloud.ansible_inventory()
    if host is None:
        print_json(told)
        return
    variables = told["_meta"]["hostvars"]
    if host not in variables:
        known = ", ".join(variables) or "there is none"
        raise InputError([Fault(host, "no such machine that can be used", known)])
    print_json(variables[host])
