"""What every provider must do, by the real runner on its real (or emulated) cloud.

A provider's test module has a class that inherits `ProviderContract` and a fixture `cloud`, which
gives a `Cloud` and asserts at its end that nothing is left.
"""

from __future__ import annotations

import datetime as dt
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncssh
import pytest

from tango_cloud.core import tags
from tango_cloud.core.errors import ConfigurationError, TangoCloudError, TerraformError
from tango_cloud.core.model import Instance, InstanceStatus, MachineKey, MachineRequest, Shape
from tango_cloud.providers.protocol import BakedImage, Baker, Bootstrap, Provider, Recipe, Strays
from tango_cloud.terraform import command
from tango_cloud.terraform.events import Diagnostic, Event, ResourceDone
from tango_cloud.terraform.runner import Controls, Result
from tango_cloud.terraform.workspace import Workspace, Workspaces

LIFE = dt.timedelta(minutes=15)
"""How long a machine lives if a test leaves it."""


@dataclass(frozen=True)
class Keys:
    """A private key in OpenSSH's format, and its public half."""

    private: str = field(repr=False)
    public: str

    @classmethod
    def make(cls) -> Keys:
        key = asyncssh.generate_private_key("ssh-ed25519")
        return cls(key.export_private_key().decode(), key.export_public_key().decode().strip())


@dataclass
class Wave:
    """Machines made by one apply. `errors` holds what Terraform said of each that failed."""

    name: str
    deployment: str
    stack: Path
    requests: Sequence[MachineRequest]
    host_keys: Mapping[str, Keys]
    result: Result | None = None
    failure: TerraformError | None = None
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def uids(self) -> Sequence[str]:
        return [request.uid for request in self.requests]


@dataclass
class Cloud:
    """A provider, and what it takes to make machines with it.

    `spoil` turns a request into one that cannot be fulfilled. `gone_within` is how many seconds a
    removal may take, `brief` the life of a machine that expires right after it was made. `owner` is
    the deployment that the provider is for.
    """

    provider: Provider
    workspaces: Workspaces
    folder: Path
    spoil: Callable[[MachineRequest], MachineRequest]
    gone_within: float
    brief: dt.timedelta = dt.timedelta(seconds=8)
    owner: str = "prod"
    client: Keys = field(default_factory=Keys.make)
    applying: threading.Lock = field(default_factory=threading.Lock)
    made: list[str] = field(default_factory=list)
    """The uids of all machines ever asked for."""

    def envelope(self, deployment: str) -> object:
        workspace = self.workspaces.open(
            self.provider.name, "envelope", environment=self.provider.environment()
        )
        variables = self.provider.envelope_variables(deployment)
        with self.applying:
            applied = workspace.apply(self.folder / f"envelope-{deployment}", variables)
        return applied.outputs["envelope"]

    def remove_envelope(self, deployment: str) -> None:
        workspace = self.workspaces.open(
            self.provider.name, "envelope", environment=self.provider.environment()
        )
        workspace.destroy(self.folder / f"envelope-{deployment}")

    def wave(
        self,
        deployment: str,
        count: int,
        *,
        spoilt: Collection[int] = (),
        life: dt.timedelta = LIFE,
        name: str = "pool",
        image: str = "",
        change: Callable[[MachineRequest], MachineRequest] = lambda request: request,
        interrupt: bool = False,
    ) -> Wave:
        """Make machines; those whose numbers are in `spoilt` cannot be made. `interrupt`: Terraform
        is interrupted as soon as the first machine is there."""
        wave = secrets.token_hex(6)
        host_keys = {secrets.token_hex(6): Keys.make() for _ in range(count)}
        requests = [
            change(self._request(deployment, wave, 1000 + number, uid, keys, life, name, image))
            for number, (uid, keys) in enumerate(host_keys.items())
        ]
        requests = [self.spoil(r) if n in spoilt else r for n, r in enumerate(requests)]
        self.made += host_keys
        cancel = threading.Event()
        made = Wave(wave, deployment, self.folder / wave, requests, host_keys)

        def on_event(event: Event) -> None:
            if isinstance(event, Diagnostic) and event.is_error:
                made.errors[event.key] = str(event)
            if interrupt and isinstance(event, ResourceDone):
                cancel.set()

        try:
            made.result = self._open().apply(
                made.stack,
                {
                    "deployment": tags.encode(deployment),
                    "wave": wave,
                    "machines": self.provider.wave_machines(requests),
                    "envelope": self.envelope(deployment),
                },
                {"user_data": {request.uid: request.user_data for request in requests}},
                parallelism=max(count, 1),
                controls=Controls(on_event=on_event, cancelled=cancel.is_set),
            )
        except TerraformError as error:
            made.failure = error
        return made

    def waves(self, *deployments: str) -> Sequence[Wave]:
        """A machine for each, all at the same time."""
        with ThreadPoolExecutor(len(deployments)) as pool:
            return list(pool.map(lambda deployment: self.wave(deployment, 1), deployments))

    def destroy(self, wave: Wave, *, refresh: bool = False) -> None:
        """By Terraform."""
        self._open().destroy(wave.stack, parallelism=max(len(wave.uids), 1), refresh=refresh)

    def forget(self, wave: Wave, uids: Collection[str]) -> None:
        resource = self.provider.machine_resource
        self._open().forget(wave.stack, [command.address(resource, uid) for uid in uids])

    def resources(self, wave: Wave) -> Sequence[str]:
        return self._open().resources(wave.stack)

    def listed(self, deployment: str) -> Mapping[str, Instance]:
        """Live instances by uid."""
        return {
            instance.uid: instance
            for instance in self.provider.instances(deployment)
            if instance.status is not InstanceStatus.GONE
        }

    def wait_until(self, deployment: str, uids: Collection[str]) -> None:
        """Wait until exactly these live."""
        deadline = time.monotonic() + self.gone_within
        while set(self.listed(deployment)) != set(uids):
            assert time.monotonic() < deadline, (self.listed(deployment), uids)
            time.sleep(self.provider.poll_interval)

    def baked(self, deployment: str, image_id: str) -> BakedImage:
        """The image, once it is ready."""
        assert isinstance(self.provider, Baker)
        deadline = time.monotonic() + self.gone_within
        while True:
            found = {image.id: image for image in self.provider.baked(deployment)}
            if found[image_id].ready:
                return found[image_id]
            assert time.monotonic() < deadline, found
            time.sleep(self.provider.poll_interval)

    def _open(self) -> Workspace:
        return self.workspaces.open(
            self.provider.name, "wave", environment=self.provider.environment()
        )

    def _request(
        self,
        deployment: str,
        wave: str,
        number: int,
        uid: str,
        keys: Keys,
        life: dt.timedelta,
        name: str,
        image: str = "",
    ) -> MachineRequest:
        shape = Shape(image or self.provider.images()[0])
        now = dt.datetime.now(dt.UTC)
        expires = now + life
        return MachineRequest(
            uid=uid,
            key=MachineKey(deployment, number, name),
            shape=shape,
            offer=self.provider.offers(shape)[0],
            tags={
                tags.DEPLOYMENT: tags.encode(deployment),
                tags.ID: str(number),
                tags.NAME: tags.encode(name),
                tags.UID: uid,
                tags.WAVE: wave,
                tags.IMAGE: tags.encode(shape.image),
                tags.CREATED: str(int(now.timestamp())),
                tags.EXPIRES: str(int(expires.timestamp())),
            },
            expires=expires,
            user_data=self.provider.user_data(
                Bootstrap(keys.private, keys.public, (self.client.public,), expires)
            ),
        )


