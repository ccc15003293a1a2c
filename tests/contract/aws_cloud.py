"""An emulated EC2 whose instances are real machines, one for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from emulation.client import Emulation


@pytest.fixture(scope="session")
def running_emulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulation]:
    from emulation.client import Emulation, Unavailable

    from ..aws import IMAGE

    try:
        emulation = Emulation.start(tmp_path_factory.mktemp("emulation"))
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        emulation.register_image(IMAGE)
        yield emulation
    finally:
        emulation.stop()


@pytest.fixture
def emulation(running_emulation: Emulation) -> Iterator[Emulation]:
    """Without orders from the test before, and with none left to the next."""
    running_emulation.clear()
    running_emulation.reset_calls()
    yield running_emulation
    running_emulation.clear()
