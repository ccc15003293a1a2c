"""Nothing but loopback and the emulation's own network is ever contacted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulation.client import why_not

from ..deployment import CHECKOUT

# Whatever is left when it has to be killed ends with its first process, mounts and network too.
_ALONE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_SECONDS = 240


@pytest.mark.skipif(os.geteuid() != 0, reason="making a network namespace takes root")
@pytest.mark.parametrize(
    ("cloud", "made_by", "more"),
    [
        ("aws", "ec2:RunInstances", "s3:PutObject"),
        ("gcp", "instances.insert", "zoneOperations.get"),
    ],
)
def test_no_packet_leaves_for_a_job_on_an_emulated_cloud(
    cloud: str, made_by: str, more: str, tmp_path: Path
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    done = subprocess.run(
        [*_ALONE, sys.executable, "-m", "tests.e2e.offline", cloud, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'localstack'}"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for status, said, complained in told["commands"]:
        assert status == 0, said + complained
    assert told["calls"][made_by] == 1
    assert told["calls"][more] > 1, "its states; its operations"
    assert (told["sent"], told["packets"]) == (0, [])
    # It would have been seen.
    assert told["sent_by_us"] == 1
    assert told["looked_up"] >= 1, "a name that is looked up is a packet too"
