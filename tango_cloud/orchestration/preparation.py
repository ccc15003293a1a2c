"""Preparing an image: a machine is made, set up and tried out, and an image is made of it.

Whatever happens, the machine is gone at the end, and so is an image that did not become ready.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tango_cloud.core.errors import (
    Cancelled,
    Fault,
    InputError,
    PreparationFailed,
    ProviderUnavailable,
    TangoCloudError,
)
from tango_cloud.core.model import Machine, MachineKey
from tango_cloud.jobs.execution import execute, utc_now
from tango_cloud.jobs.job import Job, JobStatus, StepTimes
from tango_cloud.orchestration.burst import MachinePlan
from tango_cloud.orchestration.connections import Connections
from tango_cloud.orchestration.fleet import Fleet
from tango_cloud.orchestration.images import Images, current, last, plain
from tango_cloud.orchestration.undisturbed import undisturbed
from tango_cloud.providers.protocol import BakedImage, Baker, Recipe
from tango_cloud.transports.protocol import InputFile, Preparer, RunLimits

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_APPLY_SECONDS = 3600.0
_SEAL_SECONDS = 600.0
_BAKE_SECONDS = 2700.0
"""Shorter than `images.SETTLED`: what another process finds half-made after that is nobody's."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_SAID = "this machine runs jobs"

OnProgress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be prepared: the image's name, the playbook, and the image to begin with; empty:
    the default of jobs. `force`: also when there is such an image already."""

    name: str
    playbook: Path | None = None
    base: str = ""
    force: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image that is ready. `fresh`: False when it was there already, and nothing was made.

    Of a fresh one: `level` is the isolation that jobs have on such a machine, `left_out` what could
    not be had on it, in words.
    """

    provider: str
    image: BakedImage
    fresh: bool
    level: str = ""
    left_out: tuple[str, ...] = ()