class ProviderContract:
    """Inherit this; the class needs a fixture `cloud`."""

    def test_a_wave_is_in_the_inventory_with_everything_asked_for(self, cloud: Cloud) -> None:
        name = "pool/Ünïcode 1"
        wave = cloud.wave("prod", 3, name=name)
        assert wave.failure is None
        assert wave.result is not None
        listed = cloud.listed("prod")
        assert set(listed) == set(wave.uids)
        outputs = wave.result.outputs["machines"]
        assert isinstance(outputs, Mapping)
        for request in wave.requests:
            instance = listed[request.uid]
            assert instance.key == request.key
            assert instance.wave == wave.name
            assert instance.image == request.shape.image
            assert (instance.zone, instance.instance_type) == (
                request.offer.zone,
                request.offer.instance_type,
            )
            assert instance.status in {InstanceStatus.PENDING, InstanceStatus.RUNNING}
            assert abs(instance.expires - request.expires) < dt.timedelta(seconds=1)
            assert abs(instance.created - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
            assert outputs[request.uid]["instance_id"] == instance.instance_id
        secret = [keys.private.splitlines()[2] for keys in wave.host_keys.values()]
        kept = [path.read_text() for path in wave.stack.rglob("*") if path.is_file()]
        assert kept
        assert not [text for text in kept for line in secret if line in text]

    def test_waves_do_not_wait_for_each_other_and_deployments_see_their_own(
        self, cloud: Cloud
    ) -> None:
        first, *others = cloud.waves("prod", "prod", "prod-2", "pro", "Prod")
        assert set(first.uids) < set(cloud.listed("prod"))
        cloud.destroy(first)
        cloud.wait_until("prod", others[0].uids)
        for wave in others:
            assert wave.failure is None, wave.deployment
            assert set(cloud.listed(wave.deployment)) == set(wave.uids), wave.deployment
        assert cloud.listed("prod-") == {}
        assert cloud.listed("") == {}

    def test_nothing_was_ever_made_is_an_empty_inventory(self, cloud: Cloud) -> None:
        assert cloud.provider.instances("prod") == []

    def test_one_bad_machine_does_not_fail_its_neighbours(self, cloud: Cloud) -> None:
        wave = cloud.wave("prod", 3, spoilt={1})
        bad = wave.uids[1]
        assert wave.failure is not None
        assert set(wave.errors) == {bad}, "the error names the machine that it is about"
        assert set(cloud.listed("prod")) == set(wave.uids) - {bad}
        assert isinstance(cloud.provider.classify(wave.failure), TangoCloudError)
        # What is removed next is what was claimed, the bad one too.
        cloud.destroy(wave)
        cloud.wait_until("prod", ())
        assert cloud.resources(wave) == []

    def test_terminate_is_direct_and_idempotent_and_leaves_the_neighbours_alone(
        self, cloud: Cloud
    ) -> None:
        wave = cloud.wave("prod", 3)
        before = cloud.listed("prod")
        ids = [before[uid].instance_id for uid in wave.uids]
        cloud.provider.terminate([ids[0], ids[0]])
        cloud.wait_until("prod", wave.uids[1:])
        assert cloud.listed("prod") == {uid: before[uid] for uid in wave.uids[1:]}
        cloud.forget(wave, wave.uids[:1])
        assert cloud.resources(wave) == sorted(
            command.address(cloud.provider.machine_resource, uid) for uid in wave.uids[1:]
        )
        cloud.provider.terminate(ids)
        cloud.provider.terminate(ids)
        cloud.wait_until("prod", ())
        cloud.provider.terminate([])
        # Terraform still has them in its state. When it looks, they are gone without an error.
        cloud.destroy(wave, refresh=True)
        assert cloud.resources(wave) == []

    def test_an_interrupted_wave_is_removed_like_any_other(self, cloud: Cloud) -> None:
        wave = cloud.wave("prod", 8, interrupt=True)
        assert set(cloud.listed("prod")) <= set(wave.uids)
        cloud.destroy(wave)
        cloud.provider.terminate(i.instance_id for i in cloud.listed("prod").values())
        cloud.wait_until("prod", ())
        assert cloud.resources(wave) == []

    def test_an_image_that_is_not_there_is_refused(self, cloud: Cloud) -> None:
        with pytest.raises(ConfigurationError, match="image"):
            cloud.provider.offers(Shape("no-such-image"))

    def test_a_shape_that_no_instance_type_has_is_refused(self, cloud: Cloud) -> None:
        image = cloud.provider.images()[0]
        with pytest.raises(ConfigurationError):
            cloud.provider.offers(Shape(image, cores=1_000_000, memory_mib=1 << 40))

    def test_an_expired_machine_ends_although_none_of_us_lives(self, cloud: Cloud) -> None:
        wave = cloud.wave("prod", 1, life=cloud.brief)
        assert wave.failure is None
        cloud.wait_until("prod", ())

    @pytest.mark.slow
    def test_images_are_baked_listed_used_and_removed(self, cloud: Cloud) -> None:
        provider, owner = cloud.provider, cloud.owner
        assert isinstance(provider, Baker)
        base = provider.images()[0]
        wave = cloud.wave(owner, 1)
        (uid,) = wave.uids
        machine = cloud.listed(owner)[uid].instance_id
        recipe = Recipe("baked course.img", base, "0f" * 32)
        began = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
        older = provider.bake(machine, owner, recipe)
        cloud.baked(owner, older)
        foreign = provider.bake(machine, f"{owner}-2", replace(recipe, name="theirs.img"))
        cloud.baked(f"{owner}-2", foreign)
        newer = provider.bake(machine, owner, replace(recipe, digest="1f" * 32))
        try:
            image = cloud.baked(owner, newer)
            assert image.recipe == replace(recipe, digest="1f" * 32)
            assert began < image.created < dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
            assert {one.id for one in provider.baked(owner)} == {older, newer}
            assert provider.images()[0] == base
            assert recipe.name in provider.images()
            assert "theirs.img" not in provider.images()
            # An image is no machine, and no part of one.
            assert set(cloud.listed(owner)) == {uid}
            if isinstance(provider, Strays):
                assert provider.strays(owner) == []
            provider.terminate([machine])
            cloud.wait_until(owner, ())
            of_image = cloud.wave(owner, 1, image=recipe.name)
            assert of_image.failure is None
            assert cloud.listed(owner)[of_image.uids[0]].image == recipe.name
            with pytest.raises(ConfigurationError, match="image"):
                provider.offers(Shape("theirs.img"))
            cloud.destroy(of_image)
            cloud.wait_until(owner, ())
            for _ in range(2):
                provider.remove_images([newer])
            assert [one.id for one in provider.baked(owner)] == [older]
            assert recipe.name in provider.images()
            provider.remove_images([older, newer])
            assert provider.baked(owner) == []
            assert recipe.name not in provider.images()
            assert [one.id for one in provider.baked(f"{owner}-2")] == [foreign]
        finally:
            provider.remove_images([older, newer, foreign])
        cloud.destroy(wave, refresh=True)


def spoil_user_data(request: MachineRequest) -> MachineRequest:
    """A machine that is told nothing at its start."""
    return replace(request, user_data="{}")
