"""The few system calls that isolation needs and Python 3.9 does not have, through ctypes (Linux).

Every function raises OSError with the call's errno; on other systems, or where Python came without
ctypes, with ENOSYS.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

try:
    import ctypes

    _libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
except (ImportError, OSError):  # a cut-down Python, or a libc that cannot be loaded by name
    _libc = None

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21

_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}
_JOIN_SESSION_KEYRING, _CLEAR, _GET_PERSISTENT = 1, 7, 22
_PROCESS_KEYRING, _USER_KEYRING, _USER_SESSION_KEYRING = -2, -4, -5
_NO_KEYS = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
"""Said where the kernel, or a container, has no keyrings of a kind for anybody."""
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}


def _call(name: str, *arguments: Any) -> None:
    if _libc is None:
        raise OSError(errno.ENOSYS, f"{name}: not on this system")
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send `signal_number` to this process when its parent's thread ends.

    Survives exec, not a change of user: call it after that.
    """
    _call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0)


def adopt_orphans() -> None:
    """Make descendants whose parent ends children of this process, instead of init's."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)


def no_new_privileges() -> None:
    """From here on, no set-user-id program gives this process or its children anything."""
    _call("prctl", _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0)


def unshare(flags: int) -> None:
    _call("unshare", ctypes.c_int(flags))


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    try:
        _call(
            "mount",
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(kind),
            ctypes.c_ulong(flags),
            os.fsencode(options),
        )
    except OSError as error:
        raise OSError(error.errno, f"mount {target}: {os.strerror(error.errno or 0)}") from None


def change_root(new_root: str) -> None:
    """Make the mount `new_root` the root of this mount namespace, and drop the old one.

    Putting the old root on top of the new one needs no directory for it, and detaching it then
    uncovers the new one.
    """
    os.chdir(new_root)
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"pivot_root: number unknown on {os.uname().machine}")
    _call("syscall", ctypes.c_long(number), b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def new_session_keyring() -> None:
    """Have a session keyring of one's own, empty, instead of the one that was inherited."""
    _keyctl(_JOIN_SESSION_KEYRING, 0, 0)


def clear_user_keyrings() -> None:
    """Empty what the kernel keeps of this user's keys, which outlives every process."""
    for keyring in (_USER_KEYRING, _USER_SESSION_KEYRING):
        with _unless_there_are_none():
            _keyctl(_CLEAR, keyring, 0)
    with _unless_there_are_none():
        _keyctl(_CLEAR, _keyctl(_GET_PERSISTENT, -1, _PROCESS_KEYRING), 0)


@contextlib.contextmanager
def _unless_there_are_none() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_KEYS:
            raise


def _keyctl(operation: int, one: int, two: int) -> int:
    number = _SYS_KEYCTL.get(os.uname().machine)
    if _libc is None or number is None:
        raise OSError(errno.ENOSYS, "keyctl: not on this system")
    words = [ctypes.c_long(word) for word in (number, operation, one, two)]
    result = int(_libc.syscall(*words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"keyctl: {os.strerror(code)}")
    return result
