"""A thousand callers of `initializeVM` at once, in four processes."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.deployment import BARE_SSHD, FROM_PIP, ISOLATED, PREFIX, fleet_of, settings_of
from tango_cloud.core.ledger import Ledger
from tango_cloud.wiring import ledger_url
from tests.callers import APPLY_SECONDS, DEPLOYMENT, Callers, callers
from tests.deployment import ledger_in

PROCESSES = 4
THREADS = 250
THREADS_LOCAL = 10


def main() -> None:
    report.say(f"## {PROCESSES * THREADS:,} callers of `initializeVM` at once")
    report.say(
        f"In {PROCESSES} processes, a thread each: every caller asks for a machine of its own, "
        "waits for it, and destroys it when all have theirs. The VMMS, the ledger (one SQLite "
        "file), the committers and the waves are the real ones. In the row `a folder` that stands "
        f"in the place of Terraform and the cloud: an apply takes {APPLY_SECONDS} s, and machines "
        "answer at once; in the other one nothing is replaced. `median`, `99 %` and `slowest`: "
        "milliseconds from the call to the return of `initializeVM`, that is until the wish is "
        "durable."
    )
    report.table(
        [
            "machines in",
            "callers",
            "served",
            "machines",
            "waves",
            "median",
            "99 %",
            "slowest",
            "all ready s",
            "all gone s",
            "left",
        ],
        [_folder(), _local()],
    )


def _folder() -> Sequence[str]:
    with tempfile.TemporaryDirectory(prefix="tango-bench-callers-") as name:
        folder = Path(name)
        ledger = ledger_in(folder)
        with callers(_ids(THREADS), folder) as processes:
            row = _row("a folder", processes, ledger, DEPLOYMENT)
        ledger.close()
        return row


def _local() -> Sequence[str]:
    kind = next(kind for kind in (ISOLATED, BARE_SSHD, FROM_PIP) if not kind.obstacle())
    with (
        settings_of(kind) as settings,
        fleet_of(settings),
        callers(_ids(THREADS_LOCAL)) as processes,
    ):
        ledger = Ledger(ledger_url(settings), settings.state_dir)
        row = _row(f"local: {kind}", processes, ledger, PREFIX)
        ledger.close()
        return row


def _ids(threads: int) -> Sequence[range]:
    return [range(threads * n, threads * (n + 1)) for n in range(PROCESSES)]


def _row(name: str, processes: Callers, ledger: Ledger, deployment: str) -> Sequence[str]:
    report.progress(name)
    began = time.monotonic()
    calls = processes.initialize()
    ready = time.monotonic() - began
    waves = {machine.wave for machine in ledger.machines.all_live(deployment)}
    began = time.monotonic()
    processes.destroy()
    gone = time.monotonic() - began
    took = sorted(call.seconds for call in calls)
    return [
        name,
        f"{len(calls):,}",
        f"{sum((call.initialized, call.waited) == (0, 0) for call in calls):,}",
        f"{len({call.instance_id for call in calls}):,}",
        str(len(waves)),
        report.milliseconds(statistics.median(took)),
        report.milliseconds(took[int(0.99 * len(took))]),
        report.milliseconds(took[-1]),
        f"{ready:.1f}",
        f"{gone:.1f}",
        str(len(ledger.machines.all_live(deployment))),
    ]


if __name__ == "__main__":
    report.say(report.host())
    main()
