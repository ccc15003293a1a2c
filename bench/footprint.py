"""What an orchestrator needs while it serves many machines: memory, processor, and how fast it is.

The orchestrator is a process of its own, `bench/burst_process.py`; this one watches it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import report
from bench.deployment import FROM_PIP, ISOLATED, Kind, fleet_of, settings_of
from bench.jobs import FILES, write_job

MACHINES, JOBS = 50, 500
_LOOK_SECONDS = 0.05
_LOOK_AT_MACHINES_SECONDS = 1.0
_MIB = 1 << 20


@dataclass
class Peaks:
    """The most that was seen at one moment, in bytes; `servers` is None where it cannot be seen."""

    orchestrator: int = 0
    started: int = 0
    servers: int | None = 0


def main() -> None:
    report.say(f"## An orchestrator with {MACHINES} machines and {JOBS} jobs")
    report.say(
        f"One process runs {JOBS} jobs of {FILES} small files on {MACHINES} machines that it makes "
        "for them and removes. Memory is the peak of the resident sets, that of the machines of "
        "their proportional sets. `jobs/s` is from the first job's start to the last one's end. "
        "The stock way is left out: more than ten thousand `ssh` and `scp` processes take too long."
    )
    rows = []
    for kind in (ISOLATED, FROM_PIP):
        if kind.obstacle():
            report.say(f"Left out: machines of the kind {kind}: {kind.obstacle()}")
            continue
        report.progress(f"footprint, {kind}")
        rows.append(_row(kind))
    report.table(
        [
            "machines",
            "orchestrator MiB",
            "and Terraform MiB",
            "machines MiB",
            "orchestrator CPU s",
            "Terraform CPU s",
            "all ready s",
            "jobs/s",
            "whole run s",
        ],
        rows,
    )


def _row(kind: Kind) -> list[str]:
    with (
        settings_of(kind) as settings,
        fleet_of(settings),  # removes what a failed run leaves
        tempfile.TemporaryDirectory() as scratch,
    ):
        job = write_job(Path(scratch) / "job")
        argv = [sys.executable, "-m", "bench.burst_process", str(job), str(MACHINES), str(JOBS)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        try:
            peaks = _watch(process, settings.state_dir / "local" / "instances")
            told, _ = process.communicate()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"the orchestrator ended with status {process.returncode}")
    found = json.loads(told)
    return [
        str(kind),
        f"{peaks.orchestrator / _MIB:.0f}",
        f"{peaks.started / _MIB:.0f}",
        "-" if peaks.servers is None else f"{peaks.servers / _MIB:.0f}",
        f"{found['own_cpu_seconds']:.1f}",
        f"{found['children_cpu_seconds']:.1f}",
        f"{found['all_ready_seconds']:.1f}",
        f"{JOBS / found['jobs_seconds']:.0f}",
        f"{found['seconds']:.1f}",
    ]


def _watch(process: subprocess.Popen[str], instances: Path) -> Peaks:
    """Look at the orchestrator until it ends. The machines seldom: that takes a while."""
    peaks = Peaks()
    orchestrator = psutil.Process(process.pid)
    next_look = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            own = orchestrator.memory_info().rss
            others = sum(_resident(child) for child in orchestrator.children(recursive=True))
            peaks.orchestrator = max(peaks.orchestrator, own)
            peaks.started = max(peaks.started, own + others)
        if time.monotonic() >= next_look and peaks.servers is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                try:
                    peaks.servers = max(peaks.servers, _proportional(instances))
                except psutil.AccessDenied:
                    peaks.servers = None
            next_look = time.monotonic() + _LOOK_AT_MACHINES_SECONDS
        time.sleep(_LOOK_SECONDS)
    return peaks


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _proportional(instances: Path) -> int:
    """The memory of all processes of all machines; what is shared counts once."""
    total = 0
    for process in _machine_processes(instances):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total


def _machine_processes(instances: Path) -> Iterator[psutil.Process]:
    for document in instances.glob("i-*/instance.json"):
        with contextlib.suppress(psutil.NoSuchProcess, OSError, ValueError):
            supervisor = json.loads(document.read_text())["supervisor"]
            if supervisor is not None:
                process = psutil.Process(supervisor)
                yield process
                yield from process.children(recursive=True)


if __name__ == "__main__":
    report.say(report.host())
    main()
