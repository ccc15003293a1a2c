"""A thousand callers of `initializeVM` at once, in four processes."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench import report
from tango_cloud.core.ledger import Ledger
from tests.callers import APPLY_SECONDS, call_from_processes

PROCESSES, THREADS = 4, 250


def main() -> None:
    total = PROCESSES * THREADS
    report.say(f"## {total:,} callers of `initializeVM` at once, in {PROCESSES} processes")
    report.say(
        "Each caller asks for a machine of its own and waits for it. The VMMS, the ledger (one "
        "SQLite file), the committers and the waves are the real ones; in the place of Terraform "
        f"and the cloud stands a folder: an apply takes {APPLY_SECONDS} s, and machines answer at "
        "once. Milliseconds from the call to the return of `initializeVM`, that is until the wish "
        "is durable."
    )
    with tempfile.TemporaryDirectory(prefix="tango-bench-callers-") as folder:
        began = time.monotonic()
        ids = [range(THREADS * n, THREADS * (n + 1)) for n in range(PROCESSES)]
        calls = call_from_processes(Path(folder), ids)
        seconds = time.monotonic() - began
        ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite3", Path(folder))
        waves = Counter(machine.wave for machine in ledger.machines.all_live("tango"))
        ledger.close()
    took = sorted(call.seconds for call in calls)
    served = sum((call.initialized, call.waited) == (0, 0) for call in calls)
    report.table(
        ["callers", "served", "machines", "waves", "median", "99 %", "slowest", "all ready s"],
        [
            [
                f"{total:,}",
                f"{served:,}",
                f"{len({call.instance_id for call in calls}):,}",
                str(len(waves)),
                report.milliseconds(statistics.median(took)),
                report.milliseconds(took[int(0.99 * len(took))]),
                report.milliseconds(took[-1]),
                f"{seconds:.1f}",
            ]
        ],
    )


if __name__ == "__main__":
    report.say(report.host())
    main()
