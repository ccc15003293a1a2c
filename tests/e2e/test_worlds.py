"""The main job in the worlds that users live in: no network, no Terraform, no root, no checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..deployment import CHECKOUT, EXAMPLES, Deployment, leaving_nothing, make_deployment
from ..unprivileged import User, another_user

JOB = str(EXAMPLES / "c-calculator")


def _passed(done: subprocess.CompletedProcess[str]) -> bool:
    assert done.returncode == 0, done.stdout + done.stderr
    return [row["status"] for row in json.loads(done.stdout)] == ["passed"]


@pytest.mark.skipif(os.geteuid() != 0, reason="making a network namespace takes root")
def test_nothing_but_loopback_is_ever_contacted(deployment: Deployment) -> None:
    """In a network namespace that has nothing else, everything works the same."""
    inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "-"]
    done = deployment.execute([*inside, *deployment.command("run", JOB, "--json")])
    assert _passed(done)


def test_without_terraform_on_the_path_the_package_brings_it(deployment: Deployment) -> None:
    folders = [
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not any(Path(folder, name).exists() for name in ("terraform", "tofu"))
    ]
    if not any(Path(folder, "make").exists() for folder in folders):
        pytest.skip("terraform and make are in the same folder here")
    path = os.pathsep.join(folders)
    assert "from package" in deployment.run("doctor", "--no-probe", PATH=path).stdout
    assert _passed(deployment.run("run", JOB, "--json", PATH=path))


@pytest.fixture
def user() -> Iterator[User]:
    with another_user() as user:
        yield user


@pytest.mark.parametrize("server", ["auto", "asyncssh"])
def test_root_is_not_needed(user: User, server: str) -> None:
    deployment = make_deployment(user.folder, **user.environment)
    with leaving_nothing(deployment):
        done = deployment.execute(
            user.command(user.python, "-m", "tango_cloud", "run", JOB, "--json"),
            TANGO_CLOUD_LOCAL__SERVER=server,
            TANGO_CLOUD_LOCAL__ISOLATE={"auto": "auto", "asyncssh": "no"}[server],
        )
        assert _passed(done)


def test_an_installed_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Built, installed into an empty environment elsewhere, and run from there."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(CHECKOUT)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    home = tmp_path / "elsewhere"
    venv.create(home, with_pip=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=300)
    deployment = make_deployment(tmp_path)
    del deployment.environment["PYTHONPATH"]
    with leaving_nothing(deployment):
        done = deployment.execute([str(home / "bin" / "tango-cloud"), "run", JOB, "--json"])
        assert _passed(done)
        assert (next(home.glob("lib/*/site-packages/tango_cloud")) / "_terraform").is_dir()