class ImagePreparation:
    """Prepares one image. Use an instance once.

    `plan` is for the machine, whose image is the order's base, or the plan's when the order has
    none. `clock` and `pause` are to wait by: seconds, and whether it was stopped meanwhile.
    """

    def __init__(
        self,
        fleet: Fleet,
        connections: Connections,
        images: Images,
        preparer: Preparer,
        plan: MachinePlan,
        limits: RunLimits,
        on_progress: OnProgress,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self._fleet = fleet
        self._connections = connections
        self._images = images
        self._preparer = preparer
        self._plan = plan
        self._limits = limits
        self._tell = on_progress
        self._clock = clock
        self._pause = pause
        self._stop = threading.Event()
        self._machines: list[MachineKey] = []

    def run(self, order: Order) -> Prepared:
        """The image, made if there is none of the same recipe.

        Raises InputError, ConfigurationError; PreparationFailed; what asking and waiting for a
        machine raises; ProviderUnavailable, AuthenticationError. Interrupted, it removes what it
        made before it lets go; InterruptedTwice when it may not even do that.
        """
        return undisturbed(lambda: self._run(order), self.cancel)

    def cancel(self) -> None:
        """Stop what goes on. `run` then ends once the machine and the image are gone."""
        self._stop.set()
        self._fleet.halt(self._machines)

    def _run(self, order: Order) -> Prepared:
        provider, baker = self._images.baker()
        deployment = self._fleet.deployment
        self._images.remove_failed()
        there = baker.baked(deployment)
        recipe = self._recipe(order, there, provider.images())
        found = current(there, recipe.name)
        if found and found.recipe == recipe and not order.force:
            return Prepared(provider.name, found, fresh=False)
        if order.playbook:
            self._preparer.check(order.playbook)
        with self._machine(recipe.base) as machine:
            left_out = self._apply(machine, order.playbook)
            level = self._try_out(machine)
            if provider.sudo:
                self._seal(machine)
            baked = self._bake(baker, machine, recipe)
        return Prepared(provider.name, baked, True, level, left_out)

    def _recipe(self, order: Order, there: Sequence[BakedImage], listed: Sequence[str]) -> Recipe:
        """Raises InputError for names that cannot be used, and for an unreadable playbook."""
        if not _NAME.fullmatch(order.name):
            expected = "letters, digits, `.`, `_` and `-`, 63 at most"
            raise InputError([Fault("image", f"{order.name!r} cannot be its name", expected)])
        base = order.base or self._plan.shape.image or _default(listed, there)
        if plain(base) == plain(order.name):
            expected = "an image of another name: --from BASE"
            raise InputError([Fault("image", f"{base} would be made of itself", expected)])
        applied = self._preparer.digest(order.playbook)
        # A base of ours is known by what it was made of; another's only by its name.
        below = current(there, base)
        parts = [applied, below.id if below else base]
        return Recipe(order.name, base, hashlib.sha256(json.dumps(parts).encode()).hexdigest())

    @contextlib.contextmanager
    def _machine(self, image: str) -> Iterator[Machine]:
        """A ready machine, held as if by a job for the length of the block, and gone after it."""
        plan = self._plan
        self._tell(f"a machine of {image}")
        key = self._fleet.request_next(replace(plan.shape, image=image), plan.lifetime).key
        self._machines.append(key)

        def remove() -> None:
            self._tell(f"removing {key}")
            self._fleet.destroy_and_wait(key, plan.gone_seconds)

        with _at_last(remove):
            machine = self._fleet.wait(key, plan.ready_seconds, self._stop)
            self._fleet.lease(key)
            yield machine

    def _apply(self, machine: Machine, playbook: Path | None) -> tuple[str, ...]:
        """What had to be left out."""
        self._tell("applying")
        return self._preparer.prepare(
            self._connections.endpoint(machine),
            playbook,
            on_task=self._tell,
            timeout=_APPLY_SECONDS,
            stop=self._stop,
        ).left_out

    def _try_out(self, machine: Machine) -> str:
        """Run a job, as any other; the level of isolation that it had. Raises PreparationFailed."""
        self._tell("trying it out")
        with tempfile.TemporaryDirectory(prefix="tango-cloud-") as folder:
            makefile, output = Path(folder, "Makefile"), Path(folder, "output")
            makefile.write_text(f"all:\n\t@echo {_SAID}\n")
            job = Job("trial", (InputFile(makefile, "Makefile"),), self._limits)
            session = self._connections.get(machine)
            result = execute(job, session, machine, StepTimes(ready=utc_now()), output)
            said = output.read_text(errors="replace").strip()
        if result.status is not JobStatus.PASSED or not said.endswith(_SAID):
            raise PreparationFailed(f"a job on the machine {result.status}: {said[-500:]}")
        return result.level

    def _seal(self, machine: Machine) -> None:
        """It takes no connection any more afterwards."""
        self._tell("sealing")
        self._connections.close(machine.uid)
        self._preparer.seal(
            self._connections.endpoint(machine),
            on_task=self._tell,
            timeout=_SEAL_SECONDS,
            stop=self._stop,
        )

    def _bake(self, baker: Baker, machine: Machine, recipe: Recipe) -> BakedImage:
        deployment = self._fleet.deployment
        before = {one.id for one in baker.baked(deployment)}
        if self._stop.is_set():
            raise Cancelled("no longer baked")
        self._tell("baking")
        try:
            image_id = baker.bake(machine.instance_id, deployment, recipe)
        except ProviderUnavailable:
            # It may have begun all the same.
            with _logged():
                begun = [o for o in baker.baked(deployment) if not o.ready and o.id not in before]
                baker.remove_images(one.id for one in begun if one.recipe == recipe)
            raise
        try:
            return self._await(baker, image_id, recipe)
        except BaseException:
            with _logged():
                baker.remove_images([image_id])
            raise

    def _await(self, baker: Baker, image_id: str, recipe: Recipe) -> BakedImage:
        """Raises PreparationFailed when it is not ready in time or never will be, Cancelled."""
        deadline = self._clock() + _BAKE_SECONDS
        pause = _FIRST_PAUSE
        trouble: ProviderUnavailable | None = None
        while True:
            try:
                for one in baker.baked(self._fleet.deployment):
                    if one.id != image_id:
                        continue
                    if one.ready:
                        return one
                    if one.failure:
                        raise PreparationFailed(f"{recipe.name}: {one.failure}")
                trouble = None
            except ProviderUnavailable as error:
                trouble = error
            if self._clock() >= deadline:
                why = f": {trouble}" if trouble else ""
                waited = f"{recipe.name} was not ready after {_BAKE_SECONDS:.0f} s"
                raise PreparationFailed(waited + why)
            if self._pause(self._stop, pause):
                raise Cancelled(f"{recipe.name}: no longer baked")
            pause = min(pause * 2, _LONGEST_PAUSE)


def _default(listed: Sequence[str], there: Sequence[BakedImage]) -> str:
    """The first image that is none of ours: the newest of those would change with each run.

    Raises InputError.
    """
    ours = {plain(name) for one in there for name in (one.recipe.name, last(one.id))}
    for name in listed:
        if plain(name) not in ours:
            return name
    raise InputError([Fault("image", "there is none to begin with", "--from BASE")])


@contextlib.contextmanager
def _at_last(step: Callable[[], None]) -> Iterator[None]:
    """`step` follows the block however that ends. What the block raises is raised, and then what
    goes wrong in `step` is only logged."""
    try:
        yield
    except BaseException:
        with _logged():
            step()
        raise
    step()


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except TangoCloudError as error:
        log.error("%s", error)
