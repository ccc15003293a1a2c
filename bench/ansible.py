"""One job, and as many jobs at once as there are machines, by each transport and by other tools.

Every way begins without a connection and ends with every output here.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import push_tools, report
from bench.deployment import ISOLATED, READY_SECONDS, fleet_of, settings_of
from bench.jobs import FILE_BYTES, FILES, write_job
from bench.series import Series
from bench.ways import LIFETIME, at_once
from tango_cloud.api import shape_or
from tango_cloud.core.model import Endpoint
from tango_cloud.core.settings import Settings
from tango_cloud.jobs.job import load_directory
from tango_cloud.jobs.limits import limits
from tango_cloud.machine.syscalls import adopt_orphans
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.keys import client_key
from tango_cloud.transports.ansible.transport import AnsibleTransport
from tango_cloud.transports.protocol import InputFile, RunLimits, Transport
from tango_cloud.transports.ssh import SshTransport
from tango_cloud.wiring import state_folder

HOSTS = 50
ROUNDS = 3
"""Of one job; of many at once there is one."""
SSH, ANSIBLE, UNSHARED = "ours: ssh", "ours: ansible", "ours: ansible, no run shared"

Way = Callable[[Sequence[Endpoint]], object]


def main(hosts: int = HOSTS, *, unshared: bool = False) -> None:
    report.say(f"## One job, and {hosts} at once, by ssh, by Ansible and by others")
    if obstacle := ISOLATED.obstacle():
        report.say(f"Left out: {obstacle}")
        return
    report.say(
        f"{FILES} files of {FILE_BYTES} bytes in, `make` of a Makefile that does nothing, output "
        f"out, on {ISOLATED} machines. Seconds, and processor seconds of the client and all that "
        f"it started; medians of {ROUNDS} rounds in turns (one job) and of 1 ({hosts} jobs). "
        "Connecting is part of it. `ansible-playbook` and `pyinfra` get the files as one archive, "
        "and run make as it is, without limits."
    )
    with settings_of(ISOLATED) as settings, fleet_of(settings) as fleet:
        machines = _machines(fleet, settings, hosts)
        with tempfile.TemporaryDirectory() as folder:
            ways = _ways(Path(folder), limits(settings.job), unshared=unshared)
            one, many = _measure(ways, machines)
    _print(ways, one, many, hosts)


def _machines(fleet: Fleet, settings: Settings, count: int) -> Sequence[Endpoint]:
    report.progress(f"{count} machines")
    shape = shape_or(settings.machine)
    keys = [fleet.request_next(shape, LIFETIME).key for _ in range(count)]
    at_once(lambda key: fleet.wait(key, READY_SECONDS), keys)
    file = str(client_key(state_folder(settings)).file)
    machines = [fleet.wait(key, READY_SECONDS) for key in keys]
    return [Endpoint(m.address, m.port, m.username, (m.host_key,), file) for m in machines]


def _ways(folder: Path, wanted: RunLimits, *, unshared: bool) -> dict[str, Way]:
    job = write_job(folder / "job")
    files = load_directory(job)

    def by(transport_of: Callable[[], Transport]) -> Way:
        return lambda machines: at_once(
            lambda one: _run_job(transport_of(), one, files, wanted, folder), machines
        )

    ssh, ansible = SshTransport(), AnsibleTransport()
    ways = {SSH: by(lambda: ssh), ANSIBLE: by(lambda: ansible)}
    if unshared:
        ways[UNSHARED] = by(AnsibleTransport)
    for tool in (push_tools.AnsiblePlaybook(folder, job), push_tools.Pyinfra(folder, job)):
        if fault := tool.missing():
            report.say(f"Left out: {fault}")
        else:
            ways[tool.name] = tool.run_jobs
    return ways


def _run_job(
    transport: Transport,
    machine: Endpoint,
    files: Sequence[InputFile],
    wanted: RunLimits,
    folder: Path,
) -> None:
    session = transport.connect(machine, READY_SECONDS)
    try:
        session.put(files)
        session.run(wanted)
        session.get(folder / f"output-{machine.address}-{machine.port}")
    finally:
        session.close()


def _measure(
    ways: dict[str, Way], machines: Sequence[Endpoint]
) -> tuple[dict[str, Series], dict[str, Series]]:
    """Wall and processor seconds of each way, for one machine and for all."""
    adopt_orphans()  # OpenSSH's connections outlive the client that made them
    results = []
    for endpoints, rounds in ((machines[:1], ROUNDS), (machines, 1)):
        series = {name: Series() for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                report.progress(f"{name}, {len(endpoints)}")
                used, began = _processor_seconds(), time.perf_counter()
                way(endpoints)
                series[name].add("wall", time.perf_counter() - began)
                series[name].add("processor", _processor_seconds() - used)
        results.append(series)
    one, many = results
    return one, many


def _processor_seconds() -> float:
    """Of this process and of all that it has started, once all of that has ended."""
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _print(
    ways: dict[str, Way], one: dict[str, Series], many: dict[str, Series], hosts: int
) -> None:
    rows = []
    for name in ways:
        cells = [name]
        for series in (one, many):
            wall, used = series[name].median("wall"), series[name].median("processor")
            ratio = report.times(wall / series[SSH].median("wall"))
            cells += [f"{wall:.2f}", f"{used:.2f}", ratio]
        rows.append(cells)
    header = ["way", "one job", "processor", "/ ssh", f"{hosts} jobs", "processor", "/ ssh"]
    report.table(header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument(
        "--unshared", action="store_true", help="also with runs of their own for every call"
    )
    given = parser.parse_args()
    report.say(report.host())
    main(given.hosts, unshared=given.unshared)
