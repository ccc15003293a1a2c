"""Where a machine is asked for, and where next, across clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from tango_cloud.core.errors import (
    AuthenticationError,
    CapacityError,
    ConfigurationError,
    Fault,
    ProviderUnavailable,
    ProvisioningError,
    QuotaError,
    TangoCloudError,
)
from tango_cloud.core.lifecycle import Reason
from tango_cloud.core.model import Machine, Market, Offer, Shape
from tango_cloud.orchestration.offers import Choice, Offers, judge, rank
from tango_cloud.orchestration.site import Site, Sites

from .conftest import SHAPE, Rig, request


def offer(
    provider: str,
    zone: str,
    price: float | None = None,
    *,
    kind: str = "small",
    market: Market = Market.ON_DEMAND,
) -> Offer:
    return Offer(provider, zone[:-1], zone, kind, market, price)


AWS = [offer("aws", "east-a", 2.0), offer("aws", "east-b", 2.0), offer("aws", "west-a", 4.0)]
GCP = [offer("gcp", "iowa-a", 3.0), offer("gcp", "iowa-b", 3.0)]


def told(choices: Sequence[Choice]) -> list[str]:
    return [f"{choice.offer.provider} {choice.offer.zone}" for choice in choices]


def test_the_cheapest_goes_first_and_each_cloud_keeps_its_own_order() -> None:
    ranked = rank([AWS, GCP])
    assert told(ranked) == ["aws east-a", "aws east-b", "gcp iowa-a", "gcp iowa-b", "aws west-a"]
    assert [choice.place for choice in ranked] == [0, 1, 0, 1, 2]
    dear_first = [replace(GCP[0], hourly_usd=9.0), replace(GCP[1], hourly_usd=1.0)]
    assert told(rank([dear_first, AWS]))[-2:] == ["gcp iowa-a", "gcp iowa-b"]


def test_unknown_prices_go_last_and_equals_as_the_settings_say() -> None:
    unknown = [offer("far", "moon-a")]
    assert told(rank([unknown, GCP, AWS]))[-1] == "far moon-a"
    assert told(rank([[offer("b", "x-a", 1.0)], [offer("a", "x-a", 1.0)]])) == ["b x-a", "a x-a"]


class Seller:
    """As much of a provider as is asked here."""

    def __init__(self, *offers: Offer, error: TangoCloudError | None = None) -> None:
        self._offers = offers
        self._error = error

    def offers(self, shape: Shape) -> Sequence[Offer]:
        if self._error is not None:
            raise self._error
        return self._offers


def market(prices: dict[str, float] | None = None, **sellers: Seller) -> Offers:
    sites = {name: Site(cast(Any, seller), cast(Any, None)) for name, seller in sellers.items()}
    return Offers(Sites(sites), prices or {})


def test_prices_of_the_settings_go_before_what_a_cloud_says() -> None:
    both = (offer("aws", "east-a", 2.0), offer("aws", "east-a", 1.0, market=Market.SPOT))
    sellers = {"aws": Seller(*both), "gcp": Seller(*GCP)}
    prices = {"aws/small": 5.0, "gcp/small": 0.5, "aws/small/spot": 0.1}
    choices = market(prices, **sellers).of(SHAPE)
    assert [choice.offer.hourly_usd for choice in choices] == [0.5, 0.5, 5.0, 0.1]


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError([Fault("image", "there is none")]),
        ProviderUnavailable("away"),
        AuthenticationError("who are you?"),
    ],
)
def test_a_cloud_without_offers_is_left_out_unless_no_other_has_any(error: TangoCloudError) -> None:
    assert told(market(aws=Seller(error=error), gcp=Seller(*GCP)).of(SHAPE)) == told(rank([GCP]))
    with pytest.raises(type(error)):
        market(aws=Seller(error=error)).of(SHAPE)


def test_a_cloud_that_cannot_be_asked_may_have_what_the_others_lack() -> None:
    away, lacking = ProviderUnavailable("away"), ConfigurationError([Fault("image", "none")])
    with pytest.raises(ProviderUnavailable):
        market(aws=Seller(error=away), gcp=Seller(error=lacking)).of(SHAPE)


@pytest.fixture
def machine(rig: Rig) -> Machine:
    return replace(request(rig), provider="aws", offer=0, attempt=0)


CHOICES = rank([AWS, GCP])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CapacityError(""), "aws east-b"),
        (QuotaError(""), "gcp iowa-a"),
        (AuthenticationError(""), "gcp iowa-a"),
        (ProvisioningError(""), "gcp iowa-a"),
    ],
)
def test_what_fails_in_one_place_goes_where_it_may_not(
    machine: Machine, error: TangoCloudError, expected: str
) -> None:
    verdict = judge(machine, error, CHOICES, attempts=3)
    place = next(
        c for c in CHOICES if (c.offer.provider, c.place) == (verdict.provider, verdict.place)
    )
    assert (verdict.again, told([place])) == (True, [expected])


def test_a_passing_fault_is_tried_again_in_the_same_place_and_then_elsewhere(
    machine: Machine,
) -> None:
    error = ProviderUnavailable("away")
    first, last = (judge(replace(machine, attempt=n), error, CHOICES, 3) for n in (0, 2))
    assert (first.again, first.provider, first.pause > 0) == (True, "aws", True)
    assert (last.again, last.provider, last.pause) == (True, "gcp", 0.0)
    assert not judge(replace(machine, attempt=2), error, rank([AWS]), 3).again


def test_after_the_last_offer_it_fails_and_says_why(machine: Machine) -> None:
    last = replace(machine, offer=2)
    verdict = judge(last, CapacityError(""), CHOICES, attempts=3)
    assert (verdict.again, verdict.reason) == (False, Reason.NO_CAPACITY)


def test_a_cloud_that_has_no_offers_any_more_is_left_for_another(machine: Machine) -> None:
    verdict = judge(machine, CapacityError(""), rank([GCP]), attempts=3)
    assert (verdict.again, verdict.provider) == (True, "gcp")
    # But not for ever.
    assert not judge(replace(machine, attempt=5), CapacityError(""), rank([GCP]), attempts=3).again
