"""The simulated Google plugin: its schema is the published one, and it does what the real one does.

With TANGO_TESTS_GOOGLE_PLUGIN=real the tests of what a plugin does run with the real one.
"""

from __future__ import annotations

import ast
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tango_cloud.core.errors import TerraformError, TerraformUnusable
from tango_cloud.terraform import command
from tango_cloud.terraform.binary import resolve
from tango_cloud.terraform.environment import terraform_environment
from tango_cloud.terraform.modules import copy_module, modules_root
from tango_cloud.terraform.runner import Controls, Terraform

from ..compute.client import ComputeEmulation, Fault
from ..compute.client import Unavailable as NoEmulation
from ..google_plugin import VENV, is_real
from ..google_plugin.simulated.compute import Endpoint, NotLoopback

ZONES = ["us-central1-a", "us-central1-b", "us-east1-b"]
STATE = Path("terraform.tfstate")
RESOURCES = ("compute_network", "compute_subnetwork", "compute_firewall", "compute_instance")
MANY = 40
only_simulated = pytest.mark.skipif(is_real(), reason="the real plugin is used")


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComputeEmulation]:
    try:
        running = ComputeEmulation.start(tmp_path_factory.mktemp("compute"))
    except NoEmulation as error:
        pytest.skip(str(error))
    yield running
    running.stop()


@pytest.fixture
def cloud(emulation: ComputeEmulation) -> Iterator[ComputeEmulation]:
    """Without orders from the test before, and without its instances afterwards."""
    emulation.clear()
    emulation.reset_calls()
    yield emulation
    emulation.clear()
    for instance in emulation.instances():
        emulation.delete(f"{instance['zone'].rsplit('/', 1)[-1]}/{instance['name']}")


def make_terraform(plugin: Mapping[str, str], **environment: str) -> Terraform:
    try:
        binary = resolve()
    except TerraformUnusable as error:
        pytest.skip(str(error))
    base = {name: text for name, text in os.environ.items() if not name.startswith("GOOGLE_")}
    kept = terraform_environment(base, cli_config=None, plugin_cache=None)
    return Terraform(binary, kept | dict(plugin) | environment)


@pytest.fixture
def terraform(google_plugin: Mapping[str, str], cloud: ComputeEmulation) -> Terraform:
    ours = {
        "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": f"{cloud.endpoint}/compute/v1/",
        "GOOGLE_PROJECT": cloud.project,
        "GOOGLE_OAUTH_ACCESS_TOKEN": "dummy",
    }
    return make_terraform(google_plugin, **ours)


@dataclass
class Module:
    """A module of ours in a folder, with the variables of its last apply."""

    terraform: Terraform
    folder: Path
    variables: dict[str, object]

    def apply(
        self,
        *,
        destroy: bool = False,
        refresh: bool = True,
        cancelled: Callable[[], bool] | None = None,
        **changes: object,
    ) -> Any:
        """Its output. Raises TerraformError."""
        self.variables |= changes
        file = self.folder / "variables.json"
        file.write_text(json.dumps(self.variables))
        arguments = command.apply(
            STATE, [file], parallelism=MANY + 10, destroy=destroy, refresh=refresh
        )
        result = self.terraform.run(arguments, self.folder, Controls(cancelled=cancelled))
        return next(iter(result.outputs.values()), None)

    def resources(self) -> list[Any]:
        """What its state holds."""
        state = json.loads((self.folder / STATE).read_text())
        return [one for resource in state["resources"] for one in resource["instances"]]


def make_module(terraform: Terraform, name: str, folder: Path, **variables: object) -> Module:
    copy_module(modules_root() / name, folder)
    terraform.run(command.init(), folder)
    return Module(terraform, folder, variables)


@pytest.fixture
def envelope(terraform: Terraform, cloud: ComputeEmulation, tmp_path: Path) -> Iterator[Module]:
    variables = {
        "deployment": "one_1",
        "ssh_from": ["192.0.2.7/32"],
        "zones": ZONES,
        "network_cidr": cloud.subnetwork(),
    }
    module = make_module(terraform, "gcp/envelope", tmp_path / "envelope", **variables)
    yield module
    module.apply(destroy=True)
    for collection in ("global/firewalls", "global/networks", "regions/us-east1/subnetworks"):
        left = cloud.ask("GET", collection).get("items", [])
        assert [one["name"] for one in left if one["name"].startswith("tango-")] == []


@pytest.fixture(scope="module")
def surroundings(emulation: ComputeEmulation) -> Mapping[str, Any]:
    """An envelope and an image, which waves share."""
    by_region = emulation.make_network("waves", "us-central1", "us-east1")
    subnets = {zone: by_region[zone.rpartition("-")[0]] for zone in ZONES}
    return {
        "envelope": {"subnets": subnets, "network_tag": "tango-0a"},
        "image": emulation.register_image("course"),
    }


