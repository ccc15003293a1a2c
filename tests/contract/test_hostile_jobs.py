"""Jobs that mean harm, at every level of isolation, with an agent that is root and one that is not.

The levels differ in what they can prevent; what a level cannot is left out here by name, and stands
in the documentation of that level.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tango_cloud.core.errors import JobRefused, MachineUnreachable, TangoCloudError
from tango_cloud.machine.output import ELISION
from tango_cloud.transports.protocol import Artifacts
from tango_cloud.transports.ssh import SshTransport

from ..virtual_machine import machine as virtual_machine
from . import servers
from .jobs import Keeper, Runner, limits, marker, wait_until_gone, wait_until_there

PYTHON = "/usr/bin/python3"
GROUPED = ("systemd", "cgroup")
LEVELS = (*GROUPED, "bubblewrap", "namespaces", "limits")


class Setting:
    """A machine of one kind, told to use one level."""

    def __init__(self, machine: servers.Server, level: str, root: bool) -> None:
        self.machine = machine
        self.level = level
        self.root = root
        self.isolated = level != "limits"
        self.keeper = Keeper(lambda: SshTransport().connect(machine.endpoint(), 60))

    def wait_until_gone(self, word: str, seconds: float) -> None:
        wait_until_gone(word, seconds * self.machine.patience, self.machine.marked)


ROOT = "root" if os.geteuid() == 0 else "user"
STARTS = {
    ROOT: servers.asyncssh_server,
    "unprivileged": servers.openssh_in_bubblewrap,
}
HERE = [(kind, level) for kind in STARTS for level in LEVELS[2:]]
THERE = [("virtual machine", level) for level in LEVELS]
needs_openssh = pytest.mark.skipif(
    servers.SSHD is None or servers.BWRAP is None,
    reason="OpenSSH's sshd and bubblewrap are not both installed",
)
needs_virtual_machine = pytest.mark.skipif(
    virtual_machine.missing() != "", reason=virtual_machine.missing()
)
MARKS = {
    "unprivileged": [needs_openssh],
    "virtual machine": [pytest.mark.slow, needs_virtual_machine],
}
SETTINGS = [
    pytest.param(pair, id="-".join(pair), marks=MARKS.get(pair[0], [])) for pair in HERE + THERE
]


@pytest.fixture(scope="module", params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> Iterator[Setting]:
    kind, level = request.param
    if kind == "virtual machine":
        start = request.getfixturevalue("whole_machine").told
    else:
        start = STARTS[kind]
    with start(levels=[level]) as machine:
        setting = Setting(machine, level, kind in ("root", "virtual machine"))
        try:
            assert setting.keeper.session().report().level == level
        except TangoCloudError as error:
            if kind == "virtual machine":
                raise
            pytest.skip(f"this host does not give the level: {error}")
        yield setting
        setting.keeper.close()


@pytest.fixture
def job(setting: Setting, tmp_path: Path) -> Iterator[Runner]:
    seconds = 20 * setting.machine.patience
    yield Runner(setting.keeper.session(), tmp_path, seconds)
    # Whatever it was, the next job on the machine is none the worse for it.
    after = Runner(setting.keeper.session(), tmp_path, seconds)
    found = after.says('echo fine; find . "$TMPDIR" | grep -c left-behind || true')
    assert found == "fine\n0\n"


# Not ending


def test_ignores_sigterm(job: Runner, setting: Setting) -> None:
    word = marker()
    started = time.monotonic()
    outcome, _ = job.run(
        f"sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' {word}", wall_seconds=0.3
    )
    assert outcome.timed_out
    assert time.monotonic() - started < 4 * setting.machine.patience
    setting.wait_until_gone(word, 0.1)


def test_may_tidy_up_when_its_time_is_over(job: Runner, setting: Setting) -> None:
    output = job.says(
        "trap 'echo tidied; exit 3' TERM; while :; do sleep 0.05; done",
        wall_seconds=0.3 * setting.machine.patience,
    )
    assert "tidied" in output


DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.closerange(0, 100)
time.sleep(600)
"""


def test_daemonises(job: Runner, setting: Setting) -> None:
    word = marker()
    started = time.monotonic()
    outcome, _ = job.run(f"{PYTHON} daemon.py {word}", "sleep 0.2", files={"daemon.py": DAEMON})
    assert outcome.exit_status == 0
    assert time.monotonic() - started < 3 * setting.machine.patience
    assert not setting.machine.marked(word)


