"""Who we are, in which project, and what is found to be wrong with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tango_cloud.core.errors import AuthenticationError, ConfigurationError
from tango_cloud.core.sections import GcpSettings
from tango_cloud.core.settings import load
from tango_cloud.providers.gcp import GcpProvider, diagnosis, endpoint, from_settings
from tango_cloud.providers.gcp.clients import Clients
from tango_cloud.providers.protocol import Check

from .google_api import ENDPOINT, PROJECT, Google, error

DOCS = Path(__file__).parents[2] / "docs"


def user_credentials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `gcloud auth application-default login` leaves them."""
    path = folder / "credentials.json"
    secret = {"client_id": "c", "client_secret": "s", "refresh_token": "r"}
    found = {"type": "authorized_user", "quota_project_id": "other", "account": "me@example.com"}
    path.write_text(json.dumps(secret | found))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))


def test_the_project_in_its_order(
    google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="GOOGLE_CLOUD_PROJECT"):
        Clients(None).project  # noqa: B018
    monkeypatch.setattr("google.auth.default", lambda **more: (object(), "p-own"))
    monkeypatch.delenv(endpoint.VARIABLE)
    assert Clients(None).project.name == "p-own"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p-variable")
    found = Clients(None).project
    assert (found.name, found.source) == ("p-variable", "from GOOGLE_CLOUD_PROJECT")
    assert Clients("p-setting").project.name == "p-setting"


