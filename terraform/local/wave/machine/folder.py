"""A machine's folder on disk: its document, its lock, and its removal."""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import stat
from pathlib import Path

INSTANCE_ID = re.compile(r"i-[0-9a-f]{12}")


class MachineError(Exception):
    """The machine could not be started or stopped. The message is for a person."""


def instance_folder(root, instance_id):
    """Where the machine stands. Raises MachineError when this is no instance id."""
    if not INSTANCE_ID.fullmatch(instance_id):
        raise MachineError(f"not an instance id: {instance_id!r}")
    return root / "instances" / instance_id


def staging_folder(root, instance_id):
    """Where its folder is made. A listing of the instances leaves names with a dot out."""
    return root / "instances" / f".new-{instance_id}"


def outside_work_dir(instance_id):
    """The driver's folder of a machine that is not isolated but runs jobs as another user.

    That user could not pass through to a folder below `root`, which is often in a closed home.
    """
    return Path("/var/tmp") / f"tango-cloud-{instance_id}"  # noqa: S108


def write_private(path, text):
    """Write a file that only its owner can read, from its first moment on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)


def write_document(folder, document):
    """Replace the instance document atomically: whoever reads it sees the old or the new one."""
    temporary = folder / "instance.json.new"
    write_private(temporary, json.dumps(document, indent=2, sort_keys=True) + "\n")
    temporary.rename(folder / "instance.json")


def update_document(folder, **changes):
    """The document with `changes`, written. The caller holds the lock.

    Raises FileNotFoundError when there is none, MachineError when it is damaged.
    """
    path = folder / "instance.json"
    try:
        document = json.loads(path.read_text()) | changes
    except ValueError as error:
        raise MachineError(f"{path} is damaged: {error}") from error
    write_document(folder, document)
    return document


@contextlib.contextmanager
def locked(folder):
    """Hold the folder's lock; yields False where there is no such folder (any more)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield is_at(folder, descriptor)
    finally:
        os.close(descriptor)


def is_at(folder, descriptor):
    """Whether the open folder is still the one at this path: its last holder may have moved it."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def remove_tree(top):
    """Remove `top`, whatever a job made of it: closed folders, folders nested without end.

    A folder's sub-folders are lifted to just below `top` before it is removed, so that no path
    grows long and nothing recurses. Symbolic links are removed, never followed. Absent is success,
    also when another process removes the same tree at the same time.
    """
    lifted = f"{secrets.token_hex(8)}-"
    count = 0
    pending = [top]
    while pending:
        folder = pending[-1]
        try:
            subfolders = remove_files(folder)
            if folder == top and subfolders:
                pending += [top / name for name in subfolders]
                continue
            for name in subfolders:
                (folder / name).chmod(0o700)  # moving a folder writes its `..`
                count += 1
                (folder / name).rename(top / f"{lifted}{count}")
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            continue
        pending.pop()


def remove_files(folder):
    """Remove what is no folder in `folder`, or `folder` if it is none; the sub-folders' names."""
    if not stat.S_ISDIR(folder.lstat().st_mode):
        folder.unlink()
        raise FileNotFoundError(folder)
    folder.chmod(0o700)
    with os.scandir(folder) as scan:
        entries = list(scan)
    subfolders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            (folder / entry.name).unlink(missing_ok=True)
    return subfolders
