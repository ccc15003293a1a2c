"""Who asks a cloud at the same moment shares its answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tango_cloud.core.errors import ProviderUnavailable
from tango_cloud.core.model import Instance
from tango_cloud.orchestration.inventory import Inventory

from ..waiting import wait_until
from .fakes import FakeCloud

MANY = 20


class Slow(FakeCloud):
    """Does not answer before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def instances(self, deployment: str) -> Sequence[Instance]:
        self.listings += 1
        assert self.may.wait(10)
        if self.unavailable:
            raise ProviderUnavailable("away")
        return []


@pytest.mark.parametrize("unavailable", [False, True])
def test_all_who_wait_share_the_next_answer_though_it_is_a_failure(unavailable: bool) -> None:
    cloud = Slow()
    cloud.unavailable = unavailable
    inventory = Inventory(cloud, "prod")
    with ThreadPoolExecutor(MANY) as pool:
        first = pool.submit(inventory.fresh)
        wait_until(lambda: cloud.listings == 1)
        others = [pool.submit(inventory.fresh) for _ in range(MANY - 1)]
        wait_until(lambda: all(one.running() for one in others))
        cloud.may.set()
        failures = [one.exception(10) for one in (first, *others)]
    assert all(isinstance(one, ProviderUnavailable) for one in failures) is unavailable
    assert cloud.listings <= 3, "one may have come after the second had begun"


def test_a_failure_is_not_kept_for_who_asks_later() -> None:
    cloud = FakeCloud()
    cloud.unavailable = True
    inventory = Inventory(cloud, "prod")
    with pytest.raises(ProviderUnavailable):
        inventory.fresh()
    cloud.unavailable = False
    assert list(inventory.fresh()) == []
