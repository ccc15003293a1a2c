"""The Google provider without Google: its inventory, its orders, its deletions."""

from __future__ import annotations

import datetime as dt
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import requests

from tango_cloud.core import tags
from tango_cloud.core.errors import (
    AuthenticationError,
    ConfigurationError,
    NextMove,
    ProviderUnavailable,
)
from tango_cloud.core.model import InstanceStatus, MachineKey, MachineRequest, Offer, Shape
from tango_cloud.core.sections import GcpSettings
from tango_cloud.providers import tagged
from tango_cloud.providers.gcp import GcpProvider
from tango_cloud.providers.gcp.clients import Clients, Patience
from tango_cloud.providers.gcp.errors import DeletionProtected
from tango_cloud.providers.protocol import Bootstrap, Diagnosable, Provider

from .google_api import PROJECT, Answer, Google, error

UID = "5f0a6c0e91d2"
WAVE = "91d25f0a6c0e"
NAME = f"tango-{UID}"
ID = f"us-central1-b/{NAME}"
CREATED = dt.datetime(2030, 1, 31, 11, tzinfo=dt.UTC)
EXPIRES = dt.datetime(2030, 1, 31, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
LIST = "aggregated/instances"
PATH = f"zones/us-central1-b/instances/{NAME}"


def provider(settings: GcpSettings | None = None, seconds: float = 0.0) -> GcpProvider:
    """One that waits for nothing."""
    clients = Clients(PROJECT, Patience(1, seconds, first_pause=1e-6))
    return GcpProvider(settings or GcpSettings(), "prod", clients=clients, clock=lambda: CREATED)


def described(name: str = NAME, /, **changes: str | None) -> dict[str, Any]:
    """An instance as Google has it; `changes` are to its labels, None takes one away."""
    labels = {
        tags.DEPLOYMENT: "prod",
        tags.ID: "1001",
        tags.NAME: "a_20_b",
        tags.UID: UID,
        tags.WAVE: WAVE,
        tags.IMAGE: tags.encode("course.img"),
        tags.CREATED: "1896087600",
        tags.EXPIRES: str(int(EXPIRES.timestamp())),
    } | {key.replace("_", "-"): text for key, text in changes.items()}
    zone = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/us-central1-b"
    return {
        "id": "4711",
        "name": name,
        "status": "RUNNING",
        "zone": zone,
        "machineType": f"{zone}/machineTypes/e2-small",
        "creationTimestamp": "2030-01-31T03:00:00.000-08:00",
        "networkInterfaces": [
            {"networkIP": "10.88.0.7", "accessConfigs": [{"natIP": "203.0.113.7"}]}
        ],
        "labels": {key: text for key, text in labels.items() if text is not None},
        "aFieldOfTomorrow": 1,
    }


def page(*instances: dict[str, Any], token: str = "", **more: Any) -> Answer:
    nothing = {"code": "NO_RESULTS_ON_PAGE", "message": "none"}
    here = {"instances": list(instances)} if instances else {"warning": nothing}
    scopes = {"zones/us-central1-a": {"warning": nothing}, "zones/us-central1-b": here}
    return {"items": scopes, **({"nextPageToken": token} if token else {}), **more}


def test_it_satisfies_the_protocols() -> None:
    as_provider: Provider = provider()
    assert isinstance(as_provider, Diagnosable)
    assert as_provider.sudo
    assert as_provider.machine_resource == "google_compute_instance.machine"


def test_an_instance_is_what_google_says(google: Google) -> None:
    google.answer(LIST, page(described()))
    (found,) = provider().instances("prod")
    assert found.key == MachineKey("prod", 1001, "a b")
    assert (found.instance_id, found.uid, found.wave) == (ID, UID, WAVE)
    assert (found.address, found.port, found.username) == ("10.88.0.7", 22, "tango")
    assert (found.zone, found.instance_type) == ("us-central1-b", "e2-small")
    assert (found.image, found.status) == ("course.img", InstanceStatus.RUNNING)
    assert (found.created, found.expires) == (CREATED, EXPIRES)


def test_every_page_is_read_and_what_is_not_ours_is_dropped(google: Google) -> None:
    others = [
        described("b", tango_deployment="prod-2"),
        described("c", tango_deployment="Prod"),
        {k: v for k, v in described("d").items() if k != "labels"},
    ]
    google.answer(
        LIST, page(described("a"), *others, token="1"), page(token="2"), page(described("e"))
    )
    found = [i.instance_id for i in provider().instances("prod")]
    assert found == ["us-central1-b/a", "us-central1-b/e"]
    asked = [request.query for request in google.of(LIST)]
    assert {query["filter"] for query in asked} == {'labels.tango-deployment="prod"'}
    assert [query.get("pageToken") for query in asked] == [None, "1", "2"]
    assert not any("returnPartialSuccess" in query for query in asked), "it is off"
    google.answer(LIST, page())
    assert provider().instances("Prod") == []
    assert google.asked[-1].query["filter"] == 'labels.tango-deployment="_50_rod"'


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("PROVISIONING", InstanceStatus.PENDING),
        ("STAGING", InstanceStatus.PENDING),
        ("RUNNING", InstanceStatus.RUNNING),
        ("STOPPING", InstanceStatus.STOPPING),
        ("SUSPENDING", InstanceStatus.STOPPING),
        # Not on its way out: it is to be deleted yet.
        ("TERMINATED", InstanceStatus.UNKNOWN),
        ("SUSPENDED", InstanceStatus.UNKNOWN),
        ("REPAIRING", InstanceStatus.UNKNOWN),
        ("INVENTED_TOMORROW", InstanceStatus.UNKNOWN),
    ],
)
def test_statuses(google: Google, state: str, status: InstanceStatus) -> None:
    google.answer(LIST, page(described() | {"status": state}))
    assert provider().instances("prod")[0].status is status


