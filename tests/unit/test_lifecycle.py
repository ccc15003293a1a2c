"""The table of moves, held against what the design promises."""

import pytest

from tango_cloud.core.lifecycle import LIVE, State, allowed, sources


@pytest.mark.parametrize("state", sorted(LIVE))
def test_any_live_machine_may_be_lost(state: State) -> None:
    assert allowed(state, State.GONE)


@pytest.mark.parametrize("state", sorted(LIVE - {State.DESTROYING}))
def test_any_machine_may_be_destroyed(state: State) -> None:
    assert allowed(state, State.DESTROYING)


@pytest.mark.parametrize("target", sorted(State))
def test_gone_is_final(target: State) -> None:
    assert not allowed(State.GONE, target)


@pytest.mark.parametrize("target", sorted(LIVE))
def test_what_is_being_destroyed_is_never_used_again(target: State) -> None:
    assert not allowed(State.DESTROYING, target)


def test_only_what_was_started_becomes_ready() -> None:
    assert sources(State.READY) == {State.STARTING, State.LEASED}
