"""The actors of a run and their calls under way; an actor that dies, hangs or fails is restarted."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from agent.running.distributed.actor import Actor
from agent.running.distributed.chunk import Chunk, Failure, Setup
from envs.failure import BrokenEnvironmentError

#: Seconds that a new actor may take, in addition to collect.timeout, to import torch.
START_SECONDS = 60.0
#: The run ends after this many incarnations of an actor in a row without a chunk.
MAX_FAILURES = 3
#: It also ends after MAX_SHORT_LIVES incarnations in a row that each gave fewer than SHORT_LIFE chunks.
MAX_SHORT_LIVES, SHORT_LIFE = 8, 64
#: Seconds between two checks for a signal.
POLL_SECONDS = 0.1


@dataclass
class ActorSlot:
    """The place of one actor: its current process, and its calls under way."""

    number: int
    incarnation: int
    handle: Any
    acting_scale: float  # factor of the acting noise in its last chunk
    version: int = -1  # of the weights that its last call had; -1: its process has none
    calls: deque[Any] = field(default_factory=deque)  # references to chunks, the oldest first
    sequence: int = 0  # of the next chunk
    failures: int = 0  # incarnations in a row without a chunk
    short_lives: int = 0  # incarnations in a row with few chunks
    waiting_since: float = 0.0  # when its last chunk was taken, or its first call made: the wait for the oldest call


class ActorPool:
    """Starts the actors, and restarts one that dies, hangs or fails.

    Ray itself restarts no actor and repeats no call: a call whose actor died may have been played.

    Args:
        ray: the package, connected.
        setup: the setup of all actors.
        incarnations: the first incarnation of each actor.
        acting_scales: the factor of the acting noise with which each begins.
        timeout: an actor hangs if it gives no chunk for this many seconds.
        report: prints a line on the console.
        cpus: the CPUs that each actor requests.
    """

    def __init__(
        self,
        ray: ModuleType,
        setup: Setup,
        incarnations: list[int],
        acting_scales: list[float],
        timeout: float,
        report: Callable[[str], None],
        cpus: int = 1,
    ) -> None:
        self._ray, self._setup, self._timeout, self._report = ray, setup, timeout, report
        options = {"num_cpus": cpus, "max_restarts": 0, "max_task_retries": 0}
        self._actor_class = ray.remote(**options, enable_task_events=False)(Actor)  # events: nobody reads them
        self._setup_reference = ray.put(setup)
        self.restarts = 0
        self.slots = [
            ActorSlot(i, incarnation, self._start(i, incarnation, scale), scale)
            for i, (incarnation, scale) in enumerate(zip(incarnations, acting_scales, strict=True))
        ]

    def _start(self, number: int, incarnation: int, acting_scale: float) -> object:
        return self._actor_class.remote(self._setup_reference, number, incarnation, acting_scale)

    def call(self, slot: ActorSlot, *arguments: object) -> None:
        """Gives an actor its next call."""
        if not slot.calls:
            slot.waiting_since = time.monotonic()
        slot.calls.append(slot.handle.play.remote(*arguments))

    def results(self, stop: Callable[[], bool]) -> Iterator[Chunk | ActorSlot]:
        """The results: a chunk, or the slot of an actor that was restarted and has no calls.

        Of several chunks that have arrived, that of the actor whose last one was taken first comes next: where the
        learner is the limit, all actors then give as much. Ray itself does not keep to any order.

        It ends when `stop` returns True, or no call is under way.

        Raises:
            UserError: if no incarnation of an actor can play.
        """
        while not stop() and (waiting := {slot.calls[0]: slot for slot in self.slots if slot.calls}):
            for slot in filter(self._is_hanging, waiting.values()):  # checked first, as others may always have chunks
                reason = f"it gave nothing for {self._limit(slot):g} seconds (collect.timeout={self._timeout:g})"
                yield self._restart(slot, reason)
                break
            else:
                references = list(waiting)
                ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0.0)
                if not ready:
                    ready, _ = self._ray.wait(references, num_returns=1, timeout=POLL_SECONDS)
                if ready:
                    yield self._receive(min((waiting[one] for one in ready), key=lambda slot: slot.waiting_since))

    def _limit(self, slot: ActorSlot) -> float:
        """The most seconds that an actor may take for its oldest call."""
        return self._timeout + (0.0 if slot.sequence else START_SECONDS)

    def _is_hanging(self, slot: ActorSlot) -> bool:
        """Whether an actor's oldest call has taken too long, and is still not done."""
        if time.monotonic() - slot.waiting_since <= self._limit(slot):
            return False
        ready, _ = self._ray.wait([slot.calls[0]], timeout=0.0)
        return not ready

    def _receive(self, slot: ActorSlot) -> Chunk | ActorSlot:
        try:
            result: Chunk | Failure = self._ray.get(slot.calls[0])
        except self._ray.exceptions.RayTaskError as error:  # this project's own error, in full
            raise error.as_instanceof_cause() from None
        except self._ray.exceptions.RayError as error:
            return self._restart(slot, f"its process ended ({first_sentence(error)})")
        if isinstance(result, Failure):
            return self._restart(slot, result.sentence, result)
        expected = slot.number, slot.incarnation, slot.sequence
        assert (result.actor, result.incarnation, result.sequence) == expected, "a chunk is never taken twice"
        slot.calls.popleft()
        slot.acting_scale = result.acting_scale
        slot.sequence, slot.failures, slot.waiting_since = slot.sequence + 1, 0, time.monotonic()
        return result

    def _restart(self, slot: ActorSlot, reason: str, failure: Failure | None = None) -> ActorSlot:
        """Ends an actor, drops its calls, and starts its next incarnation."""
        self._kill(slot)
        slot.failures += 1
        slot.short_lives = slot.short_lives + 1 if slot.sequence < SHORT_LIFE else 0
        if slot.failures >= MAX_FAILURES or slot.short_lives >= MAX_SHORT_LIVES:
            if failure is not None:
                raise BrokenEnvironmentError(failure.sentence, failure.detail)
            times = f"{MAX_FAILURES} times in a row"
            if slot.failures < MAX_FAILURES:
                times = f"{MAX_SHORT_LIVES} times in a row before it gave {SHORT_LIFE} chunks"
            raise BrokenEnvironmentError(f"actor {slot.number} failed {times}: {reason}")
        self.restarts += 1
        slot.incarnation, slot.sequence = slot.incarnation + 1, 0
        slot.calls.clear()
        self._report(f"actor {slot.number} is restarted, its episodes end as truncations: {reason}")
        slot.handle, slot.version = self._start(slot.number, slot.incarnation, slot.acting_scale), -1
        return slot

    def _kill(self, slot: ActorSlot) -> None:
        with suppress(Exception):  # it may be dead
            self._ray.kill(slot.handle, no_restart=True)

    def close(self) -> None:
        """Ends all actors."""
        for slot in self.slots:
            self._kill(slot)


def first_sentence(error: BaseException) -> str:
    """The first sentence in the last line of Ray's error: a traceback comes before it, and advice after it."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip().split(". ")[0] if lines else type(error).__name__