UNREACHABLE = {"code": "UNREACHABLE", "message": "The scope is unreachable."}


@pytest.mark.parametrize(
    "hole",
    [
        {"unreachables": [f"projects/{PROJECT}/zones/us-central1-c"]},
        {"items": {"zones/us-central1-c": {"warning": UNREACHABLE}}},
        {"items": {"zones/us-central1-c": {"warning": UNREACHABLE, "instances": [described()]}}},
        {"items": {"zones/us-central1-c": {"warning": {"code": "NEW_OF_TOMORROW"}}}},
        {"warning": {"code": "PARTIAL_SUCCESS", "message": "some"}},
    ],
)
def test_a_zone_that_does_not_answer_is_a_failure_never_an_absence(
    google: Google, hole: dict[str, Any]
) -> None:
    google.answer(LIST, page(described("a"), token="1"), page(described("b"), **hole))
    with pytest.raises(ProviderUnavailable, match=r"us-central1-c|all of it"):
        provider().instances("prod")


def test_a_listing_that_breaks_off_is_an_error(google: Google) -> None:
    google.answer(LIST, page(described(), token="1"), error(403, "rateLimitExceeded", "slowly"))
    with pytest.raises(ProviderUnavailable, match="slowly"):
        provider().instances("prod")
    google.answer(LIST, page(described(), token="1"), requests.ConnectionError("reset"))
    with pytest.raises(ProviderUnavailable, match="reset"):
        provider().instances("prod")
    google.answer(LIST, error(403, "forbidden", "Required 'compute.instances.list' permission"))
    with pytest.raises(AuthenticationError, match=r"compute\.instances\.list"):
        provider().instances("prod")
    assert len(google.of(LIST)) == 5, "what is refused is not asked for again"


def test_what_passes_is_asked_for_again(google: Google) -> None:
    google.answer(
        LIST,
        error(403, "rateLimitExceeded"),
        requests.ConnectionError("reset"),
        error(503, "backendError"),
        page(described()),
    )
    assert len(provider(seconds=60).instances("prod")) == 1


def test_damaged_labels_neither_hide_it_nor_its_neighbours(
    google: Google, caplog: pytest.LogCaptureFixture
) -> None:
    ours = provider()
    google.answer(LIST, page(described("odd", tango_uid="", tango_expires="x"), described()))
    with caplog.at_level(logging.WARNING):
        damaged, sound = ours.instances("prod")
        ours.instances("prod")
    assert sound.uid == UID
    assert set(damaged.faults) == {tags.UID, tags.EXPIRES}
    assert (damaged.uid, damaged.expires) == ("us-central1-b/odd", CREATED + DAY)
    (warning,) = [r for r in caplog.records if r.name == tagged.__name__]
    assert "us-central1-b/odd" in warning.getMessage(), "once, not with every listing"


