"""Waking who waits, and keeping nothing of who does not."""

from __future__ import annotations

from tango_cloud.orchestration.signals import Signals


def test_a_signal_given_between_two_waits_counts_once() -> None:
    signals = Signals()
    signal = signals.of("one")
    assert not signal.wait(0)
    signals.notify(["one", "another"])
    assert signals.of("one") is signal
    assert signal.wait(0)
    assert not signal.wait(0)


def test_nothing_is_kept_of_a_machine_that_nobody_waits_for() -> None:
    signals = Signals()
    signals.of("one").wait(0)
    assert not signals._signals