@pytest.fixture
def wave(terraform: Terraform, surroundings: Mapping[str, Any], tmp_path: Path) -> Module:
    """Of two machines, not applied yet: without user data, so without hosts."""
    variables = {
        "deployment": "one_1",
        "wave": "w1",
        "envelope": surroundings["envelope"],
        "machines": {uid(number): machine(surroundings["image"]) for number in range(2)},
    }
    return make_module(terraform, "gcp/wave", tmp_path / "wave", **variables)


def uid(number: int) -> str:
    return f"{number:012x}"


def machine(image: str, **more: object) -> dict[str, object]:
    asked = {
        "image": image,
        "instance_type": "e2-small",
        "zone": ZONES[0],
        "tags": {"tango-deployment": "one_1", "tango-name": "x"},
        "expires": "2040-01-31T12:00:00Z",
        "run_seconds": 3600,
    }
    return asked | more


# The schema


@only_simulated
@pytest.mark.parametrize("name", [*RESOURCES, "data_google_compute_subnetwork", "provider"])
def test_its_schema_is_the_published_one(told: Mapping[str, Any], name: str) -> None:
    """Told by another part of the package than the one that it is extracted from."""
    published = Published(VENV / "published" / f"{name}.py")
    if name == "provider":
        settable, _ = published.root("TerraformProvider")
        compare(published, settable, told["provider"]["block"], in_provider=True)
        return
    kind, base = ("resource", "TerraformResource")
    if name.startswith("data_"):
        kind, base = ("data_source", "TerraformDataSource")
    block = told[f"{kind}_schemas"][f"google_{name.removeprefix('data_google_')}"]["block"]
    settable, readable = published.root(base)
    compare(published, settable, block)
    assert readable == {*block["attributes"], *block["block_types"]}


