"""States in an S3 bucket: two hosts at once, locks left by the dead, nothing left behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from emulation.client import Emulation

from tango_cloud.core.errors import TerraformError
from tango_cloud.core.sections import TerraformSettings
from tango_cloud.core.settings import Settings
from tango_cloud.terraform import command, workspace
from tango_cloud.terraform.backend import backend_from_settings
from tango_cloud.terraform.binary import Binary
from tango_cloud.terraform.environment import terraform_environment
from tango_cloud.terraform.events import Event, ResourceStarted
from tango_cloud.terraform.runner import Controls, Terraform
from tango_cloud.terraform.workspace import Workspace, Workspaces

from .things import FOR_EVER, make_module

_numbers = itertools.count()


class Store:
    """A bucket of its own for each test."""

    def __init__(self, emulation: Emulation) -> None:
        self.environment = emulation.environment
        self.bucket = f"states-{os.getpid()}-{next(_numbers)}"
        self._client = emulation.client("s3")
        self._client.create_bucket(Bucket=self.bucket)

    def keys(self) -> list[str]:
        listed = self._client.list_objects_v2(Bucket=self.bucket)
        return [found["Key"] for found in listed.get("Contents", [])]

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def put(self, key: str, content: str) -> None:
        self._client.put_object(Bucket=self.bucket, Key=key, Body=content.encode())

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.bucket, Key=key)


@pytest.fixture
def store(emulation: Emulation) -> Store:
    return Store(emulation)


Host = Callable[..., Workspace]


@pytest.fixture
def host(binary: Binary, tmp_path: Path, store: Store) -> Host:
    """Makes hosts that share nothing but the bucket: the workspace of a deployment on each."""
    modules = make_module(tmp_path / "modules", "wave")

    def make(
        deployment: str = "prod",
        place: str = f"s3://{store.bucket}/team/states",
        environment: dict[str, str] = store.environment,
    ) -> Workspace:
        settings = Settings(prefix=deployment, terraform=TerraformSettings(remote_state=place))
        base = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
        terraform = Terraform(
            binary,
            terraform_environment(base | environment, cli_config=None, plugin_cache=None),
            grace_seconds=20,
        )
        return Workspaces(
            tmp_path / f"host-{next(_numbers)}",
            terraform,
            modules,
            backend_from_settings(settings, environment),
        ).open("fake", "wave")

    return make


def _address(key: str) -> str:
    return command.address("terraform_data.thing", key)


def _key(stack: str, deployment: str = "prod") -> str:
    return f"team/states/{deployment}/waves/{stack}/tango-cloud.tfstate"


def _lock_object(stack: str) -> tuple[str, str]:
    """A lock as Terraform writes it: (key, content)."""
    lock = {
        "ID": "11111111-2222-3333-4444-555555555555",
        "Operation": "OperationTypeApply",
        "Who": "someone@elsewhere",
        "Version": "1.11.4",
        "Created": "2030-01-31T12:00:00Z",
    }
    return f"{_key(stack)}.tflock", json.dumps(lock)


def test_a_state_lies_where_an_operator_finds_it_and_a_secret_nowhere(
    host: Host, store: Store, tmp_path: Path
) -> None:
    here, stack, seen = host(), tmp_path / "0123456789ab", tmp_path / "seen"
    things = {"a": f'printf %s "$SECRET" > {seen}'}
    result = here.apply(stack, {"things": things}, {"secret": "swordfish"})
    assert result.outputs == {"things": {"a": "a"}} == here.outputs(stack)
    assert here.resources(stack) == [_address("a")]
    assert here.ids(stack, "terraform_data.thing").keys() == {"a"}
    assert here.ids(tmp_path / "another", "terraform_data.thing") == {}
    assert store.keys() == [_key("0123456789ab")]
    assert seen.read_text() == "swordfish"
    files = [path for path in (*stack.iterdir(), *here.folder.rglob("*")) if path.is_file()]
    written = [store.read(_key("0123456789ab")), *(file.read_bytes() for file in files)]
    assert not [content for content in written if b"swordfish" in content]
    assert [path.name for path in stack.iterdir()] == ["inputs.tfvars.json"]
    assert (here.folder / "backend.tf.json").stat().st_mode & 0o777 == 0o600


def test_two_hosts_at_once_on_one_stack(host: Host, store: Store, tmp_path: Path) -> None:
    hosts, log = [host(), host()], tmp_path / "log"
    start = threading.Barrier(2)

    def apply(number: int) -> object:
        start.wait()
        return (
            hosts[number]
            .apply(tmp_path / str(number) / "shared", {"things": {"a": f"echo >> {log}; sleep 1"}})
            .outputs
        )

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(apply, range(2))) == [{"things": {"a": "a"}}] * 2
    assert log.read_text() == "\n", "made once"
    assert store.keys() == [_key("shared")]


def test_whoever_comes_while_a_state_is_first_made_tries_again(
    host: Host, store: Store, tmp_path: Path
) -> None:
    here, pids = host(), list[int]()
    key, content = _lock_object("new")
    store.put(key, content)

    def on_start(pid: int) -> None:
        pids.append(pid)
        if len(pids) == 2:
            store.delete(key)

    here.apply(tmp_path / "new", {"things": {"a": "true"}}, controls=Controls(on_start=on_start))
    assert len(pids) == 2
    assert here.resources(tmp_path / "new") == [_address("a")]


def test_many_stacks_at_once(host: Host, store: Store, tmp_path: Path) -> None:
    hosts = [host(), host()]

    def life(number: int) -> object:
        here, stack = hosts[number % 2], tmp_path / f"stack-{number}"
        outputs = here.apply(stack, {"things": {str(number): "true"}}).outputs
        here.discard(stack)
        return outputs

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(life, range(8)))
    assert results == [{"things": {str(number): str(number)}} for number in range(8)]
    assert store.keys() == []


def test_another_host_removes_forgets_and_discards(
    host: Host, store: Store, tmp_path: Path
) -> None:
    here, there, stack = host(), host(), tmp_path / "here" / "w1"
    elsewhere = tmp_path / "there" / "w1"
    here.apply(stack, {"things": dict.fromkeys("abc", "true")})
    there.forget(elsewhere, [_address("a"), _address("nothing")])
    there.forget(elsewhere, [_address("a")])
    assert here.resources(stack) == [_address("b"), _address("c")]
    with ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(one.forget, where, [_address("b")])
            for one, where in ((here, stack), (there, elsewhere))
        ]:
            done.result()
    assert there.resources(elsewhere) == [_address("c")]
    there.discard(elsewhere)
    there.discard(elsewhere)
    here.discard(stack)
    assert not stack.exists()
    assert store.keys() == []


def test_asking_about_a_stack_that_never_was_makes_none(
    host: Host, store: Store, tmp_path: Path
) -> None:
    here, stack = host(), tmp_path / "never"
    assert here.resources(stack) == []
    assert here.outputs(stack) == {}
    here.destroy(stack)
    here.forget(stack, [_address("a")])
    here.break_lock(stack)
    here.discard(stack)
    assert store.keys() == []


def test_the_permissions_of_the_docs_are_enough(host: Host, store: Store, tmp_path: Path) -> None:
    """docs/remote-state.md, for the deployment `prod`."""
    refused: list[str] = []

    class Gate(BaseHTTPRequestHandler):
        def forward(self) -> None:
            url = urlsplit(self.path)
            bucket, _, key = url.path.removeprefix("/").partition("/")
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            allowed = bucket == store.bucket and (
                (key or prefix).startswith("team/states/prod/")
                or (key == "tango-cloud.tfstate" and self.command in ("GET", "HEAD"))
            )
            if not allowed:
                refused.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = HTTPConnection(urlsplit(store.environment["AWS_ENDPOINT_URL"]).netloc)
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response(answer.status if allowed else 403)
            for name, text in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, text)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = forward  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            gate = f"http://127.0.0.1:{server.server_port}"
            here = host(environment={**store.environment, "AWS_ENDPOINT_URL_S3": gate})
            stack = tmp_path / "w1"
            here.apply(stack, {"things": dict.fromkeys("ab", "true")})
            store.put(*_lock_object("w1"))
            here.break_lock(stack)
            here.forget(stack, [_address("a")])
            here.destroy(stack)
            here.discard(stack)
        finally:
            server.shutdown()
    assert not refused
    assert store.keys() == []


def test_two_deployments_never_meet(host: Host, store: Store, tmp_path: Path) -> None:
    for deployment in ("prod", "Prod", "prod2"):
        host(deployment).apply(tmp_path / deployment / "w1", {"things": {deployment: "true"}})
    names = ("Prod", "prod", "prod2")
    assert store.keys() == [_key("w1", deployment) for deployment in names]
    host("prod").discard(tmp_path / "prod" / "w1")
    assert host("prod2").resources(tmp_path / "prod2" / "w1") == [_address("prod2")]


def test_the_lock_of_one_that_was_killed_is_broken(
    host: Host, store: Store, tmp_path: Path
) -> None:
    here, there, stack = host(), host(), tmp_path / "w1"
    pids: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, ResourceStarted):
            os.killpg(pids[0], signal.SIGKILL)

    with pytest.raises(TerraformError):
        here.apply(
            stack,
            {"things": {"a": FOR_EVER}},
            controls=Controls(on_event=on_event, on_start=pids.append),
        )
    assert store.keys() == [_key("w1"), f"{_key('w1')}.tflock"]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(one.break_lock, stack) for one in (here, there)]:
            done.result()
    there.break_lock(stack)
    assert store.keys() == [_key("w1")]
    assert there.apply(stack, {"things": {"b": "true"}}).outputs
    there.discard(stack)
    assert store.keys() == []


def test_the_lock_of_a_state_that_cannot_be_had_names_its_holder(
    host: Host, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_LOCK_TRIES", 2)
    store.put(*_lock_object("new"))
    with pytest.raises(TerraformError, match=r"(?s)ID: +1111.*someone@elsewhere"):
        host().apply(tmp_path / "new", {"things": {}})


def test_an_interrupt_frees_the_lock(host: Host, store: Store, tmp_path: Path) -> None:
    here, cancel = host(), threading.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, ResourceStarted):
            cancel.set()

    with pytest.raises(TerraformError, match="cancelled"):
        here.apply(
            tmp_path / "w1",
            {"things": {"a": FOR_EVER}},
            controls=Controls(on_event=on_event, cancelled=cancel.is_set),
        )
    assert store.keys() == [_key("w1")]


def test_a_bucket_that_does_not_exist_is_named(host: Host) -> None:
    with pytest.raises(TerraformError, match="does not exist") as caught:
        host(place="s3://no-such-bucket/x")
    assert "s3://no-such-bucket/x/prod/ (terraform.remote_state)" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (403, "AccessDenied", "AccessDenied: not you"),
        (301, "PermanentRedirect", 'from "us-east-1", actual location "eu-west-1"'),
    ],
)
def test_what_s3_refuses_is_told(
    host: Host, store: Store, status: int, code: str, told: str
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>not you</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-amz-bucket-region", "eu-west-1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        environment = {
            **store.environment,
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        }
        try:
            with pytest.raises(TerraformError, match=told) as caught:
                host(environment=environment)
        finally:
            server.shutdown()
    assert "team/states/prod/ (terraform.remote_state)" in str(caught.value)
