"""Runs every benchmark, one after another."""

from __future__ import annotations

from bench import footprint, job_overhead, provisioning, provisioning_aws, report

if __name__ == "__main__":
    report.say(report.host())
    job_overhead.main()
    provisioning.main()
    provisioning_aws.main()
    footprint.main()
