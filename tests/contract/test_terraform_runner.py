"""The runner and the workspaces on a real Terraform: the one on the PATH, and the one from pip."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tango_cloud.core.errors import TerraformError, TerraformKilled
from tango_cloud.terraform import command
from tango_cloud.terraform.binary import Binary, Product, Source
from tango_cloud.terraform.environment import terraform_environment
from tango_cloud.terraform.events import Diagnostic, Event, ResourceDone, ResourceStarted
from tango_cloud.terraform.runner import Controls, Terraform
from tango_cloud.terraform.workspace import Workspace, Workspaces

from .things import FOR_EVER, MAIN, make_module


@pytest.fixture
def terraform(binary: Binary) -> Terraform:
    environment = terraform_environment(os.environ, cli_config=None, plugin_cache=None)
    return Terraform(binary, environment, grace_seconds=20)


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    return make_module(tmp_path / "modules", "things")


@pytest.fixture
def workspace(terraform: Terraform, tmp_path: Path, modules: Path) -> Workspace:
    return Workspaces(tmp_path / "workspaces", terraform, modules).open("fake", "things")


def _script(tmp_path: Path, text: str, **options: float) -> Terraform:
    """A runner of a small script in Terraform's place."""
    script = tmp_path / "terraform"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    binary = Binary((str(script),), Product.TERRAFORM, (1, 11, 4), Source.SETTING)
    return Terraform(binary, os.environ, **options)


