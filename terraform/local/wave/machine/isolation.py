"""What stands around a machine's server: bubblewrap, the expiry, the limits, the supervisor."""

import ctypes
import os
import pwd
import resource
import shutil
import sys
from pathlib import Path

from folder import MachineError, write_private

INSIDE = Path("/machine")
"""Where an isolated machine sees its own folder."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPEN_FILES = 4096
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
PR_SET_CHILD_SUBREAPER = 36

# $1 python, $2 machine program, $3 root, $4 instance id, then the server's command.
#
# Its input is a pipe from `start`: a first word when the folder is there, a second once the machine
# runs. When the pipe closes before, `start` was killed (as Terraform does when it is interrupted),
# and nobody is going to know of this machine: whatever there is of it is removed. The inner shell's
# `exec` keeps its pid: what it writes is the pid of the server's command. That runs in the
# foreground: what a shell runs in the background ignores SIGINT, and so would every job.
SUPERVISOR = """
python=$1 program=$2 root=$3 id=$4
shift 4
exec 3<&0 </dev/null
if read -r word <&3; then
    folder=$root/instances/$id
    program=$folder/program
    exec >>"$folder/console.log" 2>&1
    (
        read -r word <&3 && exit
        until [ -s "$folder/pid" ]; do sleep 0.02; done
        kill -KILL "$(cat "$folder/pid")"
    ) &
    exec 3<&-
    /bin/sh -c 'echo $$ >"$0.new" && mv "$0.new" "$0" && exec "$@"' "$folder/pid" "$@"
fi
exec "$python" -I -S "$program" stop "$root" "$id"
"""


def which(program):
    """The full path of an installed program. Raises MachineError when it is not there."""
    found = shutil.which(program, path=SYSTEM_PATH)
    if found is None:
        raise MachineError(f"{program} is not installed on this host")
    return found


def prepare_supervisor():
    """Runs in the supervisor before it becomes one: limits, and the adoption of orphans.

    As a "child subreaper" it becomes the parent of whatever daemonises below it, so that `stop`
    finds the whole machine by walking down from one process.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def expiring(argv, seconds):
    """`argv`, killed after `seconds` though none of us be alive.

    By KILL: it must hold against a machine that does not want to go. Systems without coreutils have
    only asyncssh's server, which keeps its own time.
    """
    timeout = shutil.which("timeout", path=SYSTEM_PATH)
    return argv if timeout is None else [timeout, "-s", "KILL", f"{seconds:.3f}", *argv]


def bubblewrap(folder, hostname):
    """bwrap and its options: the system read-only, everything else this machine's own.

    Only what is named here is to be seen in the machine. /tmp and /dev/shm are folders on disk, so
    that a job which fills them does not fill the host's memory.
    """
    argv = [
        which("bwrap"),
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        *("--hostname", hostname),
    ]
    for path in SYSTEM_FOLDERS:
        if Path(path).is_symlink():
            argv += ["--symlink", str(Path(path).readlink()), path]
        else:
            argv += ["--ro-bind-try", path, path]
    for path in ("/etc", "/opt", "/nix", "/sys"):
        argv += ["--ro-bind-try", path, path]
    argv += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "--dir", "/run/sshd"]
    for name in ("passwd", "group", "shadow"):
        argv += ["--ro-bind", str(folder / "identity" / name), f"/etc/{name}"]
    argv += ["--dir", "/var"]
    for name, where in (("tmp", "/tmp"), ("tmp", "/var/tmp"), ("shm", "/dev/shm")):  # noqa: S108
        argv += ["--bind", str(folder / name), where]
    argv += ["--bind", str(folder / "inside"), str(INSIDE)]
    argv += ["--bind", str(folder / "inside" / "home" / "course"), "/course"]
    # The interpreter and the resolver's file may stand outside what is shown above. Folders on the
    # way are named one by one: bwrap would close those it makes unasked to the job's user.
    environment = Path(sys.executable).parent.parent
    for path in (Path(sys.base_prefix), environment, Path("/etc/resolv.conf").resolve()):
        if not any(path.is_relative_to(top) for top in ("/usr", "/etc", "/opt", "/nix")):
            for ancestor in reversed(path.parents[:-1]):
                argv += ["--dir", str(ancestor)]
            argv += ["--ro-bind-try", str(path), str(path)]
    return [*argv, "--chdir", "/"]


def login_name():
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # Containers often run under a user id that has no entry.
        return "tango"


def write_identity(identity, username, job_user):
    """passwd, group and shadow of an isolated machine: the host's, with the login's home moved.

    `*` as the password means that none fits, without the account counting as locked.
    """
    identity.mkdir(mode=0o700)
    uid, gid = os.geteuid(), os.getegid()
    people = [f"{username}:*:{uid}:{gid}::{INSIDE}/home:/bin/sh"]
    groups = []
    if job_user is not None:
        people.append(f"tango-job:*:{job_user}:{job_user}::{INSIDE}/work:/bin/sh")
        groups.append(f"tango-job:x:{job_user}:")
    write_merged(identity / "passwd", people, {str(uid), str(job_user)})
    write_merged(identity / "group", groups, {str(job_user)})
    write_private(
        identity / "shadow", "".join(f"{line.split(':')[0]}:*:1::::::\n" for line in people)
    )


def write_merged(path, ours, taken):
    """`ours`, then the host's lines of the same file that share no name or number with them."""
    names = {line.split(":")[0] for line in ours}
    lines = (Path("/etc") / path.name).read_text(errors="replace").splitlines()
    others = [
        line
        for line in lines
        if len(fields := line.split(":")) > 2 and fields[0] not in names and fields[2] not in taken
    ]
    path.write_text("\n".join([*ours, *others]) + "\n")
    path.chmod(0o644)
