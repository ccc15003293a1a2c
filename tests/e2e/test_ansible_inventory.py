"""Ansible itself, with our machines as its inventory."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from tango_cloud.orchestration.keys import make_key_pair

from ..deployment import CHECKOUT, Deployment

_PROGRAM = str(CHECKOUT / "ansible" / "inventory")


@pytest.mark.slow
def test_a_machine_answers_ansible_and_only_with_its_own_host_key(deployment: Deployment) -> None:
    deployment.environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(deployment.folder),  # Ansible writes there
        "TANGO_CLOUD_STATE_DIR": str(deployment.folder / "the state"),
    }
    done = deployment.run("run", deployment.job("job", "all:\n\t@true\n"), "--keep")
    assert done.returncode == 0, done.stderr
    ping = ["ansible", "-i", _PROGRAM, "image_local_img:&pool_local", "-m", "ping", "--one-line"]
    with sqlite3.connect(deployment.state / "ledger.sqlite3") as books:
        ((key,),) = books.execute("SELECT host_key FROM machines")
        books.execute("UPDATE machines SET host_key = ?", [make_key_pair().public])
    # Whatever Ansible is set to.
    refused = deployment.execute(ping, ANSIBLE_HOST_KEY_CHECKING="False")
    assert refused.returncode != 0
    assert "Host key verification failed" in refused.stdout + refused.stderr

    with sqlite3.connect(deployment.state / "ledger.sqlite3") as books:
        books.execute("UPDATE machines SET host_key = ?", [key])
    books.close()
    done = deployment.execute(ping)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tango-100000-local | SUCCESS")
    assert '"ping": "pong"' in done.stdout

    assert deployment.run("destroy", "--all").returncode == 0
    assert json.loads(deployment.run("inventory", "--list").stdout) == {"_meta": {"hostvars": {}}}
