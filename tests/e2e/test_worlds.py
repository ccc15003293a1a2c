"""The main job in the worlds that users live in: no network, no Terraform, no root, no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..deployment import CHECKOUT, EXAMPLES, Deployment, leaving_nothing, make_deployment

JOB = str(EXAMPLES / "c-calculator")
SYSTEM_PYTHON = Path("/usr/bin/python3")
UNPRIVILEGED = 54321


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
def unprivileged() -> Iterator[Deployment]:
    """A deployment of another user's, who may not even read our home."""
    if os.geteuid() != 0:
        pytest.skip("all tests run without root here")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not SYSTEM_PYTHON.exists() or version not in str(SYSTEM_PYTHON.resolve()):
        pytest.skip(f"no Python {version} that other users may run")
    folder = Path(tempfile.mkdtemp(prefix="tango-unprivileged-"))
    os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    environment = [str(SYSTEM_PYTHON), "-m", "venv", "--without-pip", str(folder / "venv")]
    subprocess.run(environment, check=True)
    (installed,) = (folder / "venv").glob("lib/*/site-packages")
    (installed / "all.pth").write_text(f"{CHECKOUT}\n{packages}\n")
    made = make_deployment(folder, HOME=str(folder), PATH="/usr/local/bin:/usr/bin:/bin")
    try:
        with leaving_nothing(made):
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("server", ["auto", "asyncssh"])
def test_root_is_not_needed(unprivileged: Deployment, server: str) -> None:
    user = ["--reuid", str(UNPRIVILEGED), "--regid", str(UNPRIVILEGED), "--clear-groups"]
    if subprocess.run(["setpriv", *user, "test", "-r", JOB, "-a", "-r", str(CHECKOUT)]).returncode:
        pytest.skip("the checkout may not be read by other users")
    isolate = {"auto": "auto", "asyncssh": "no"}[server]
    python = str(unprivileged.folder / "venv" / "bin" / "python")
    done = unprivileged.execute(
        ["setpriv", *user, python, "-m", "tango_cloud", "run", JOB, "--json"],
        TANGO_CLOUD_LOCAL__SERVER=server,
        TANGO_CLOUD_LOCAL__ISOLATE=isolate,
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