def test_addresses(google: Google, tmp_path: Path) -> None:
    google.answer(LIST, page(described()))
    public = GcpSettings(ssh_from=("192.0.2.7/32",), public_address=True)
    assert provider(public).instances("prod")[0].address == "203.0.113.7"
    reach = tmp_path / "reach.json"
    reach.write_text(
        json.dumps({"10.88.0.7": {"address": "127.0.0.1", "port": 4722, "username": "me"}})
    )
    (found,) = provider(GcpSettings(reach=reach)).instances("prod")
    assert (found.address, found.port, found.username) == ("127.0.0.1", 4722, "me")
    reach.write_text("[]")
    with pytest.raises(ConfigurationError, match=r"gcp\.reach"):
        provider(GcpSettings(reach=reach)).instances("prod")
    google.answer(LIST, page(described() | {"networkInterfaces": []}))
    assert provider().instances("prod")[0].address == ""


def running(name: str = "operation-1", **more: Any) -> Answer:
    return {"name": name, "status": "RUNNING", "operationType": "delete", **more}


def test_a_deletion_asked_for_twice_is_the_same(google: Google) -> None:
    google.answer(PATH, running(), method="DELETE")
    google.answer(PATH.replace("-b/", "-c/"), running(), method="DELETE")
    provider().terminate([ID, ID])
    provider().terminate([ID.replace("-b/", "-c/")])
    provider().terminate([ID])
    first, other, again = (request.query["requestId"] for request in google.asked)
    assert first == again != other
    provider().terminate([])
    assert len(google.asked) == 3


def test_what_is_gone_is_deleted_but_a_zone_that_is_not_there_is_an_error(google: Google) -> None:
    provider().terminate([ID, "odd", "projects/p/zones/z/instances/i"])
    assert len(google.asked) == 1
    google.answer(
        PATH,
        error(404, "notFound", f"The resource 'projects/{PROJECT}' was not found"),
        method="DELETE",
    )
    with pytest.raises(ConfigurationError, match="notFound"):
        provider().terminate([ID])


def test_a_deletion_that_has_failed_is_begun_anew(google: Google) -> None:
    """Google answers an id that it knows with the operation that it knows."""
    failed = running(
        status="DONE",
        httpErrorStatusCode=500,
        error={"errors": [{"code": "INTERNAL_ERROR", "message": "oops"}]},
    )
    google.answer(PATH, failed, running("operation-2"), method="DELETE")
    provider().terminate([ID])
    first, second = (request.query["requestId"] for request in google.asked)
    assert first != second
    google.answer(PATH, failed, method="DELETE")
    with pytest.raises(ProviderUnavailable, match="INTERNAL_ERROR: oops"):
        provider().terminate([ID])
    assert first == google.asked[2].query["requestId"]


def test_an_instance_made_anew_under_its_name_is_deleted_too(google: Google) -> None:
    absent = error(404, "notFound", f"The resource 'projects/{PROJECT}/{PATH}' was not found")
    google.answer(PATH, running(status="DONE"), absent, method="DELETE")
    provider().terminate([ID])
    google.answer(PATH, running(status="DONE"), running("operation-2"), method="DELETE")
    provider().terminate([ID])
    assert len(google.asked) == 4


def test_every_deletion_is_tried(google: Google) -> None:
    names = [f"tango-{number:012x}" for number in range(30)]
    for name in names:
        google.answer(f"zones/z-a/instances/{name}", running(), method="DELETE")
    google.answer(
        f"zones/z-a/instances/{names[3]}", error(503, "backendError", "away"), method="DELETE"
    )
    protected = "Resource cannot be deleted if it's protected against deletion."
    google.answer(
        f"zones/z-a/instances/{names[7]}", error(400, "invalidUsage", protected), method="DELETE"
    )
    with pytest.raises(ProviderUnavailable, match="away"):
        provider().terminate(f"z-a/{name}" for name in names)
    assert len({request.path for request in google.asked}) == 30
    google.answer(f"zones/z-a/instances/{names[3]}", running(), method="DELETE")
    with pytest.raises(DeletionProtected, match="no-deletion-protection") as caught:
        provider().terminate(f"z-a/{name}" for name in names)
    assert caught.value.instance_ids == (f"z-a/{names[7]}",)
    assert caught.value.next_move is NextMove.STOP