def test_daemon_that_keeps_the_output_open(job: Runner, setting: Setting) -> None:
    word = marker()
    started = time.monotonic()
    outcome, output = job.run(f"(setsid sh -c 'sleep 600; true' {word} &) ; echo done")
    assert outcome.exit_status == 0
    assert output.endswith(b"\ndone\n")
    assert time.monotonic() - started < 3 * setting.machine.patience
    assert not setting.machine.marked(word)


BOMB = """
import os, sys, time
while True:
    try: os.fork()
    except OSError: time.sleep(0.01)
"""


def test_forks_without_end(job: Runner, setting: Setting) -> None:
    word = marker()
    started = time.monotonic()
    outcome, _ = job.run(
        f"{PYTHON} bomb.py {word}",
        files={"bomb.py": BOMB},
        wall_seconds=0.5 * setting.machine.patience,
        processes=60,
    )
    assert outcome.timed_out
    assert time.monotonic() - started < 8 * setting.machine.patience
    assert not setting.machine.marked(word)


def test_processes_are_limited(job: Runner) -> None:
    output = job.says(
        "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 1 & done; echo sixteen",
        processes=8,
    )
    assert "sixteen" not in output


# Hiding what it used


HOARDER = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
held = b"x" * (50 << 20)
while time.process_time() < 0.2: pass
time.sleep(600)
"""


def test_is_killed_before_its_parent_could_tell_what_it_used(job: Runner, setting: Setting) -> None:
    patience = setting.machine.patience
    outcome, _ = job.run(
        f"(setsid {PYTHON} hoarder.py &) ; sleep 600",
        files={"hoarder.py": HOARDER},
        wall_seconds=2 * patience,
    )
    assert outcome.timed_out
    assert 0.1 < outcome.cpu_seconds < 0.8 * patience
    assert 50 << 20 < outcome.peak_memory_bytes < 80 << 20


# Taking too much


def test_fills_the_disk(job: Runner) -> None:
    outcome, output = job.run(
        "n=0; while :; do n=$((n+1)); head -c 5000000 /dev/zero > left-behind-$n; done",
        disk_bytes=30_000_000,
    )
    assert outcome.disk_exceeded
    assert outcome.exit_status is None
    assert output.startswith(b"Autodriver: Job stopped: its disk limit of 30000000 bytes")


def test_fills_the_disk_beside_its_directory(job: Runner) -> None:
    outcome, _ = job.run(
        'n=0; while :; do n=$((n+1)); head -c 5000000 /dev/zero > "$TMPDIR/left-behind-$n"; done',
        disk_bytes=30_000_000,
    )
    assert outcome.disk_exceeded


def test_writes_too_large_a_file(job: Runner) -> None:
    outcome, output = job.run(
        "head -c 5000000 /dev/zero > large; ls -l large | cut -d' ' -f5", file_bytes=1_000_000
    )
    assert b"5000000" not in output
    assert outcome.exit_status is not None


def test_takes_too_much_memory(job: Runner) -> None:
    outcome, output = job.run(f"{PYTHON} -c 'x = bytearray(500_000_000)'", memory_bytes=200_000_000)
    assert outcome.exit_status == 2
    assert b"MemoryError" in output


EATER = """
import time
held = bytearray(60_000_000)
print("held", flush=True)
time.sleep(2)
"""


def test_takes_too_much_memory_by_many_processes(job: Runner, setting: Setting) -> None:
    if setting.level not in GROUPED:
        pytest.skip("the level limits memory for each process")
    # With an error each: what the kernel kills does not end make's line.
    eaters = f"for n in 1 2 3 4 5 6; do {PYTHON} eater.py & done; wait"
    outcome, output = job.run(eaters, files={"eater.py": EATER}, memory_bytes=200_000_000)
    assert 1 <= output.count(b"held") <= 3 or outcome.exit_status
    assert 100_000_000 < outcome.peak_memory_bytes <= 200_000_000


def test_takes_too_much_processor_time(job: Runner, setting: Setting) -> None:
    spin = "for n in 1 2; do sh -c 'while :; do :; done' & done; sleep 600"
    if setting.level not in GROUPED:
        with pytest.raises(JobRefused, match="processor time"):
            job.run(spin, cpus=0.5)
        return
    outcome, _ = job.run(spin, cpus=0.5, wall_seconds=4)
    assert outcome.timed_out
    assert outcome.cpu_seconds < 0.6 * outcome.wall_seconds + 0.5


def test_reserves_much_address_space_without_using_it(job: Runner) -> None:
    outcome, _ = job.run(
        f"{PYTHON} -c 'import mmap; mmap.mmap(-1, 1 << 29, prot=mmap.PROT_READ)'",
        memory_bytes=200_000_000,
    )
    assert outcome.exit_status == 0


def test_prints_without_end(job: Runner, setting: Setting) -> None:
    job.put("exec yes")
    told = 0

    def hear(data: bytes) -> None:
        nonlocal told
        told += len(data)

    outcome = job.session.run(
        limits(wall_seconds=0.4 * setting.machine.patience, output_bytes=10_000), hear
    )
    job.session.get(job.output)
    output = job.output.read_bytes().partition(b"\n")[2]
    assert outcome.timed_out
    assert outcome.output_bytes > 1_000_000
    assert told == 10_000
    assert len(output) == 10_000 + len(ELISION)
    work = setting.machine.work_dir / "agent"
    if os.access(work, os.R_OK):
        assert sum(file.stat().st_size for file in work.iterdir() if file.is_file()) < 50_000


def test_prints_binary(job: Runner) -> None:
    content = bytes(range(256)) * 500
    assert job.run("cat binary", files={"binary": content})[1].partition(b"\n")[2] == content


@pytest.mark.parametrize(("line", "status"), [("exit 137", 2), ("kill -9 $PPID", 137)])
def test_ends_like_killed(job: Runner, line: str, status: int) -> None:
    outcome, output = job.run(line)
    assert outcome.exit_status == status
    assert output.startswith(f"Autodriver: Job exited with status {status}\n".encode())


# Reaching for what is not its own


def test_environment_is_its_own(job: Runner) -> None:
    names = {line.partition("=")[0] for line in job.says("env").splitlines()}
    ours = {"HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "USER"}
    assert ours <= names <= ours | {"PWD", "SHLVL", "_", "MAKEFLAGS", "MAKELEVEL", "MFLAGS",
                                    "MAKE_TERMERR", "MAKE_TERMOUT", "OLDPWD"}  # fmt: skip


def test_reads_the_agents_files(job: Runner, setting: Setting) -> None:
    if setting.level == "limits" and not setting.root:
        pytest.skip("a job of the agent's own user reads what it reads")
    work = setting.machine.work_dir
    output = job.says(f"cat {work}/agent/spool; ls {work}/agent; ls {work}", "true")
    assert "lock" not in output


def test_reads_the_host_key(job: Runner, setting: Setting) -> None:
    if setting.level == "limits" and not setting.root:
        pytest.skip("a job of the agent's own user reads what it reads")
    key = setting.machine.host_key_file
    assert "PRIVATE KEY" in setting.machine.shell(f"cat {key}")
    assert "PRIVATE KEY" not in job.says(f"cat {key} /etc/ssh/ssh_host_*; true")


def test_asks_the_metadata_service(job: Runner, setting: Setting) -> None:
    if not isinstance(setting.machine, virtual_machine.VirtualMachine):
        pytest.skip("only the virtual machine has a metadata service")
    code = "import urllib.request as r; print(r.urlopen('{}', timeout=5).read())"
    line = f'{PYTHON} -c "{code.format(f"http://{virtual_machine.METADATA}/user-data")}"'
    assert "SECRET" in setting.machine.shell(line)
    assert "SECRET" not in job.says(f"{line}; true")


def test_becomes_root(job: Runner) -> None:
    output = job.says("(sudo -n id -u; su -c 'id -u' </dev/null; id -u) 2>/dev/null")
    assert len(output.split()) == 1
    assert output != "0\n"


def test_reads_what_only_root_may(job: Runner) -> None:
    output = job.says("cat /etc/shadow; echo; id -u")
    assert "root:" not in output
    assert not output.endswith("\n0\n")


def test_sees_no_other_processes(job: Runner, setting: Setting) -> None:
    if not setting.isolated:
        pytest.skip("the level does not hide processes")
    output = job.says("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "sshd" not in output
    assert "pytest" not in output


def test_writes_beside_its_directories(job: Runner, setting: Setting) -> None:
    if not setting.isolated:
        pytest.skip("the level does not hide files")
    places = "/left-behind /usr/left-behind /etc/left-behind /var/left-behind /dev/left-behind"
    output = job.says(f"for p in {places}; do echo x > $p && echo wrote $p; done; true")
    assert "wrote" not in output


@pytest.fixture
def secret(setting: Setting) -> Iterator[str]:
    """A file on the machine that no job may read."""
    folder = setting.machine.shell("mktemp -d").strip()
    setting.machine.shell(f"chmod 711 {folder}; umask 077; printf 'TOP SECRET' >{folder}/secret")
    yield f"{folder}/secret"
    assert setting.machine.shell(f"cat {folder}/secret; rm -r {folder}") == "TOP SECRET"


@pytest.mark.parametrize("target", ["secret", "/etc/shadow"])
def test_puts_links_where_output_or_input_is_expected(
    job: Runner, setting: Setting, target: str, secret: str
) -> None:
    machine = setting.machine
    aim = secret if target == "secret" else target
    look = f"stat -c '%i %s %a %u' {aim}"
    before = machine.shell(look)
    folder, work = Path(aim).parent, machine.work_dir
    lines = [
        f"rm -f Makefile; ln -s {aim} Makefile; ln -s {aim} output; ln -s {aim} spool",
        f"mkdir d; ln -s {folder} d/link; ln -s {folder} link",
        f"cd ..; mv job away; ln -s {folder} job; rm -rf tmp; ln -s {folder} tmp; true",
        f"cd {work} && rm -rf agent && ln -s {folder} agent; true",
    ]
    for line in lines:
        with suppress(TangoCloudError):
            output = job.run(f"{line} 2>/dev/null")[1]
            assert b"TOP SECRET" not in output
            assert b"root:" not in output
    assert machine.shell(look) == before != ""


def test_puts_links_where_artifacts_are_expected(
    job: Runner, setting: Setting, secret: str
) -> None:
    name, folder = "secret", Path(secret).parent
    lines = [
        f"ln -s {secret} {name}; mkdir d; ln -s {secret} d/{name}; ln -s {folder} d/d",
        f"ln -s {folder} d; rm -f Makefile; ln {secret} {name}; true",
        f"cd ..; mv job away; ln -s {folder} job; true",
        f"cd {setting.machine.work_dir} && rm -rf agent/artifacts; ln -s {secret} agent/artifacts",
    ]
    asked = Artifacts((name, f"d/{name}", f"d/d/{name}", "Makefile"), 10_000)
    for number, line in enumerate(lines):
        local = job.folder / f"local-{number}"
        job.put(f"{{ {line}; }} 2>/dev/null; echo own > own")
        with suppress(TangoCloudError):
            job.session.run(limits(), artifacts=asked)
            job.session.collect(local, 10_000)
        came = [path.read_text() for path in local.rglob("*") if path.is_file()]
        if setting.isolated or setting.root:  # else the job reads what the agent reads
            assert not any("TOP SECRET" in content for content in came)


def test_reaches_the_network_only_when_it_may(job: Runner, setting: Setting) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', {port}), 9); print('reached')"
    line = f'{PYTHON} -c "{code.format(port=setting.machine.ssh_port)}"'
    assert "reached" in job.says(line, network=True)
    if not setting.isolated:
        with pytest.raises(JobRefused, match="network"):
            job.run(line, network=False)
        return
    assert "reached" not in job.says(line, network=False)
    own = "import socket as s; l = s.create_server(('127.0.0.1', 0)); "
    own += "s.create_connection(l.getsockname(), 2); print('itself')"
    assert "itself" in job.says(f'{PYTHON} -c "{own}"', network=False)


# Leaving something behind (what it leaves is looked for by the fixture `job`)


def test_leaves_files_for_the_next_job(job: Runner) -> None:
    job.run('for d in . "$HOME" "$TMPDIR"; do echo x > "$d/left-behind"; done')


def test_leaves_files_in_shared_places(job: Runner, setting: Setting) -> None:
    if not setting.isolated:
        pytest.skip("the level has no places of its own but the directory and TMPDIR")
    places = "/tmp /var/tmp /dev/shm"
    job.run(f"for d in {places}; do echo x > $d/left-behind-2; done")
    assert job.says(f"ls {places}").count("left-behind") == 0


KEYS = """
import ctypes, platform, sys
ADD, KEYCTL = (248, 250) if platform.machine() == "x86_64" else (217, 219)
call = ctypes.CDLL(None, use_errno=True).syscall
PERSISTENT = call(KEYCTL, 22, -1, -2)
for ring in (-3, -4, -5, PERSISTENT):
    if sys.argv[1] == "leave":
        print(call(ADD, b"user", b"left-behind", b"answers", 7, ring) > 0)
    else:
        print(call(KEYCTL, 10, ring, b"user", b"left-behind", 0) > 0)
