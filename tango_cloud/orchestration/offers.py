"""The offers of all clouds of a deployment: where a machine is asked for, and where next."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tango_cloud.core.errors import (
    AuthenticationError,
    ConfigurationError,
    Fault,
    NextMove,
    ProviderUnavailable,
    TangoCloudError,
)
from tango_cloud.core.lifecycle import Reason
from tango_cloud.core.model import Machine, Market, Offer, Shape
from tango_cloud.orchestration.site import Sites

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_DIFFERENCES: Mapping[NextMove, Callable[[Offer], object]] = {
    NextMove.NEXT_OFFER: lambda offer: offer,
    # What draws on another quota: clouds count by region and by market.
    NextMove.NEXT_REGION: lambda offer: (offer.provider, offer.region, offer.market),
}
"""In what the next offer differs from the one that failed. After any other error: in the cloud."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An offer, and its place among its own provider's."""

    offer: Offer
    place: int


class Offers:
    """`prices` in US dollars an hour, by `provider/type` or `provider/type/market`, go before what
    the providers say."""

    def __init__(self, sites: Sites, prices: Mapping[str, float]) -> None:
        self._sites = sites
        self._prices = prices

    def of(self, shape: Shape) -> Sequence[Choice]:
        """Every way to get `shape`, best first. Never empty.

        A cloud that has none, or cannot be asked, is left out as long as another has some. Raises
        ConfigurationError when no cloud has any, ProviderUnavailable or AuthenticationError when
        the only ones that may have some cannot be asked.
        """
        lists: list[Sequence[Offer]] = []
        faults: list[Fault] = []
        unasked: ProviderUnavailable | AuthenticationError | None = None
        for name in self._sites.chosen:
            try:
                lists.append(self._sites[name].provider.offers(shape))
            except ConfigurationError as error:
                faults += error.faults
            except (ProviderUnavailable, AuthenticationError) as error:
                unasked = error
                log.warning("%s is left out: %s", name, error)
        if lists:
            return rank([[self._priced(offer) for offer in offers] for offers in lists])
        raise unasked or ConfigurationError(faults)

    def _priced(self, offer: Offer) -> Offer:
        kind = f"{offer.provider}/{offer.instance_type}"
        price = self._prices.get(f"{kind}/{offer.market}")
        if price is None and offer.market is Market.ON_DEMAND:
            price = self._prices.get(kind)
        return offer if price is None else replace(offer, hourly_usd=price)


def rank(lists: Sequence[Sequence[Offer]]) -> Sequence[Choice]:
    """The providers' lists as one: each keeps its own order, and of the next ones of all the
    cheapest goes first. An unknown price counts as the highest; of equals the earlier list's.
    """
    waiting = [[Choice(offer, n) for n, offer in enumerate(offers)] for offers in lists]
    ranked = []
    while waiting := [choices for choices in waiting if choices]:
        cheapest = min(waiting, key=lambda choices: _price(choices[0].offer))
        ranked.append(cheapest.pop(0))
    return ranked


def _price(offer: Offer) -> float:
    return math.inf if offer.hourly_usd is None else offer.hourly_usd


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a machine that could not be made: asked for anew after `pause` seconds, of
    this provider by its offer in this place, or failed."""

    again: bool
    reason: Reason
    provider: str
    place: int
    pause: float = 0.0


def judge(
    machine: Machine, error: TangoCloudError, choices: Sequence[Choice], attempts: int
) -> Verdict:
    """What the ledger does about `error`. `choices` are all for the shape, `attempts` how often a
    machine may be asked for in one place. Pure.
    """
    move = error.next_move
    full = move in (NextMove.NEXT_OFFER, NextMove.NEXT_REGION)
    reason = Reason.NO_CAPACITY if full else Reason.PROVISIONING
    if move is NextMove.RETRY and machine.attempt + 1 < attempts:
        pause = min(_FIRST_PAUSE * 2**machine.attempt, _LONGEST_PAUSE)
        return Verdict(True, reason, machine.provider, machine.offer, pause)
    after = _after(machine, choices, _DIFFERENCES.get(move, lambda offer: offer.provider))
    # Prices and lists change: what goes from cloud to cloud ends all the same.
    if after is None or machine.attempt >= attempts + len(choices):
        return Verdict(False, reason, machine.provider, machine.offer)
    return Verdict(True, reason, after.offer.provider, after.place)


def _after(
    machine: Machine, choices: Sequence[Choice], difference: Callable[[Offer], object]
) -> Choice | None:
    """The first choice after the machine's own that has another `difference`; of all, when its
    provider has none any more."""
    used = [
        n
        for n, choice in enumerate(choices)
        if choice.offer.provider == machine.provider and choice.place <= machine.offer
    ]
    if not used:
        return next((c for c in choices if c.offer.provider != machine.provider), None)
    unlike = difference(choices[used[-1]].offer)
    later = choices[used[-1] + 1 :]
    return next((choice for choice in later if difference(choice.offer) != unlike), None)
