"""The orchestrator that bench/footprint.py watches: `burst_process.py JOB_DIR MACHINES JOBS`.

Prints one JSON object: what it used and how long it took, in seconds.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections import defaultdict

from tango_cloud.api import Cloud
from tango_cloud.jobs.job import JobStatus
from tango_cloud.orchestration.burst import Happening, Step


def main(job_dir: str, machines: int, jobs: int) -> None:
    began = time.monotonic()
    moments: defaultdict[Step, list[float]] = defaultdict(list)
    ready: dict[str, float] = {}

    def note(happening: Happening) -> None:
        now = time.monotonic() - began
        moments[happening.step].append(now)
        if happening.step is Step.MACHINE_READY:
            ready.setdefault(happening.machine, now)

    with Cloud() as cloud, tempfile.TemporaryDirectory() as output:
        wanted = [cloud.job(job_dir, name=f"job{number:04}") for number in range(jobs)]
        results = cloud.run(wanted, output_dir=output, machines=machines, on_happening=note)
    failed = [result for result in results if result.status is not JobStatus.PASSED]
    if failed:
        raise RuntimeError(f"{len(failed)} jobs did not pass, the first one: {failed[0]}")
    print(
        json.dumps(
            {
                "seconds": time.monotonic() - began,
                "all_ready_seconds": max(ready.values()),
                "jobs_seconds": max(moments[Step.JOB_ENDED]) - min(moments[Step.JOB_STARTED]),
                "own_cpu_seconds": _cpu(resource.RUSAGE_SELF),
                "children_cpu_seconds": _cpu(resource.RUSAGE_CHILDREN),
            }
        )
    )


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
