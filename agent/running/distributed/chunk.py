"""The data that learner and actors exchange, except weights: the setup of an actor, and chunks of experience."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from agent.common.observation import ObservationSpec
from agent.common.seeds import seed_sequence
from agent.config.parts import EpsilonConfig
from agent.config.run import TrainConfig
from agent.networks.encoder_registry import ENCODERS, EncoderFactory
from agent.networks.heads.base import HeadFactory
from agent.networks.heads.registry import HEADS
from agent.running.distributed.priorities import FirstPriorities
from envs.make import Task

#: Ape-X's ladder: actor i of N acts by ε^(1 + α·i/(N − 1)) (Horgan et al. 2018, arXiv 1803.00933, §4).
LADDER_EPSILON, LADDER_ALPHA = 0.4, 7.0


class Chunk(NamedTuple):
    """T vector steps of the E environments of an actor.

    `first` holds the observations with which an incarnation began; only its chunk 0 has it. The observations of stacked
    frames hold the newest frame alone.
    """

    actor: int
    incarnation: int
    sequence: int  # number of the chunk in its incarnation
    version: int  # number of updates that made the weights
    acting_scale: float  # factor of the acting noise at the end
    first: np.ndarray | None  # [E, *shape]
    action: np.ndarray  # [T, E]
    reward: np.ndarray  # [T, E], as stored
    terminated: np.ndarray  # [T, E]
    truncated: np.ndarray  # [T, E]
    observation: np.ndarray  # [T, E, *shape], after each step
    life_lost: np.ndarray | None  # [T, E]
    priority: np.ndarray | None  # [T, E], for a prioritised replay; NaN: unknown
    steps: tuple[int, ...]  # real transitions of each vector step
    episodes: tuple[tuple[int, float, int], ...]  # vector step, return and length of each episode that ended
    lines: tuple[str, ...]  # for the console
    playing: float  # seconds
    waiting: float  # seconds between the last chunk and this one

    @property
    def bytes(self) -> int:
        """Bytes of its arrays."""
        return sum(getattr(field, "nbytes", 0) for field in self)


class Failure(NamedTuple):
    """An environment's own error, which ends the incarnation."""

    sentence: str
    detail: str


@dataclass(frozen=True)
class Setup:
    """Everything that is needed to make an actor.

    Attributes:
        config: the config of the run; `config_of` inserts the actor's own seed and number of environments.
        task: the task.
        spec: Gymnasium's entry of the task, for a process that does not know its id.
        shares: the number of environments of each actor.
        encoders: the encoders that users registered, by name.
        heads: the heads that users registered, by name.
    """

    config: TrainConfig
    task: Task
    spec: EnvSpec | None
    shares: tuple[int, ...]
    encoders: Mapping[str, EncoderFactory] = field(default_factory=dict)
    heads: Mapping[str, HeadFactory] = field(default_factory=dict)

    def register(self) -> None:
        """Makes the task, the encoders and the heads known to this process."""
        for name, encoder in self.encoders.items():
            ENCODERS.register(name, encoder)
        for name, head in self.heads.items():
            HEADS.register(name, head)
        if self.spec is not None and self.spec.id not in gym.registry:
            gym.registry[self.spec.id] = self.spec

    def config_of(self, actor: int, incarnation: int) -> TrainConfig:
        """The config of one incarnation of an actor: its seed is drawn from (seed, actor, incarnation)."""
        config, agent = self.config, self.config.agent
        seed = seed_sequence(config.seed, "actors", actor, incarnation).generate_state(1, np.uint64)[0]
        if config.collect.ladder:
            epsilon = ladder(actor, len(self.shares))
            agent = replace(agent, epsilon=EpsilonConfig(start=epsilon, end=epsilon))
        first_env, share = sum(self.shares[:actor]), self.shares[actor]
        mean_envs = min(max(agent.noise.count_mean_envs(config.num_envs) - first_env, 0), share)  # the first of all
        # The weights of actors are old in any case, and their target network is never updated.
        agent = replace(agent, noise=replace(agent.noise, mean_envs=mean_envs), act_with="online")
        local = replace(config.collect, engine="local")
        return replace(config, agent=agent, collect=local, seed=int(seed >> np.uint64(1)), num_envs=share)


def ladder(actor: int, actors: int) -> float:
    """The constant ε of an actor on Ape-X's ladder."""
    return float(LADDER_EPSILON ** (1.0 + LADDER_ALPHA * actor / max(actors - 1, 1)))


def split_evenly(count: int, actors: int) -> tuple[int, ...]:
    """The number of environments of each actor, split as evenly as possible; the first actors have one more."""
    each, remainder = divmod(count, actors)
    return tuple(each + (actor < remainder) for actor in range(actors))


class Recorder:
    """Replaces replay and tracker in an actor, and keeps their input for the next chunk."""

    def __init__(self, spec: ObservationSpec) -> None:
        self._newest = -spec.stored_shape[0] if spec.stack > 1 else 0
        self.console = self
        self.priorities: FirstPriorities | None = None
        self._reset()

    def _reset(self) -> None:
        self._first: np.ndarray | None = None
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._life_lost: list[np.ndarray | None] = []
        self._episodes: list[tuple[int, float, int]] = []
        self._lines: list[str] = []

    def begin(self, observation: np.ndarray) -> None:
        """Takes the first observations, as a replay does."""
        self._first = self._stored(observation)
        if self.priorities is not None:
            self.priorities.begin(observation)

    def add(
        self,
        action: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        observation: np.ndarray,
        life_lost: np.ndarray | None = None,
    ) -> None:
        """Takes a vector step, as a replay does."""
        arrays = action, np.asarray(reward, np.float32), terminated, truncated
        self._rows.append((*(array.copy() for array in arrays), self._stored(observation)))
        self._life_lost.append(life_lost)
        if self.priorities is not None:
            self.priorities.add(action, reward, terminated, truncated, observation, life_lost)

    def _stored(self, observation: np.ndarray) -> np.ndarray:
        return (observation[:, self._newest :] if self._newest else observation).copy()

    def log(self, step: int, episode: Mapping[str, float]) -> None:
        """Takes the return and length of an episode, as a tracker does."""
        length = int(episode["train/episode_length"])
        self._episodes.append((len(self._rows) - 1, float(episode["train/episode_return"]), length))

    def line(self, text: str) -> None:
        """Takes a line for the console."""
        self._lines.append(text)

    def chunk(self, **fields: Any) -> Chunk:
        """The chunk of everything since the last chunk, with the other fields given."""
        action, reward, terminated, truncated, observation = map(np.stack, zip(*self._rows, strict=True))
        life_lost = None
        if any(part is not None for part in self._life_lost):
            no_life_lost = np.zeros(action.shape[1], dtype=bool)
            life_lost = np.stack([no_life_lost if part is None else part for part in self._life_lost])
        chunk = Chunk(
            **fields,
            action=action,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            observation=observation,
            first=self._first,
            life_lost=life_lost,
            priority=None if self.priorities is None else self.priorities.of_chunk(),
            episodes=tuple(self._episodes),
            lines=tuple(self._lines),
        )
        self._reset()
        return chunk
