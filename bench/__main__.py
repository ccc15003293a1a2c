"""Runs every benchmark, one after another."""

from __future__ import annotations

from bench import (
    ansible,
    callers,
    footprint,
    inventory,
    job_overhead,
    provisioning,
    provisioning_aws,
    report,
    terraform_costs,
)

if __name__ == "__main__":
    report.say(report.host())
    job_overhead.main()
    provisioning.main()
    provisioning_aws.main()
    terraform_costs.main()
    inventory.main()
    ansible.main()
    callers.main()
    footprint.main()
