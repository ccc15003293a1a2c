"""From a playbook to a job on a machine that has what the playbook made."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tango_cloud.core.settings import load
from tango_cloud.providers.protocol import Baker
from tango_cloud.wiring import build_provider

from ..aws import AwsDeployment, need_systems
from ..deployment import Deployment
from ..gcp import GcpDeployment

pytestmark = [
    pytest.mark.slow,  # Ansible takes seconds of processor time for each run
    pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed"),
]
SECONDS = 600.0
IMAGE = "lab"


def write(deployment: Deployment, *tasks: dict[str, Any]) -> Path:
    folder = deployment.folder / "course"
    folder.mkdir(exist_ok=True)
    play = {"name": "A course", "hosts": "all", "gather_facts": False, "tasks": list(tasks)}
    (folder / "course.yml").write_text(yaml.safe_dump([play]))
    return folder / "course.yml"


def greet(text: str) -> dict[str, Any]:
    """A task that writes where jobs can read it."""
    content = {"content": f"{text}\n", "dest": "/course/greeting", "mode": "0644"}
    return {"name": "Greet", "ansible.builtin.copy": content}


def command(name: str, *argv: str) -> dict[str, Any]:
    return {"name": name, "ansible.builtin.command": {"argv": list(argv)}, "changed_when": False}


def succeed(deployment: Deployment, *arguments: str) -> Any:
    done = deployment.run(*arguments, "--json")
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def prepare(deployment: Deployment, *more: str) -> Any:
    playbook = str(deployment.folder / "course" / "course.yml")
    return succeed(deployment, "prepare", IMAGE, "--playbook", playbook, *more)


def output_of(deployment: Deployment, job: str, *more: str) -> str:
    (result,) = succeed(deployment, "run", job, "--image", IMAGE, *more)
    return Path(deployment.folder, result["output"]).read_text()


@pytest.fixture
def isolated(deployment: Deployment) -> Deployment:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    deployment.patience = SECONDS
    deployment.environment |= {
        "TANGO_CLOUD_LOCAL__ISOLATE": "yes",
        "HOME": str(deployment.folder),  # Ansible writes there
    }
    return deployment


def test_a_job_finds_what_the_playbook_made_and_old_images_go(isolated: Deployment) -> None:
    job = isolated.job("job", "all:\n\t@cat /course/greeting\n")
    write(isolated, greet("good morning"))
    first = prepare(isolated)
    assert (first["fresh"], first["base"], first["provider"]) == (True, "local.img", "local")
    assert "shares its host's system" in first["left_out"][0]
    assert output_of(isolated, job, "--keep").endswith("good morning\n")
    again = prepare(isolated)
    assert (again["fresh"], again["id"]) == (False, first["id"])

    write(isolated, greet("good evening"), command("Stumble", "false"))
    playbook = str(isolated.folder / "course" / "course.yml")
    failed = isolated.run("prepare", IMAGE, "--playbook", playbook)
    assert failed.returncode == 3
    assert "'Stumble'" in failed.stderr
    (image,) = succeed(isolated, "images")
    assert (image["id"], image["state"], image["in_use"]) == (first["id"], "ready", True)

    write(isolated, greet("good evening"))
    second = prepare(isolated)
    assert output_of(isolated, job).endswith("good evening\n")
    assert succeed(isolated, "images", "prune", "--keep", "1") == []
    assert isolated.run("destroy", "--all").returncode == 0
    assert [one["id"] for one in succeed(isolated, "images", "prune", "--keep", "1")] == [
        first["id"]
    ]
    assert [one["id"] for one in succeed(isolated, "images")] == [second["id"]]
    assert second["id"] in isolated.run("images").stdout
    assert "nothing to prune" in isolated.run("images", "prune").stdout


def test_interrupted_it_leaves_nothing(isolated: Deployment) -> None:
    mark = "600.0417"
    isolated.marks.append(mark)
    playbook = write(isolated, command("Sleep", "sleep", mark))
    process = isolated.start("prepare", IMAGE, "--playbook", str(playbook))
    isolated.wait_until_running(mark)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert "nothing is left" in told
    assert succeed(isolated, "images") == []


def test_what_cannot_be_prepared_is_told_before_there_is_a_machine(isolated: Deployment) -> None:
    missing = isolated.run("prepare", IMAGE, "--playbook", "missing.yml")
    assert (missing.returncode, "missing.yml" in missing.stderr) == (2, True)
    playbook = write(isolated, {"no.such.module": {}})
    unreadable = isolated.run("prepare", IMAGE, "--playbook", str(playbook))
    assert (unreadable.returncode, "no.such.module" in unreadable.stderr) == (2, True)
    bad = isolated.run("prepare", "../lab")
    assert (bad.returncode, "cannot be its name" in bad.stderr) == (2, True)
    assert not (isolated.state / "local" / "instances").exists()


def see_an_image_made_and_used(
    cloud: Deployment, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the files of a machine are in its image is the cloud's matter: the emulated ones keep
    no disks."""
    cloud.patience = SECONDS
    cloud.environment["HOME"] = str(cloud.folder)
    folder = {"name": "Have a folder", "ansible.builtin.file": {"path": "/course", "mode": "0755"}}
    folder["ansible.builtin.file"] |= {"state": "directory"}  # type: ignore[operator]
    write(cloud, folder, greet("good morning"), command("Read it", "cat", "/course/greeting"))
    first = prepare(cloud, "--from", base)
    assert (first["fresh"], first["left_out"], first["base"]) == (True, [], base)
    assert prepare(cloud, "--from", base)["id"] == first["id"]
    job = cloud.job("job", "all:\n\t@echo done\n")
    assert output_of(cloud, job).endswith("done\n")
    (image,) = succeed(cloud, "images")
    assert (image["id"], image["state"], image["in_use"]) == (first["id"], "ready", False)
    assert succeed(cloud, "images", "prune", "--keep", "1") == []
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    settings = load()
    (provider,) = settings.provider
    baker = build_provider(settings, provider)
    assert isinstance(baker, Baker)
    baker.remove_images([image["id"]])
    assert succeed(cloud, "images") == []


def test_on_ec2(aws: AwsDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    need_systems(aws.emulation)
    see_an_image_made_and_used(aws, "course.img", monkeypatch)


def test_on_compute_engine(gcp: GcpDeployment, monkeypatch: pytest.MonkeyPatch) -> None:
    if not gcp.emulation.interface:
        pytest.skip("without root machines have no system of their own")
    see_an_image_made_and_used(gcp, "course", monkeypatch)