def test_terraform_goes_where_the_client_goes_and_as_the_same(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = Clients(PROJECT).environment()
    assert emulated["GOOGLE_COMPUTE_CUSTOM_ENDPOINT"] == ENDPOINT
    assert emulated["GOOGLE_PROJECT"] == PROJECT
    assert emulated["GOOGLE_OAUTH_ACCESS_TOKEN"]
    monkeypatch.delenv(endpoint.VARIABLE)
    real = Clients(PROJECT).environment()
    # The plugin would take these before the credentials that the client takes.
    for name in ("GOOGLE_CREDENTIALS", "GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_CLOUD_KEYFILE_JSON"):
        assert real[name] == ""
    assert endpoint.VARIABLE not in real


@pytest.mark.parametrize(
    "url",
    [
        "https://compute.googleapis.com/compute/v1/",
        "http://192.0.2.7:80/compute/v1/",
        "http://127.0.0.1.example.com:80/compute/v1/",
        "http://127.0.0.1:80@example.com/compute/v1/",
        "http://127.0.0.1/compute/v1/",
        "http://127.0.0.1:80/",
        "http://127.0.0.1:80/compute/v1",
        "http://127.0.0.1:port/compute/v1/",
        "127.0.0.1:80",
        "ftp://127.0.0.1:80/compute/v1/",
    ],
)
def test_without_credentials_nobody_but_this_host_is_talked_to(
    google: Google, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv(endpoint.VARIABLE, url)
    provider = GcpProvider(GcpSettings(project=PROJECT), "prod")
    for ask in (
        lambda: provider.instances("prod"),
        lambda: provider.terminate(["z/n"]),
        provider.images,
        provider.environment,
    ):
        with pytest.raises(ConfigurationError, match=endpoint.VARIABLE):
            ask()
    (check,) = provider.diagnose()
    assert not check.ok
    assert google.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_an_emulation_on_this_host(host: str) -> None:
    url = f"http://{host}:8080/compute/v1/"
    assert endpoint.emulated({endpoint.VARIABLE: url}) == url
    assert endpoint.origin(url) == f"http://{host}:8080"
    assert endpoint.emulated({endpoint.VARIABLE: ""}) is None


def test_nothing_is_asked_before_the_first_question_which_says_what_is_missing(
    google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(endpoint.VARIABLE)
    nameless = GcpProvider(GcpSettings(project=PROJECT), "prod")
    with pytest.raises(AuthenticationError, match="gcloud auth application-default login"):
        nameless.instances("prod")
    (credentials,) = nameless.diagnose()
    assert not credentials.ok
    assert "GOOGLE_APPLICATION_CREDENTIALS" in credentials.remedy
    user_credentials(tmp_path, monkeypatch)
    with pytest.raises(ConfigurationError, match=r"gcp\.project"):
        GcpProvider(GcpSettings(), "prod").images()
    known, project = GcpProvider(GcpSettings(), "prod").diagnose()
    assert (known.ok, known.finding) == (True, "me@example.com (oauth2)")
    assert (project.ok, project.remedy) == (False, "set gcp.project or GOOGLE_CLOUD_PROJECT")
    assert google.asked == []


@pytest.mark.parametrize(
    ("gcp", "fault"),
    [
        ({"public_address": True}, r"gcp\.public_address: .*gcp\.ssh_from"),
        ({"network": "n"}, r"gcp\.subnetworks: .*gcp\.network"),
        ({"subnetworks": {"us-central1": "s"}}, r"gcp\.subnetworks: .*gcp\.network"),
        ({"network": "n", "subnetworks": {"us-east1": "s"}}, r"gcp\.subnetworks: .*us-central1"),
        ({"network": "My Network", "subnetworks": {"us-central1": "s"}}, r"gcp\.network: "),
        ({"network_cidr": "10.0.0.0/8"}, r"gcp\.network_cidr: .*/16 to /25"),
        ({"ssh_from": ["0.0.0.0/0"]}, r"gcp\.ssh_from\.0: .*/8"),
        ({"markets": ["reserved"]}, r"gcp\.markets\.0: .*'on-demand' or 'spot'"),
        ({"machine_types": []}, r"gcp\.machine_types: "),
        ({"zones": []}, r"gcp\.zones: "),
        ({"zones": ["us-central1"]}, r"gcp\.zones\.0: "),
        ({"project": "My Project"}, r"gcp\.project: "),
        ({"endpoint": "x"}, r"gcp\.endpoint: unknown setting"),
    ],
)
def test_faults_of_the_settings(gcp: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        load({"gcp": gcp})


def test_the_settings_reach_the_provider() -> None:
    gcp = {"ssh_from": ["2001:db8::7/128"], "public_address": True, "zones": ["us-east1-b"]}
    made = from_settings(load({"prefix": "prod", "gcp": gcp}))
    variables = made.envelope_variables("prod")
    assert made.compress
    assert (variables["zones"], variables["public_address"]) == (["us-east1-b"], True)


def test_who_does_not_use_it_does_not_load_it() -> None:
    code = (
        "import sys, tango_cloud.cli.main; assert not [n for n in sys.modules if 'google' in n];"
        "import tango_cloud.providers.gcp; assert 'google.cloud.compute_v1' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


REGION = {
    "quotas": [
        {"metric": "CPUS", "limit": 24.0, "usage": 3.0},
        {"metric": "PREEMPTIBLE_CPUS", "limit": 0.0, "usage": 0.0},
    ]
}
INSTANCE = {"name": "tango-1", "zone": "https://x/zones/us-central1-a"}


@pytest.fixture
def account(google: Google) -> Google:
    """Where everything is as it should be."""
    google.answer(PROJECT, {"name": PROJECT, "quotas": []})
    google.answer("regions/us-central1", REGION)
    google.answer("global/images", {"items": [{"name": "course-v1", "status": "READY"}]})
    google.answer("zones", {"items": [{"name": z, "status": "UP"} for z in GcpSettings().zones]})
    kind = {"name": "e2-small", "guestCpus": 2, "memoryMb": 2048, "architecture": "X86_64"}
    for zone in GcpSettings().zones:
        google.answer(f"zones/{zone}/machineTypes", {"items": [kind]})
    scopes = {"zones/us-central1-a": {"instances": [INSTANCE]}}
    google.answer("aggregated/instances", {"items": scopes})
    allow(
        google,
        "zones/us-central1-a/instances/tango-1",
        "compute.instances.get",
        "compute.instances.delete",
    )
    allow(google, "global/images/course-v1", "compute.images.get", "compute.images.useReadOnly")
    return google


def allow(google: Google, path: str, *permissions: str) -> None:
    answer = {"permissions": list(permissions)} if permissions else {}
    google.answer(f"{path}/testIamPermissions", answer, method="POST")


def diagnosed(**settings: Any) -> dict[str, Check]:
    given = {"project": PROJECT, "ssh_from": ("192.0.2.7/32",)} | settings
    return {c.subject: c for c in GcpProvider(GcpSettings(**given), "prod").diagnose()}


def test_doctor_finds_everything_as_it_should_be(account: Google) -> None:
    found = diagnosed()
    assert [check for check in found.values() if not check.ok] == []
    assert found["Google project"].finding == f"{PROJECT} (from gcp.project)"
    assert found["quota of us-central1"].finding == "CPUS 3 of 24 used"
    assert found["images"].finding == "course-v1"
    assert found["a default machine"].finding.startswith("e2-small, on-demand; 4 offers in")
    permissions = found["Google permissions"].finding
    assert permissions.startswith("nothing is missing, as far as can be told")
    assert "compute.instances.create" in permissions
    assert "192.0.2.7/32" in found["SSH from"].finding
    assert {request.method for request in account.asked} == {"GET", "POST"}
    assert {r.path.rpartition("/")[2] for r in account.asked if r.method == "POST"} == {
        "testIamPermissions"
    }


def test_doctor_says_what_is_missing(account: Google) -> None:
    allow(account, "zones/us-central1-a/instances/tango-1", "compute.instances.get")
    allow(account, "regions/us-central1/subnetworks/s")
    account.answer("global/images", {})
    found = diagnosed(markets=("spot",), network="n", subnetworks={"us-central1": "s"})
    assert not found["quota of us-central1"].ok
    assert "PREEMPTIBLE_CPUS 0 of 0 used" in found["quota of us-central1"].finding
    assert not found["images"].ok
    permissions = found["Google permissions"]
    assert not permissions.ok
    assert (
        "missing: compute.instances.delete, compute.subnetworks.get, compute.subnetworks.use"
        in (permissions.finding)
    )
    assert permissions.remedy.startswith("allow it to this identity")
    assert not found["a default machine"].ok


def rule(name: str, source: str, **changes: object) -> dict[str, object]:
    network = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/global/networks/default"
    found = {"name": name, "network": network, "direction": "INGRESS", "sourceRanges": [source]}
    return found | {"allowed": [{"IPProtocol": "tcp", "ports": ["22"]}]} | changes


def test_doctor_says_whom_else_the_network_lets_in(account: Google) -> None:
    account.answer("regions/us-central1/subnetworks/default", {"name": "default"})
    rules = [
        rule("default-allow-ssh", "0.0.0.0/0"),
        rule("everything", "8.8.8.0/24", allowed=[{"IPProtocol": "all"}]),
        rule("a-range-of-ports", "::/0", allowed=[{"IPProtocol": "tcp", "ports": ["80", "20-30"]}]),
        rule("inside", "10.128.0.0/9"),
        rule("us", "192.0.2.7/32"),
        rule("others", "0.0.0.0/0", targetTags=["web"]),
        rule("elsewhere", "0.0.0.0/0", network="global/networks/other"),
        rule("off", "0.0.0.0/0", disabled=True),
        rule("out", "0.0.0.0/0", direction="EGRESS"),
        rule("web", "0.0.0.0/0", allowed=[{"IPProtocol": "tcp", "ports": ["443"]}]),
        rule("ping", "0.0.0.0/0", allowed=[{"IPProtocol": "icmp"}]),
    ]
    account.answer("global/firewalls", {"items": rules})
    given = {"network": "default", "subnetworks": {"us-central1": "default"}}
    found = diagnosed(**given)["network"]
    assert (found.ok, found.warning) == (True, True)
    assert found.finding.endswith(
        "default-allow-ssh (from 0.0.0.0/0), everything (from 8.8.8.0/24), "
        "a-range-of-ports (from ::/0)"
    )
    account.answer("global/firewalls", {"items": rules[3:]})
    assert not diagnosed(**given)["network"].warning
    account.answer("regions/us-central1/subnetworks/default", error(404, "notFound"))
    assert not diagnosed(**given)["network"].ok


def test_doctor_stops_where_nothing_answers(account: Google) -> None:
    account.answer(
        PROJECT, error(403, "accessNotConfigured", "not used before", newer="SERVICE_DISABLED")
    )
    found = diagnosed()
    assert list(found) == ["Google credentials", "Google project", "Compute Engine API"]
    assert "gcloud services enable" in found["Compute Engine API"].finding


def test_doctor_goes_on_where_one_question_is_not_understood(account: Google) -> None:
    path = "zones/us-central1-a/instances/tango-1/testIamPermissions"
    account.answer(path, error(501, "notImplemented"), method="POST")
    found = diagnosed()["Google permissions"]
    assert found.ok
    assert "compute.instances.delete" in found.finding


def test_the_role_holds_what_doctor_asks_about_each_once() -> None:
    role = yaml.safe_load((DOCS / "gcp-iam-role.yaml").read_text())
    permissions = role["includedPermissions"]
    assert len(permissions) == len(set(permissions))
    assert all(re.fullmatch(r"compute\.[a-zA-Z]+\.[a-zA-Z]+", one) for one in permissions)
    asked = [*diagnosis._OF_AN_INSTANCE, *diagnosis._OF_AN_IMAGE, *diagnosis._OF_A_SUBNETWORK]
    assert {*asked, diagnosis._OUTSIDE, *diagnosis._NEVER_TOLD} <= set(permissions)