@pytest.fixture(scope="module")
def told(
    google_plugin: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """The schema as Terraform has understood it."""
    terraform = make_terraform(google_plugin)
    folder = tmp_path_factory.mktemp("schema")
    copy_module(modules_root() / "gcp" / "wave", folder)
    terraform.run(command.init(), folder)
    shown = terraform.run(["providers", "schema", "-json"], folder).stdout
    (schema,) = json.loads(shown)["provider_schemas"].values()
    for block in blocks(schema):
        block.setdefault("attributes", {})
        block.setdefault("block_types", {})
    found: Mapping[str, Any] = schema
    return found


def blocks(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if isinstance(schema.get("block"), dict):
            yield schema["block"]
        for below in list(schema.values()):
            yield from blocks(below)


class Published:
    """A module of the bindings for Python, by what can be said to its classes."""

    TERRAFORM_S_OWN = frozenset(
        {
            *("connection", "count", "depends_on", "for_each", "lifecycle", "provider"),
            *("provisioners", "alias"),
        }
    )

    def __init__(self, file: Path) -> None:
        tree = ast.parse(file.read_text())
        self._classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def root(self, base: str) -> tuple[dict[str, tuple[str, bool]], set[str]]:
        """Of the class itself: its arguments, and what can be read of it."""
        (found,) = [node for node in self._classes.values() if base in map(_last_name, node.bases)]
        readable = {
            member.name
            for member in found.body
            if isinstance(member, ast.FunctionDef)
            and any(ast.unparse(one) == "builtins.property" for one in member.decorator_list)
        }
        inputs = {name for name in readable if name.endswith("_input")}
        arguments = self.arguments(found.name)
        for name in self.TERRAFORM_S_OWN:
            arguments.pop(name, None)
        return arguments, readable - inputs

    def arguments(self, name: str) -> dict[str, tuple[str, bool]]:
        """The type of each as it is written, and whether it must be there."""
        (made,) = [
            member
            for member in self._classes[name].body
            if isinstance(member, ast.FunctionDef) and member.name == "__init__"
        ]
        pairs = zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)
        return {
            argument.arg: (ast.unparse(argument.annotation or argument), default is None)
            for argument, default in pairs
        }


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""


def compare(
    published: Published,
    arguments: Mapping[str, tuple[str, bool]],
    block: Mapping[str, Any],
    *,
    in_provider: bool = False,
) -> None:
    settable = {
        name
        for name, attribute in block["attributes"].items()
        if attribute.get("optional") or attribute.get("required")
    }
    assert set(arguments) == settable | set(block["block_types"])
    for name, (written, is_required) in arguments.items():
        nested = re.search(r"'(\w+)', typing\.Dict\[builtins\.str, typing\.Any\]", written)
        if nested is None:
            attribute = block["attributes"][name]
            assert attribute.get("required", False) == is_required, name
            assert shape(attribute["type"]) == shape_written(written), name
            continue
        inside = block["block_types"][name]
        assert (inside.get("min_items", 0) > 0) == is_required, name
        if not in_provider:  # which has all of its blocks as lists
            is_one = inside["nesting_mode"] == "single" or inside.get("max_items") == 1
            assert is_one == ("typing.Sequence[" not in written), name
            compare(published, published.arguments(nested.group(1)), inside["block"])


def shape(told: object) -> str:
    if isinstance(told, str):
        return told
    assert isinstance(told, list)
    return f"{'map' if told[0] == 'map' else 'list'} of {told[1]}"


def shape_written(written: str) -> str:
    for mark, name in (
        ("typing.Mapping[builtins.str, ", "map of "),
        ("typing.Sequence[", "list of "),
    ):
        if mark in written:
            return name + shape_written(written.split(mark, 1)[1])
    kinds = {"builtins.bool": "bool", "jsii.Number": "number", "builtins.str": "string"}
    return next(kind for mark, kind in kinds.items() if mark in written)


# Where it goes


@pytest.mark.parametrize(
    "url",
    [
        *("", "https://compute.googleapis.com/compute/v1/", "https://127.0.0.1/compute/v1/"),
        *("http://192.0.2.1/compute/v1/", "http://0.0.0.0/compute/v1/", "http://localhost/v1/"),
        *("http://127.0.0.1.example.com/v1/", "http://127.0.0.1@192.0.2.1/v1/", "http://[::]/v1/"),
        "http://127.0.0.1:8080/compute/v1",
    ],
)
def test_it_refuses_every_address_that_is_not_loopback(url: str) -> None:
    with pytest.raises(NotLoopback):
        Endpoint.parse(url)


def test_it_takes_a_loopback_address() -> None:
    endpoint = Endpoint.parse("http://127.0.0.1:8080/compute/v1/")
    assert endpoint == Endpoint("127.0.0.1", 8080, "/compute/v1/")
    assert Endpoint.parse("http://[::1]:8080/v1/").host == "::1"


@only_simulated
@pytest.mark.parametrize("url", ["", "https://compute.googleapis.com/compute/v1/"])
def test_terraform_is_told_so(google_plugin: Mapping[str, str], tmp_path: Path, url: str) -> None:
    environment = {"GOOGLE_PROJECT": "p", "GOOGLE_OAUTH_ACCESS_TOKEN": "dummy"}
    terraform = make_terraform(google_plugin, GOOGLE_COMPUTE_CUSTOM_ENDPOINT=url, **environment)
    variables = {"deployment": "one", "ssh_from": ["192.0.2.7/32"], "zones": ZONES}
    module = make_module(terraform, "gcp/envelope", tmp_path / "envelope", **variables)
    with pytest.raises(TerraformError, match="Simulated plugin: "):
        module.apply()


# What it does


def test_an_envelope_is_made_changed_and_put_right(
    envelope: Module, cloud: ComputeEmulation
) -> None:
    made = envelope.apply()
    assert set(made["subnets"]) == set(ZONES)
    assert made["subnets"][ZONES[0]] == made["subnets"][ZONES[1]] != made["subnets"][ZONES[2]]
    (before,) = cloud.ask("GET", "global/firewalls")["items"]
    assert before["targetTags"] == [made["network_tag"]]

    cloud.reset_calls()
    assert envelope.apply() == made
    assert not [name for name in cloud.calls() if name.endswith(("insert", "patch", "delete"))]

    envelope.apply(ssh_from=["192.0.2.8/32"])
    (after,) = cloud.ask("GET", "global/firewalls")["items"]
    assert after["sourceRanges"] == ["192.0.2.8/32"]
    assert after["name"] == before["name"]

    wider = {"name": after["name"], "sourceRanges": ["0.0.0.0/0"]}
    cloud.done(cloud.ask("PATCH", f"global/firewalls/{after['name']}", wider))
    envelope.apply()
    (put_right,) = cloud.ask("GET", "global/firewalls")["items"]
    assert put_right["sourceRanges"] == ["192.0.2.8/32"]


def test_an_existing_network_is_used(
    terraform: Terraform, cloud: ComputeEmulation, tmp_path: Path
) -> None:
    made = cloud.make_network("shared", "us-central1")
    for subnetwork in ("shared", made["us-central1"]):
        variables = {
            "deployment": "two",
            "ssh_from": ["192.0.2.7/32"],
            "zones": ZONES,
            "network": {"network": "shared", "subnetworks": {"us-central1": subnetwork}},
        }
        folder = tmp_path / subnetwork.replace("/", "-")
        module = make_module(terraform, "gcp/envelope", folder, **variables)
        assert module.apply()["subnets"] == dict.fromkeys(ZONES[:2], made["us-central1"])
        module.apply(destroy=True)
    cloud.done(cloud.ask("DELETE", "regions/us-central1/subnetworks/shared"))
    cloud.done(cloud.ask("DELETE", "global/networks/shared"))


def test_a_machine_is_what_was_asked_for(wave: Module, cloud: ComputeEmulation) -> None:
    asked: Any = wave.variables["machines"]
    asked[uid(1)] |= {"market": "spot", "disk_gib": 30, "zone": ZONES[2]}
    made = wave.apply(machines=asked)
    found = {instance["name"]: instance for instance in cloud.instances()}
    assert set(found) == {f"tango-{uid(0)}", f"tango-{uid(1)}"}
    spot = found[f"tango-{uid(1)}"]
    assert made[uid(1)] == {
        "instance_id": f"{ZONES[2]}/tango-{uid(1)}",
        "address": spot["networkInterfaces"][0]["networkIP"],
        "port": 22,
        "zone": ZONES[2],
        "instance_type": "e2-small",
    }
    assert spot["labels"] == asked[uid(1)]["tags"]
    assert spot["scheduling"]["provisioningModel"] == "SPOT"
    assert spot["scheduling"]["maxRunDuration"]["seconds"] == "3600"
    assert spot["disks"][0]["diskSizeGb"] == "30"
    assert "serviceAccounts" not in spot
    assert "accessConfigs" not in spot["networkInterfaces"][0]

    cloud.reset_calls()
    assert wave.apply() == made
    assert not cloud.calls()["instances.insert"]


def test_many_are_made_at_once(wave: Module, cloud: ComputeEmulation) -> None:
    """One after another they would take two minutes."""
    cloud.order(Fault("slow", delay=3))
    (asked, *_) = dict(wave.variables["machines"]).values()  # type: ignore[call-overload]
    begun = time.monotonic()
    made = wave.apply(machines={uid(number): asked for number in range(MANY)})
    assert len(made) == len(cloud.instances()) == MANY
    assert time.monotonic() - begun < 40
    wave.apply(destroy=True, refresh=False)
    assert not cloud.instances()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Fault("operation-error", code="ZONE_RESOURCE_POOL_EXHAUSTED"),
            "Error waiting for instance to create: The zone .* does not have enough resources",
        ),
        (
            Fault("error", code="quotaExceeded"),
            r"Error creating instance: googleapi: Error 403: .*, quotaExceeded",
        ),
        (
            Fault("error", code="invalid", message="No good."),
            r"Error creating instance: googleapi: Error 400: No good\., invalid",
        ),
    ],
)
def test_a_creation_that_fails_is_told_and_not_in_the_state(
    wave: Module, cloud: ComputeEmulation, fault: Fault, words: str
) -> None:
    cloud.order(fault)
    with pytest.raises(TerraformError) as failed:
        wave.apply()
    assert len([one for one in failed.value.diagnostics if re.search(words, one)]) == 2
    assert wave.resources() == []


