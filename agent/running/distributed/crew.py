"""The actors of a run: their calls under way, and what becomes of one that dies, hangs or cannot play."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent.running.distributed.actor import Actor
from agent.running.distributed.chunk import Chunk, Failure, Setup
from envs.failure import BrokenEnvironmentError

#: Seconds that a new actor may take, beside collect.timeout, until its process has imported torch.
START = 60.0
#: Incarnations of an actor in a row that give no chunk: then the run ends.
FAILURES = 3
#: Seconds between two looks for a signal.
LOOK = 0.1


@dataclass
class Place:
    """An actor's place in the crew: the process that has it now, and the calls that it was given."""

    number: int
    incarnation: int
    handle: Any
    calls: deque[Any] = field(default_factory=deque)  # references to chunks, the oldest first
    sequence: int = 0  # of the next chunk
    fruitless: int = 0  # incarnations in a row that have given no chunk
    since: float = 0.0  # since when its oldest call is waited for


class Crew:
    """Starts the actors, and makes one anew that dies, hangs or fails.

    Ray restarts nothing and calls nothing again: a call whose actor died may have been played.

    Args:
        ray: the package, connected.
        setup: of all actors.
        incarnations: the number with which each begins.
        timeout: seconds without a chunk after which an actor counts as hanging.
        tell: prints a line.
    """

    def __init__(
        self, ray: Any, setup: Setup, incarnations: list[int], timeout: float, tell: Callable[[str], None]
    ) -> None:
        self._ray, self._setup, self._timeout, self._tell = ray, setup, timeout, tell
        self._class = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Actor)
        self._shared = ray.put(setup)
        self.restarts = 0
        self.places = [Place(i, incarnation, self._start(i, incarnation)) for i, incarnation in enumerate(incarnations)]

    def _start(self, number: int, incarnation: int) -> object:
        return self._class.remote(self._shared, number, incarnation)

    def call(self, place: Place, *arguments: object) -> None:
        """Gives an actor its next call."""
        if not place.calls:
            place.since = time.monotonic()
        place.calls.append(place.handle.play.remote(*arguments))

    def chunks(self, stop: Callable[[], bool]) -> Iterator[Chunk | Place]:
        """What comes next: a chunk, or the place of an actor that was made anew and has no calls.

        It ends where `stop` says so, or nothing is called.

        Raises:
            UserError: where no incarnation of an actor can play.
        """
        while not stop() and (waiting := {place.calls[0]: place for place in self.places if place.calls}):
            for place in filter(self._hangs, waiting.values()):  # also while others give chunks all the time
                yield self._anew(place, f"it gave nothing for collect.timeout={self._timeout:g} seconds")
                break
            else:
                ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=LOOK)
                if ready:
                    yield self._take(waiting[ready[0]])

    def _hangs(self, place: Place) -> bool:
        """Whether an actor's oldest call has taken too long, and is still not done."""
        allowed = self._timeout + (0.0 if place.sequence else START)
        if time.monotonic() - place.since <= allowed:
            return False
        ready, _ = self._ray.wait([place.calls[0]], timeout=0.0)
        return not ready

    def _take(self, place: Place) -> Chunk | Place:
        try:
            result: Chunk | Failure = self._ray.get(place.calls[0])
        except self._ray.exceptions.RayTaskError as error:  # our own error, in full
            raise error.as_instanceof_cause() from None
        except self._ray.exceptions.RayError as error:
            return self._anew(place, f"its process ended ({first_sentence(error)})")
        if isinstance(result, Failure):
            return self._anew(place, result.sentence, result)
        expected = place.number, place.incarnation, place.sequence
        assert (result.actor, result.incarnation, result.sequence) == expected, "a chunk is never taken twice"
        place.calls.popleft()
        place.sequence, place.fruitless, place.since = place.sequence + 1, 0, time.monotonic()
        return result

    def _anew(self, place: Place, reason: str, failure: Failure | None = None) -> Place:
        """Ends an actor, whose calls are dropped, and makes its next incarnation."""
        self._end(place)
        place.fruitless += 1
        if place.fruitless >= FAILURES:
            if failure is not None:
                raise BrokenEnvironmentError(failure.sentence, failure.detail)
            raise BrokenEnvironmentError(f"actor {place.number} was made anew {FAILURES} times in vain: {reason}")
        self.restarts += 1
        place.incarnation, place.sequence = place.incarnation + 1, 0
        place.calls.clear()
        self._tell(f"actor {place.number} is made anew, its episodes end as truncations: {reason}")
        place.handle = self._start(place.number, place.incarnation)
        return place

    def _end(self, place: Place) -> None:
        with suppress(Exception):  # it may be dead
            self._ray.kill(place.handle, no_restart=True)

    def close(self) -> None:
        """Ends all actors."""
        for place in self.places:
            self._end(place)


def first_sentence(error: BaseException) -> str:
    """The first sentence of the last line of an error of Ray, which shows a traceback before it and advice after it."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip().split(". ")[0] if lines else type(error).__name__