def test_a_lost_answer_is_asked_for_again_by_the_same_id(google: Google) -> None:
    google.answer(PATH, requests.ConnectionError("reset"), running(), method="DELETE")
    provider(seconds=60).terminate([ID])
    first, second = (request.query["requestId"] for request in google.asked)
    assert first == second


def ordered(disk_gib: int | None = None, expires: dt.datetime = EXPIRES) -> Any:
    request = MachineRequest(
        UID,
        MachineKey("prod", 1001, "course/ü"),
        Shape("course.img", disk_gib=disk_gib),
        Offer("gcp", "us-central1", "us-central1-b", "e2-small"),
        {tags.DEPLOYMENT: "prod"},
        expires,
        "secret",
    )
    return provider().wave_machines([request])[UID]


def test_an_order_of_machines(google: Google) -> None:
    image = {"name": "course-v2", "diskSizeGb": "10", "status": "READY", "architecture": "X86_64"}
    google.answer("global/images", {})
    google.answer("global/images/family/course", image)
    assert ordered() == {
        "image": f"projects/{PROJECT}/global/images/course-v2",
        "instance_type": "e2-small",
        "zone": "us-central1-b",
        "market": "on-demand",
        "disk_gib": 10,
        "tags": {"tango-deployment": "prod"},
        "expires": "2030-01-31T12:00:00Z",
        "run_seconds": 3600,
    }
    assert [ordered(size)["disk_gib"] for size in (5, 20)] == [10, 20]


@pytest.mark.parametrize(
    ("seconds", "run"), [(-5, 30), (29.5, 30), (61.9, 61), (120 * 86400 + 1, 120 * 86400)]
)
def test_google_ends_it_at_its_expiry_within_what_google_takes(
    google: Google, seconds: float, run: int
) -> None:
    google.answer("global/images", {})
    google.answer("global/images/family/course", {"name": "course-v2", "status": "READY"})
    machine = ordered(expires=CREATED + dt.timedelta(seconds=seconds))
    assert machine["run_seconds"] == run
    assert machine["disk_gib"] is None


def test_a_machine_ends_itself_only_after_google_should_have_deleted_it() -> None:
    text = provider().user_data(Bootstrap("private", "public", ("key",), EXPIRES))
    assert "2030-01-31 12:15:00 UTC" in text
    assert "2030-01-31 12:00:00 UTC" not in text


def published(key: str, text: str) -> dict[str, str]:
    return {"namespace": "hostkeys", "key": key, "value": text}


def test_a_host_key_is_what_the_machine_has_published(google: Google) -> None:
    path = f"{PATH}/getGuestAttributes"
    assert provider().host_key(ID) == ""
    google.answer(path, {"queryValue": {"items": [published("ssh-rsa", "AAAAB3")]}})
    assert provider().host_key(ID) == ""
    items = [published("ssh-rsa", "AAAAB3"), published("ssh-ed25519", "AAAAC3Nz+/=\n")]
    google.answer(path, {"queryValue": {"items": items}})
    assert provider().host_key(ID) == "ssh-ed25519 AAAAC3Nz+/="
    assert google.asked[-1].query == {"queryPath": "hostkeys/"}
    google.answer(path, {"queryValue": {"items": [published("ssh-ed25519", "AAAA\nevil")]}})
    assert provider().host_key(ID) == ""
    google.answer(path, error(503, "backendError", "away"))
    with pytest.raises(ProviderUnavailable, match="away"):
        provider().host_key(ID)


def test_an_envelope_is_ordered_as_the_settings_say() -> None:
    fresh = provider(GcpSettings(ssh_from=("192.0.2.7/32",))).envelope_variables("Prod")
    assert fresh == {
        "deployment": "_50_rod",
        "network_cidr": "10.88.0.0/20",
        "zones": ["us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f"],
        "network": None,
        "ssh_from": ["192.0.2.7/32"],
        "public_address": False,
    }
    settings = GcpSettings(network="n", subnetworks={"us-central1": "s"}, ssh_from=("10.0.0.0/8",))
    network = provider(settings).envelope_variables("p")["network"]
    assert network == {"network": "n", "subnetworks": {"us-central1": "s"}}