def _dead(pid: int) -> bool:
    """Whether the process is dead, or is so within a moment: SIGKILL does not wait."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def test_apply_streams_events_and_destroy_removes(workspace: Workspace, tmp_path: Path) -> None:
    events: list[Event] = []
    pids: list[int] = []

    def on_event(event: Event) -> None:
        assert pids, "the pid is told before any event"
        events.append(event)

    controls = Controls(on_event=on_event, on_start=pids.append)
    stack = tmp_path / "stack"
    result = workspace.apply(stack, {"things": {"a": "true", "b": "true"}}, controls=controls)

    assert result.outputs == {"things": {"a": "a", "b": "b"}}
    assert workspace.outputs(stack) == result.outputs
    started = {e.key for e in events if isinstance(e, ResourceStarted)}
    done = {e.key: e.id for e in events if isinstance(e, ResourceDone)}
    assert started == set(done) == {"a", "b"}
    assert all(done.values()), "each with the id that its provider gave it"
    assert workspace.resources(stack) == [
        'terraform_data.thing["a"]',
        'terraform_data.thing["b"]',
    ]

    before = json.loads((stack / "terraform.tfstate").read_text())
    workspace.forget(stack, [command.address("terraform_data.thing", "a")])
    assert workspace.resources(stack) == ['terraform_data.thing["b"]']
    after = json.loads((stack / "terraform.tfstate").read_text())
    assert before["resources"][0]["instances"][1] == after["resources"][0]["instances"][0]
    workspace.forget(stack, [command.address("terraform_data.thing", "a")])
    workspace.destroy(stack)
    assert workspace.resources(stack) == []
    assert sorted(path.name for path in stack.iterdir()) == [
        "inputs.tfvars.json",
        "terraform.tfstate",
    ]


def test_a_secret_reaches_terraform_and_no_file(workspace: Workspace, tmp_path: Path) -> None:
    secret = 'line\n"quoted" ${not.a.template} %{nor} 😀\\'
    stack, seen = tmp_path / "stack", tmp_path / "seen"
    things = {"a": f'printf %s "$SECRET" > {seen}'}
    workspace.apply(stack, {"things": things}, {"secret": secret})
    assert seen.read_text() == secret
    files = [*stack.iterdir(), *(p for p in workspace.folder.rglob("*") if p.is_file())]
    assert not [file for file in files if b"not.a.template" in file.read_bytes()]
    assert {stat_mode(stack), stat_mode(stack / "inputs.tfvars.json")} == {0o700, 0o600}


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_what_succeeded_beside_a_failure_stays(workspace: Workspace, tmp_path: Path) -> None:
    found: list[Event] = []
    with pytest.raises(TerraformError) as caught:
        workspace.apply(
            tmp_path / "stack",
            {"things": {"bad": "echo this went wrong; exit 3", "good": "true"}},
            controls=Controls(on_event=found.append),
        )
    error = caught.value
    assert error.exit_code == 1
    assert "apply" in error.argv
    assert any("this went wrong" in text for text in error.diagnostics)
    assert 'terraform_data.thing["good"]' in workspace.resources(tmp_path / "stack")
    ids = workspace.ids(tmp_path / "stack", "terraform_data.thing")
    assert ids.keys() == {"bad", "good"}, "what failed after it was there is known too"
    assert ids["good"] in {event.id for event in found if isinstance(event, ResourceDone)}
    errors = [e for e in found if isinstance(e, Diagnostic) and e.is_error]
    assert [(e.resource, e.key) for e in errors] == [("terraform_data.thing", "bad")]


def test_input_that_terraform_refuses_says_why(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(TerraformError, match="things"):
        workspace.apply(tmp_path / "stack", {"things": 3})


def test_a_cancel_saves_the_state(workspace: Workspace, tmp_path: Path) -> None:
    cancel = threading.Event()
    running = tmp_path / "running"
    pids: list[int] = []

    def on_event(event: Event) -> None:
        # The slow one says so once it runs, and the quick one is done: now.
        if isinstance(event, ResourceDone):
            while not running.exists():
                time.sleep(0.01)
            cancel.set()

    with pytest.raises(TerraformError, match="cancelled"):
        workspace.apply(
            tmp_path / "stack",
            {"things": {"quick": "true", "slow": f"touch {running}; {FOR_EVER}"}},
            controls=Controls(on_event=on_event, on_start=pids.append, cancelled=cancel.is_set),
        )
    assert _dead(pids[0])
    assert 'terraform_data.thing["quick"]' in workspace.resources(tmp_path / "stack")
    # The lock is free again, and so is the way on.
    workspace.destroy(tmp_path / "stack")
    assert workspace.resources(tmp_path / "stack") == []


def test_a_callback_that_fails_leaves_no_terraform(workspace: Workspace, tmp_path: Path) -> None:
    pids: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, ResourceStarted):
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        workspace.apply(
            tmp_path / "stack",
            {"things": {"slow": FOR_EVER}},
            controls=Controls(on_event=on_event, on_start=pids.append),
        )
    assert _dead(pids[0])


def test_a_command_that_takes_too_long_is_interrupted(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(TerraformError, match="still running after 1 s"):
        workspace.apply(
            tmp_path / "stack", {"things": {"slow": FOR_EVER}}, controls=Controls(timeout=1)
        )


def test_many_applies_at_once_in_one_workspace(workspace: Workspace, tmp_path: Path) -> None:
    def apply(number: int) -> object:
        stack = tmp_path / f"stack-{number}"
        outputs = workspace.apply(stack, {"things": {str(number): "true"}}).outputs
        workspace.destroy(stack)
        return outputs

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(apply, range(16)))
    assert results == [{"things": {str(number): str(number)}} for number in range(16)]


def test_init_runs_once_for_all_who_come_at_once(
    terraform: Terraform, tmp_path: Path, modules: Path
) -> None:
    pids: list[int] = []
    folder = tmp_path / "workspaces"

    def open_one(_: int) -> Path:
        # A `Workspaces` each, as separate processes have.
        workspaces = Workspaces(folder, terraform, modules)
        return workspaces.open("fake", "things", controls=Controls(on_start=pids.append)).folder

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(open_one, range(8)))) == 1
    assert len(pids) == 1


def test_a_half_finished_init_does_not_count(
    terraform: Terraform, tmp_path: Path, modules: Path
) -> None:
    first = Workspaces(tmp_path / "w", terraform, modules).open("fake", "things")
    (first.folder / ".initialised").unlink()
    (first.folder / "main.tf").write_text("half a fi")
    again = Workspaces(tmp_path / "w", terraform, modules).open("fake", "things")
    assert again.folder == first.folder
    assert again.apply(tmp_path / "stack", {"things": {"a": "true"}}).outputs


def test_an_init_that_fails_is_tried_again(
    terraform: Terraform, tmp_path: Path, modules: Path
) -> None:
    main = modules / "fake" / "things" / "main.tf"
    main.write_text("resource {")
    workspaces = Workspaces(tmp_path / "w", terraform, modules)
    with pytest.raises(TerraformError):
        workspaces.open("fake", "things")
    main.write_text(MAIN)
    assert workspaces.open("fake", "things").folder.is_dir()


def test_a_changed_module_gets_a_workspace_of_its_own(
    terraform: Terraform, tmp_path: Path, modules: Path
) -> None:
    first = Workspaces(tmp_path / "w", terraform, modules).open("fake", "things")
    (modules / "fake" / "things" / "README.md").write_text("no part of it")
    same = Workspaces(tmp_path / "w", terraform, modules).open("fake", "things")
    (modules / "fake" / "things" / "more.tf").write_text('output "more" { value = 1 }')
    other = Workspaces(tmp_path / "w", terraform, modules).open("fake", "things")
    assert first.folder == same.folder != other.folder


def test_destroying_what_never_was_is_success(workspace: Workspace, tmp_path: Path) -> None:
    workspace.destroy(tmp_path / "nowhere")
    assert workspace.resources(tmp_path / "nowhere") == []


def test_forgetting_takes_out_of_the_state_and_touches_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    stack, things = tmp_path / "stack", ["a", "b", "${c}"]
    addresses = {key: command.address("terraform_data.thing", key) for key in things}
    workspace.forget(stack, list(addresses.values()))
    workspace.apply(stack, {"things": dict.fromkeys(things, "true")})
    workspace.forget(stack, [addresses["a"], addresses["${c}"], "terraform_data.thing[0]"])
    assert workspace.resources(stack) == [addresses["b"]]
    workspace.forget(stack, [addresses["a"]])
    workspace.forget(stack, [addresses["b"], addresses["b"]])
    workspace.forget(stack, [addresses["b"]])
    workspace.forget(stack, [])
    assert workspace.resources(stack) == []
    assert {path.name for path in stack.iterdir()} == {"inputs.tfvars.json", "terraform.tfstate"}
    workspace.break_lock(stack)
    workspace.discard(stack)
    workspace.discard(stack)
    assert not stack.exists()


def test_forgetting_reports_a_state_that_cannot_be_written(
    workspace: Workspace, tmp_path: Path
) -> None:
    stack = tmp_path / "stack"
    workspace.apply(stack, {"things": {"a": "true"}})
    (stack / "terraform.tfstate").write_text("half a st")
    with pytest.raises(TerraformError):
        workspace.forget(stack, [command.address("terraform_data.thing", "a")])


def test_one_that_ignores_the_interrupt_is_killed_with_its_children(tmp_path: Path) -> None:
    terraform = _script(
        tmp_path, "trap '' INT\nsleep 600 & echo $! >child\nwait", grace_seconds=0.3
    )
    with pytest.raises(TerraformError, match="killed 0 s after the interrupt") as caught:
        terraform.run(["apply"], tmp_path, Controls(timeout=0.3))
    assert caught.value.exit_code is None
    assert not isinstance(caught.value, TerraformKilled), "that was us"
    assert _dead(int((tmp_path / "child").read_text()))


def test_one_that_somebody_else_kills_is_told_apart(tmp_path: Path) -> None:
    """And what it had started, as plugins are, ends with it."""
    terraform = _script(tmp_path, "sleep 600 & echo $! >child\nkill -KILL $$")
    with pytest.raises(TerraformKilled):
        terraform.run(["apply"], tmp_path)
    assert _dead(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize("said", ["Failed to load plugin schemas", "Plugin did not respond"])
def test_one_whose_plugin_is_killed_counts_as_killed(tmp_path: Path, said: str) -> None:
    found = {"severity": "error", "summary": said, "detail": "details"}
    line = json.dumps({"type": "diagnostic", "diagnostic": found})
    terraform = _script(tmp_path, f"echo '{line}'\nexit 1")
    with pytest.raises(TerraformKilled, match=said):
        terraform.run(["apply"], tmp_path)


def test_a_daemon_that_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    terraform = _script(tmp_path, "setsid sleep 600 & echo $! >child\necho done")
    try:
        assert terraform.run(["apply"], tmp_path, Controls(timeout=60)).stdout == "done\n"
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_output_without_end_is_bounded_and_keeps_its_end(tmp_path: Path) -> None:
    terraform = _script(
        tmp_path,
        "yes | head -c 2000000\nhead -c 9000000 /dev/zero | tr '\\0' x\necho the end >&2\nexit 9",
    )
    with pytest.raises(TerraformError, match="the end") as caught:
        terraform.run(["apply"], tmp_path)
    assert caught.value.exit_code == 9
    assert len(caught.value.stderr) < 10_000


def test_a_program_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    terraform = _script(tmp_path, "true")
    (tmp_path / "terraform").unlink()
    with pytest.raises(TerraformError, match="No such file"):
        terraform.run(["apply"], tmp_path)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    mine = psutil.Process()
    before = set(mine.children(recursive=True))  # an emulated cloud of other tests, say
    yield
    children = set(mine.children(recursive=True)) - before
    left = [child for child in children if not _dead(child.pid)]
    assert not left
