"""What one job costs on a warm machine, beyond the job itself.

A machine gets ready for its next job while it has nothing to do. So there are two figures: of jobs
that come now and then, and of jobs back to back, where getting ready is part of the way.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import paramiko

from bench import openssh, report
from bench.deployment import (
    BARE_SSHD,
    FROM_PIP,
    ISOLATED,
    READY_SECONDS,
    Kind,
    fleet_of,
    settings_of,
)
from bench.jobs import FILE_BYTES, FILES, write_job
from bench.series import Series, interleave
from tango_cloud import TangoCloud
from tango_cloud.core.model import Endpoint, Machine, MachineKey
from tango_cloud.core.settings import Settings
from tango_cloud.jobs.job import load_directory
from tango_cloud.jobs.limits import limits
from tango_cloud.machine.levels import STRONGEST_FIRST
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.keys import client_key
from tango_cloud.transports.protocol import InputFile, RunLimits, Session
from tango_cloud.transports.ssh import SshTransport
from tango_cloud.wiring import state_folder

ROUNDS = 90
STOCK_EVERY = 30
"""Rounds between two of the stock way, which takes seconds: it is run in among the others."""
BLOCK = 10
"""How many jobs follow each other at once, back to back."""
PAUSE_SECONDS = 0.02
OURS, STOCK, FLOOR = "copyIn + runJob + copyOut", "stock: ssh, scp", "floor: 3 exec channels"
_KEY = MachineKey("bench", 1000, "local")
_VM = SimpleNamespace(id=_KEY.id, name=_KEY.name, image="local.img")


def main() -> None:
    report.say("## Overhead of one job on a warm machine")
    report.say(
        f"{FILES} files of {FILE_BYTES} bytes in, `make` of a Makefile that does nothing, output "
        f"out; medians of {ROUNDS} rounds in ms, quartiles in brackets. Pauses of "
        f"{PAUSE_SECONDS * 1000:.0f} ms between jobs, but for `back to back`. `files`: creating "
        "and removing as many files there, by themselves; what the file system takes."
    )
    kinds = []
    for kind in (ISOLATED, BARE_SSHD, FROM_PIP):
        obstacle = kind.obstacle()
        if obstacle:
            report.say(f"Left out: machines of the kind {kind}: {obstacle}")
        else:
            kinds.append(kind)
    if openssh.missing():
        report.say(f"Left out: the stock way: {openssh.missing()}")
    measured = [_Measurement(kind) for kind in kinds]
    for each in measured:
        each.take()
    _print_comparison(measured)
    _print_steps(measured)
    _print_levels(measured)


class _Measurement:
    """All figures of one kind of machine."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.level = ""
        self.levels: list[str] = []
        self.jobs = Series()
        self.back_to_back = Series()
        self.steps = Series()
        self.by_level = Series()

    def take(self) -> None:
        report.progress(f"job overhead, {self.kind}")
        with settings_of(self.kind) as settings, fleet_of(settings) as fleet, ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            files = load_directory(write_job(scratch / "job"))
            key_file = str(client_key(state_folder(settings)).file)
            vmms = TangoCloud()
            _expect(vmms.initializeVM(_VM), "initializeVM")
            _expect(vmms.waitVM(_VM, READY_SECONDS), "waitVM")
            machine = fleet.wait(_KEY, READY_SECONDS)
            self.level = fleet.session(_KEY).report().level
            bench = _Bench(fleet, vmms, machine, _endpoint(machine, key_file), files, scratch)
            self._compare(bench)
            self._split(bench, limits(settings.job))
            self._compare_levels(bench, settings, stack)

    def _compare(self, bench: _Bench) -> None:
        connection = _connect_bare(bench.endpoint)
        contenders: dict[str, Callable[[], object]] = {
            OURS: bench.by_vmms,
            FLOOR: lambda: _three_channels(connection),
        }
        stock = None if openssh.missing() else openssh.StockClient(bench.endpoint)
        interleave(contenders, 5, Series())
        for _ in range(ROUNDS // STOCK_EVERY):
            if stock is not None:
                with self.jobs.timing(STOCK):
                    stock.run_job(bench.files, bench.output)
            interleave(contenders, STOCK_EVERY, self.jobs, PAUSE_SECONDS)
        for number in range(2 * ROUNDS):
            name = OURS if number // BLOCK % 2 == 0 else FLOOR
            with self.back_to_back.timing(name):
                contenders[name]()
        connection.close()

    def _split(self, bench: _Bench, wanted: RunLimits) -> None:
        """The same through the session alone, step by step: no ledger, no integers."""
        session = bench.fleet.session(_KEY)
        for _ in range(ROUNDS):
            time.sleep(PAUSE_SECONDS)
            with self.steps.timing("put"):
                session.put(bench.files)
            with self.steps.timing("run"):
                session.run(wanted)
            with self.steps.timing("get"):
                session.get(bench.output)
            with self.steps.timing("waitVM"):
                bench.vmms.waitVM(_VM, READY_SECONDS)

    def _compare_levels(self, bench: _Bench, settings: Settings, stack: ExitStack) -> None:
        """A job at each level of isolation that this machine can give, told to give just that."""
        root = settings.state_dir / "local" / "instances" / bench.machine.instance_id
        facts = root / "inside" / "etc" / "machine.json"
        told = json.loads(facts.read_text())
        work_dir = root / "inside" / "work" if self.kind.isolate == "yes" else told["work_dir"]
        for _ in range(ROUNDS):
            with self.steps.timing("files"):
                _touch_files(Path(work_dir))
        contenders: dict[str, Callable[[], object]] = {}
        wanted = limits(settings.job)
        for level in STRONGEST_FIRST:
            facts.write_text(json.dumps(told | {"levels": [level.name]}))
            # An agent reads it once, when its session begins.
            session = SshTransport().connect(bench.endpoint, READY_SECONDS)
            stack.callback(session.close)
            try:
                session.report()
            except Exception as error:
                report.progress(f"{self.kind}: no {level.name}: {error}")
                continue
            self.levels.append(level.name)
            contenders[level.name] = bench.by_session(session, wanted)
        facts.write_text(json.dumps(told))
        interleave(contenders, 5, Series())
        interleave(contenders, ROUNDS, self.by_level, PAUSE_SECONDS)


class _Bench:
    """A warm machine, and ways to do the job on it."""

    def __init__(
        self,
        fleet: Fleet,
        vmms: TangoCloud,
        machine: Machine,
        endpoint: Endpoint,
        files: Sequence[InputFile],
        scratch: Path,
    ) -> None:
        self.fleet = fleet
        self.vmms = vmms
        self.machine = machine
        self.endpoint = endpoint
        self.files = files
        self.output = scratch / "output"
        # As Tango hands them in.
        self._tango_files = [
            SimpleNamespace(localFile=str(file.local), destFile=file.destination) for file in files
        ]

    def by_vmms(self) -> None:
        _expect(self.vmms.copyIn(_VM, self._tango_files), "copyIn")
        _expect(self.vmms.runJob(_VM, 60, 1 << 20), "runJob")
        _expect(self.vmms.copyOut(_VM, str(self.output)), "copyOut")

    def by_session(self, session: Session, wanted: RunLimits) -> Callable[[], None]:
        def job() -> None:
            session.put(self.files)
            session.run(wanted)
            session.get(self.output)

        return job


def _endpoint(machine: Machine, key_file: str) -> Endpoint:
    return Endpoint(machine.address, machine.port, machine.username, (machine.host_key,), key_file)


def _connect_bare(endpoint: Endpoint) -> paramiko.SSHClient:
    """A connection of paramiko's own kind, with the one switch that makes it fast."""
    connection = socket.create_connection((endpoint.address, endpoint.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy)
    client.connect(
        endpoint.address,
        endpoint.port,
        endpoint.username,
        key_filename=endpoint.client_key_file,
        look_for_keys=False,
        allow_agent=False,
        sock=connection,
    )
    return client


def _three_channels(connection: paramiko.SSHClient) -> None:
    for _ in range(3):
        _, stdout, _ = connection.exec_command("true")
        _expect(stdout.channel.recv_exit_status(), "true")


def _touch_files(folder: Path) -> None:
    paths = [folder / f"bench{number}" for number in range(FILES)]
    for path in paths:
        path.touch(exist_ok=False)
    for path in paths:
        path.unlink()


def _expect(answer: int, what: str) -> None:
    if answer != 0:
        raise RuntimeError(f"{what} answered {answer}")


def _print_comparison(measured: Sequence[_Measurement]) -> None:
    rows = []
    for each in measured:
        jobs, together = each.jobs, each.back_to_back
        ours, floor = jobs.median(OURS), jobs.median(FLOOR)
        stock, gain = "-", "-"
        if jobs.count(STOCK):
            stock = f"{report.milliseconds(jobs.median(STOCK))} ({report.spread(jobs, STOCK)})"
            gain = report.times(jobs.median(STOCK) / ours)
        rows.append(
            [
                f"{each.kind}, level {each.level}",
                f"{report.milliseconds(ours)} ({report.spread(jobs, OURS)})",
                stock,
                f"{report.milliseconds(floor)} ({report.spread(jobs, FLOOR)})",
                gain,
                report.times(ours / floor),
                report.milliseconds(together.median(OURS)),
                report.times(together.median(OURS) / together.median(FLOOR)),
            ]
        )
    header = ["machine", f"ours: {OURS}", STOCK, FLOOR, "stock / ours", "ours / floor"]
    report.table([*header, "back to back: ours", "ours / floor"], rows)


def _print_steps(measured: Sequence[_Measurement]) -> None:
    report.say("The steps by themselves, and `waitVM` on a machine that is ready:")
    names = ("put", "run", "get", "waitVM", "files")
    report.table(
        ["machine", *names],
        [
            [str(each.kind), *(report.milliseconds(each.steps.median(name)) for name in names)]
            for each in measured
        ],
    )


def _print_levels(measured: Sequence[_Measurement]) -> None:
    report.say("The same job at each level of isolation that the machine can give:")
    names = [level.name for level in STRONGEST_FIRST]
    rows = []
    for each in measured:
        cells = []
        least = each.by_level.median("limits") if "limits" in each.levels else 0.0
        for name in names:
            if name not in each.levels:
                cells.append("-")
                continue
            median = each.by_level.median(name)
            cells.append(f"{report.milliseconds(median)} ({(median - least) * 1000:+.1f})")
        rows.append([str(each.kind), *cells])
    report.table(["machine", *names], rows)


if __name__ == "__main__":
    report.say(report.host())
    main()
