"""The end of machines."""

import contextlib
import os

from folder import (
    instance_folder,
    locked,
    outside_work_dir,
    remove_tree,
    staging_folder,
    update_document,
)
from processes import kill, kill_left_behind


def stop(root, instance_ids):
    """Kill everything of these machines, wait until it is dead, remove their folders.

    Unknown and half-made machines are success. Raises MachineError when an id is none, a document
    is damaged, or a process outlives its SIGKILL: the entry in the inventory stays then.
    """
    removing = root / "removing"
    # In one order, so that two stops of the same machines do not wait for each other's second lock.
    ids = sorted(set(instance_ids))
    with contextlib.ExitStack() as locks:
        present = {}
        for instance_id in ids:
            folder = instance_folder(root, instance_id)
            if locks.enter_context(locked(folder)):
                present[instance_id] = folder
        machines = []
        for folder in present.values():
            with contextlib.suppress(FileNotFoundError):
                machines.append(update_document(folder, status="stopping"))
        if machines:
            kill(machines)
        kill_left_behind([instance_folder(root, instance_id) for instance_id in ids])
        # In the inventory a machine is there with all its files, or not at all.
        for instance_id, folder in present.items():
            removing.mkdir(mode=0o700, exist_ok=True)
            folder.rename(removing / f"{instance_id}-{os.getpid()}")
    for instance_id in ids:
        for leftover in (
            staging_folder(root, instance_id),
            *removing.glob(f"{instance_id}-*"),
            outside_work_dir(instance_id),
        ):
            remove_tree(leftover)
