"""One simulated burst: a committer of our own, the real ledger, and the model of a cloud."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from unittest.mock import patch

from bench.simulation.clouds import Account, Model, ModelledWaves
from bench.simulation.virtual import VirtualThreads
from tango_cloud.core.ledger import Ledger
from tango_cloud.core.model import MachineKey, Rate, Shape
from tango_cloud.core.sections import WaveSettings
from tango_cloud.orchestration.committer import Committer
from tango_cloud.orchestration.group_commit import Window
from tango_cloud.orchestration.waves import Waves

EPOCH = 1_800_000_000.0
_DEPLOYMENT, _SHAPE, _LIFETIME = "simulated", Shape("course"), 86400.0
_LOOK_SECONDS = 10.0
_SEED = 2026
_DEFAULTS = WaveSettings()
DEFAULT_WINDOW = Window(_DEFAULTS.gather_seconds, _DEFAULTS.gather_limit_seconds)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a burst is asked for and served. `arrivals` are moments, in seconds from its beginning.

    `rate` is our own pace, None for none; `machines` and `applies` as in the settings of waves.
    """

    name: str
    model: Model
    arrivals: Sequence[float]
    rate: Rate | None
    machines: int = _DEFAULTS.machines
    applies: int = _DEFAULTS.concurrent_applies
    window: Window = DEFAULT_WINDOW
    waves: Callable[..., ModelledWaves] = ModelledWaves


@dataclass(frozen=True, slots=True)
class Served:
    """`ready` are the seconds from the beginning until each machine answers, sorted."""

    plan: Plan
    account: Account
    ready: Sequence[float]


def simulate(plan: Plan) -> Served:
    threads = VirtualThreads(EPOCH)
    uids = random.Random(_SEED)
    with (
        tempfile.TemporaryDirectory(prefix="tango-simulation-") as folder,
        # Who comes first of those asked for in the same moment is a matter of their uids.
        patch("secrets.token_hex", lambda size: uids.randbytes(size).hex()),
    ):
        ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite3", Path(folder), clock=threads.now)
        waves = plan.waves(ledger, plan.model, threads, random.Random(_SEED))
        committer = Committer(
            _DEPLOYMENT,
            ledger,
            cast(Waves, waves),
            window=plan.window,
            concurrent_applies=plan.applies,
            machines=plan.machines,
            rates={} if plan.rate is None else {plan.model.name: plan.rate},
            clock=threads.now,
            threads=threads,
        )
        for number, moment in enumerate(sorted(plan.arrivals)):
            threads.sleep(max(0.0, EPOCH + moment - threads.now()))
            key = MachineKey(_DEPLOYMENT, number, "local")
            ledger.machines.request(key, plan.model.name, _SHAPE, _LIFETIME)
            committer.kick_creation()
        while (
            ledger.intents.next_due(_DEPLOYMENT, waves.providers, {}) is not None
            or waves.account.applying
        ):
            threads.sleep(_LOOK_SECONDS)
        committer.close()
        ledger.close()
    return Served(plan, waves.account, sorted(moment - EPOCH for moment in waves.account.ready))
