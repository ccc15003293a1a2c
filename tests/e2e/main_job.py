"""The main job, the same wherever machines come from: three samples, each on one of its own."""

from __future__ import annotations

import json

from ..deployment import EXAMPLES, Deployment

JOBS = ("c-calculator", "python-grader", "loud")


def run_main_job(deployment: Deployment, *options: str) -> None:
    """Run it, and see what each of the jobs came to."""
    done = deployment.run("run", *(str(EXAMPLES / name) for name in JOBS), "--json", *options)
    results = {row["job"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1, done.stderr
    assert {name: results[name]["status"] for name in JOBS} == {
        "c-calculator": "passed",
        "python-grader": "failed",
        "loud": "passed",
    }
    assert results["python-grader"]["exit_status"] == 2
    assert len({row["machine"] for row in results.values()}) == 3
    output = deployment.folder / "output"
    assert (output / "c-calculator.txt").read_text().endswith("all tests passed\n")
    assert '"palindrome": 25' in (output / "python-grader.txt").read_text()
    loud = (output / "loud.txt").read_bytes()
    assert loud.startswith(b"Autodriver: Job exited with status 0\n")
    assert len(loud) > 5_000_000
    assert loud.endswith(b"  200000: smallest factor 2\n")