"""


def test_leaves_a_key_with_the_kernel(job: Runner, setting: Setting) -> None:
    if not (setting.root or setting.isolated):
        pytest.skip("a job of the agent's own user reads what it reads")
    left = job.says(f"{PYTHON} keys.py leave", files={"keys.py": KEYS})
    assert "True" in left, "else there is nothing to be found"
    assert "True" not in job.says(f"{PYTHON} keys.py find", files={"keys.py": KEYS})


THIEF = """
import glob, os, shutil, sys, time
if os.fork(): os._exit(0)
os.setsid()
while True:
    for name in glob.glob(sys.argv[1] + "/*"):
        for place in ("/tmp", "/var/tmp", "/dev/shm", os.environ["TMPDIR"]):
            try: shutil.copy(name, f"{place}/{sys.argv[2]}-{os.path.basename(name)}")
            except OSError: pass
    time.sleep(0.05)
"""


def test_waits_for_the_next_jobs_input(job: Runner, setting: Setting) -> None:
    word = marker()
    job.run(f'{PYTHON} thief.py "$PWD" {word}; sleep 0.3', files={"thief.py": THIEF})
    assert not setting.machine.marked(word)
    job.run("sleep 0.3", files={"answers": "TOP SECRET"})
    stolen = f'/tmp/{word}-* /var/tmp/{word}-* /dev/shm/{word}-* "$TMPDIR"/{word}-*'
    assert "TOP SECRET" not in job.says(f"cat {stolen} 2>/dev/null; rm -f {stolen}")


def test_leaves_a_cron_entry(job: Runner, setting: Setting) -> None:
    line = "* * * * * echo left-behind-cron"
    job.run(
        f"echo '{line}' >entry; crontab entry; at -f entry now",
        f"for f in /etc/cron.d/x /etc/crontab /var/spool/cron/crontabs/$USER /etc/cron.daily/x; do"
        f" echo '{line}' >>$f; done; true",
    )
    places = "/etc/crontab /etc/cron.* /var/spool/cron"
    assert "left-behind-cron" not in setting.machine.shell(f"grep -rs left-behind-cron {places}")


SERVER = """
import os, socket
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
os.closerange(0, 3)
while True: listener.accept()
"""


def test_leaves_a_listening_port(job: Runner) -> None:
    port = job.says(f"{PYTHON} server.py; sleep 1", files={"server.py": SERVER}).split()[-1]
    code = f"import socket; socket.create_connection(('127.0.0.1', {int(port)}), 5)"
    assert "ConnectionRefusedError" in job.says(f'{PYTHON} -c "{code}"; true')


def test_deletes_its_own_directory(job: Runner) -> None:
    outcome, output = job.run('rm -rf "$PWD" 2>/dev/null; echo deleted')
    assert output.endswith(b"\ndeleted\n")
    assert outcome.exit_status == 0


def test_takes_away_all_rights(job: Runner) -> None:
    job.run("mkdir -p left-behind/b/c; echo x > left-behind/b/c/d", "chmod 0 left-behind/b/c",
            "chmod 0 left-behind/b left-behind; chmod 0 .")  # fmt: skip


def test_nests_deeper_than_paths_reach(job: Runner) -> None:
    code = "import os\nfor _ in range(500):\n  os.mkdir('left-behind'); os.chdir('left-behind')\n"
    job.run(f"{PYTHON} nest.py", files={"nest.py": code})


# The agent's end is the job's


def test_dies_with_the_agent(job: Runner, setting: Setting) -> None:
    word = marker()
    job.put(f"sh -c 'sleep 600; true' {word}")
    _run_until_the_agent_is_killed(job, setting, word)
    setting.wait_until_gone(word, 3)


def test_its_daemons_die_with_the_agent(job: Runner, setting: Setting) -> None:
    word = marker()
    job.put(f"{PYTHON} daemon.py {word}", "sleep 600", files={"daemon.py": DAEMON})
    _run_until_the_agent_is_killed(job, setting, word)
    setting.wait_until_gone(word, 3)


def _run_until_the_agent_is_killed(job: Runner, setting: Setting, word: str) -> None:
    patience = setting.machine.patience
    with ThreadPoolExecutor() as pool:
        running = pool.submit(job.session.run, limits(wall_seconds=300))
        wait_until_there(word, 10 * patience, setting.machine.marked)
        setting.machine.kill_agents()
        with pytest.raises(MachineUnreachable):
            running.result(timeout=10 * patience)


def test_input_modes_do_not_give_other_users_a_way_in(job: Runner, setting: Setting) -> None:
    job.put("true", files={"private": "x"})
    work = setting.machine.work_dir
    assert setting.machine.shell(f"stat -c %a {work}/job") == "700\n"
