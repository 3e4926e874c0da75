"""Who plays the environments: this process, or actors on Ray, here or on a cluster."""

from dataclasses import dataclass
from typing import Annotated, Literal

from agent.config.ranges import AT_LEAST_ONE, POSITIVE, above, at_least


@dataclass(frozen=True)
class CollectConfig:
    """Collection: `engine` says who plays; all other options are of Ray's actors.

    Attributes:
        actors: processes that play; `num_envs` environments are shared out among them.
        chunk: vector steps of one call.
        publish: updates after which the actors get new weights.
        address: of a Ray cluster; None starts Ray here, and stops it at the end.
        timeout: seconds after which an actor that gives nothing is made anew.
        memory: GiB of Ray's object store, where it is started here; None: enough for the chunks and weights under way.
        sync: whether all actors play a chunk with the same weights, and the learner waits for all of them.
        ladder: whether each actor has its own constant ε, as in Ape-X.
    """

    engine: Literal["local", "ray"] = "local"
    actors: Annotated[int, at_least(1, 1024)] = 2
    chunk: Annotated[int, at_least(1, 1e6)] = 16
    publish: Annotated[int, AT_LEAST_ONE] = 16
    address: str | None = None
    timeout: Annotated[float, POSITIVE] = 120.0
    memory: Annotated[float | None, above(0, 1e4)] = None
    sync: bool = False
    ladder: bool = False