def test_a_passing_fault_is_met_again(wave: Module, cloud: ComputeEmulation) -> None:
    cloud.order(Fault("error", code="backendError", times=2))
    assert len(wave.apply()) == 2
    assert cloud.calls()["instances.insert"] == 4


def test_a_cancel_ends_the_wait_and_forgets_the_machine(
    wave: Module, cloud: ComputeEmulation
) -> None:
    """As the real plugin does: only its labels find it."""
    cloud.order(Fault("slow", delay=60))
    begun = time.monotonic()
    with pytest.raises(TerraformError):
        wave.apply(cancelled=lambda: cloud.calls()["instances.insert"] == 2)
    assert time.monotonic() - begun < 30
    assert wave.resources() == []
    assert len(cloud.instances()) == 2


def test_what_is_gone_is_seen_by_a_refresh_only(wave: Module, cloud: ComputeEmulation) -> None:
    made = wave.apply()
    for one in made.values():
        cloud.delete(one["instance_id"])
    with pytest.raises(TerraformError, match="Error deleting instance: googleapi: Error 404"):
        wave.apply(destroy=True, refresh=False)
    wave.apply(destroy=True)
    assert wave.resources() == []


@only_simulated
def test_what_is_not_simulated_is_refused(wave: Module) -> None:
    main = wave.folder / "main.tf"
    main.write_text(
        main.read_text().replace("can_ip_forward ", 'hostname = "x.y.z"\n  can_ip_forward ')
    )
    with pytest.raises(TerraformError, match=r"google_compute_instance\.hostname is not simulated"):
        wave.apply()
