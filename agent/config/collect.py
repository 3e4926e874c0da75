"""The options of collection: in this process, or by actors on Ray, on this machine or a cluster."""

from dataclasses import dataclass
from typing import Annotated, Literal

from agent.config.ranges import AT_LEAST_ONE, POSITIVE, above_zero, at_least


@dataclass(frozen=True)
class CollectConfig:
    """Collection of transitions; all options but `engine` concern Ray's actors.

    Attributes:
        engine: local: this process plays; ray: actors on Ray play.
        actors: the number of actor processes, among which the `num_envs` environments are divided.
        chunk: the number of vector steps in one call; without `sync`, fewer where they take a quarter of `timeout`.
        publish: the number of updates between two sets of weights for the actors.
        address: the address of a Ray cluster; None starts Ray on this machine, and stops it at the end.
        timeout: seconds without a chunk after which an actor is replaced.
        memory: GiB of the object store of a Ray started here; None: enough for the chunks and weights in flight.
        sync: whether all actors play a chunk with the same weights, and the learner waits for all of them.
        ladder: whether each actor has its own constant ε, as in Ape-X.
    """

    engine: Literal["local", "ray"] = "local"
    actors: Annotated[int, at_least(1, 1024)] = 2
    chunk: Annotated[int, at_least(1, 1e6)] = 32
    publish: Annotated[int, AT_LEAST_ONE] = 16
    address: str | None = None
    timeout: Annotated[float, POSITIVE] = 120.0
    memory: Annotated[float | None, above_zero(1e4)] = None
    sync: bool = False
    ladder: bool = False
