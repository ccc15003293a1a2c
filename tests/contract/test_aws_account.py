"""An account with thousands of instances, ours among others'.

On moto, where making one costs 3 ms and listing all of them seconds: LocalStack takes three times
as long. Both compare every instance with every tag of the account, so only some carry tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from emulation.client import Emulation, Unavailable

from tango_cloud.core import tags
from tango_cloud.core.model import Instance, InstanceStatus
from tango_cloud.core.sections import AwsSettings
from tango_cloud.providers.aws import AwsProvider

from ..aws import IMAGE

OTHERS = 5_000
LOOK_ALIKES = (
    "prod-2", "pro", "prod-", "Prod", "PROD", "prod_", "aprod", "prod*", "*", "pr?d", "prod.", "",
)  # fmt: skip
OF_EACH = 20
OWN = 250
PAGE = 100
"""Instead of a thousand: here each costs 25 ms."""


@dataclass
class Account:
    emulation: Emulation
    provider: AwsProvider
    image: str
    ec2: Any

    def make(self, count: int, labels: Mapping[str, str]) -> list[str]:
        """Instances past the proxy, by one call; their ids."""
        tagged = [{"Key": key, "Value": text} for key, text in labels.items()]
        made = self.ec2.run_instances(
            ImageId=self.image,
            InstanceType="t3.small",
            MinCount=count,
            MaxCount=count,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tagged}] if tagged else [],
        )
        return [instance["InstanceId"] for instance in made["Instances"]]

    def own(self, number: int) -> str:
        """An instance of ours, with the least of tags; its id."""
        (made,) = self.make(1, {tags.DEPLOYMENT: "prod", tags.ID: str(number)})
        return made

    def listed(self) -> tuple[Mapping[str, Instance], int]:
        """By id, and how many calls that took."""
        self.emulation.reset_calls()
        found = self.provider.instances("prod")
        listed = {instance.instance_id: instance for instance in found}
        assert len(listed) == len(found), "none twice"
        calls = self.emulation.calls()
        assert set(calls) == {"ec2:DescribeInstances"}
        return listed, calls["ec2:DescribeInstances"]


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """An emulation of its own: these instances would slow every other test down."""
    # A thousand images of Amazon's, which are looked through for each instance that is made.
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    try:
        emulation = Emulation.start(tmp_path / "emulation", backend="moto")
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in emulation.environment.items():
            monkeypatch.setenv(name, value)
        provider = AwsProvider(AwsSettings(), "prod")
        image = emulation.register_image(IMAGE)
        yield Account(emulation, provider, image, emulation.client())
    finally:
        emulation.stop()


@pytest.mark.slow
def test_five_thousand_instances_of_others_are_neither_listed_nor_paged_through(
    account: Account,
) -> None:
    for text in LOOK_ALIKES:
        account.make(OF_EACH, {tags.DEPLOYMENT: text})
        account.make(1, {"Name": "prod-1-pool", "deployment": "prod", "tango-Deployment": "prod"})
    own = {account.own(number): number for number in range(3)}
    left = OTHERS - len(LOOK_ALIKES) * (OF_EACH + 1)
    while left > 0:
        left -= len(account.make(min(left, 1000), {}))
    listed, calls = account.listed()
    assert {i: instance.key.id for i, instance in listed.items()} == own
    assert calls == 1
    account.provider.terminate(list(own)[:1])
    listed, _ = account.listed()
    live = {i for i, found in listed.items() if found.status is not InstanceStatus.GONE}
    assert live == set(list(own)[1:])


@pytest.mark.slow
def test_more_than_a_page_of_our_own_is_complete(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One instance by call: the emulation pages by reservations, EC2 by instances."""
    monkeypatch.setattr("tango_cloud.providers.aws.inventory._PAGE", PAGE)
    with ThreadPoolExecutor(4) as pool:
        own = dict(zip(pool.map(account.own, range(OWN)), range(OWN), strict=True))
    listed, calls = account.listed()
    assert {i: instance.key.id for i, instance in listed.items()} == own
    assert calls == 3
