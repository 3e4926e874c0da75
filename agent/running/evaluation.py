"""The only evaluation in the repository: separate seeds, one per episode.

Its environments are fresh, unless `eval.share` lends it one of training's.
"""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch

from agent.common.errors import UserError
from agent.common.interrupt import Stopped
from agent.common.kinds import PlainData
from agent.learning.targets import greedy
from agent.networks.q_network import QNetwork
from agent.noise.distributions import NoiseModel
from agent.records.evaluations import EPISODE_CAP
from agent.records.statistics import bootstrap_interval, interquartile_mean
from agent.running.apart import apart
from envs.atari import human_normalised
from envs.kinds import Env, Observation
from envs.make import Task

Policy = Callable[[np.ndarray, Sequence[int]], np.ndarray]


def never() -> bool:
    """Never stops."""
    return False


@dataclass(frozen=True)
class Evaluation:
    """The returns and lengths of the episodes, in the order of their seeds."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    def statistics(self, env_id: str = "") -> PlainData:
        """Mean, spread, IQM and 95 % bootstrap interval of the return; mean length; human-normalised score."""
        returns, human = np.array(self.returns), human_normalised(env_id, float(np.mean(self.returns)))
        return {
            "return_mean": float(returns.mean()),
            "return_std": float(returns.std()),
            "return_median": float(np.median(returns)),
            "return_min": float(returns.min()),
            "return_max": float(returns.max()),
            "return_iqm": interquartile_mean(returns),
            "return_ci95": list(bootstrap_interval(returns)),
            "length_mean": float(np.mean(self.lengths)),
            **({} if human is None else {"human_normalised": human}),
        }


@dataclass(frozen=True)
class EvaluationResults:
    """One evaluation of an agent: with its mean network, perhaps with its noisy network, and perhaps a film."""

    mean: Evaluation
    noisy: Evaluation | None = None
    film: "EncodedFilm | None" = None


@dataclass(frozen=True)
class EncodedFilm:
    """A film from another process: the bytes of the file and its suffix, or the reason why there is none."""

    content: bytes = b""
    suffix: str = ""
    failure: str = ""


class EvaluationPolicy:
    """The greedy policy of the mean network, or of the network with a fresh draw at every step of every episode.

    It computes in double precision: the number of episodes side by side changes the rounding of a matrix product, which
    could change an action in single precision.

    Args:
        network: copied, so that later training does not change this policy.
        noise: how to draw; None for the mean network.
        seeds: one per episode, for its noise.
    """

    def __init__(self, network: QNetwork, noise: NoiseModel | None, seeds: Sequence[int]) -> None:
        device = next(network.parameters()).device
        self._device = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self._network = _double_copy(network, self._device)
        self._noise = noise if noise is not None and noise.size else None
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds] if self._noise is not None else []

    def __call__(self, observation: np.ndarray, episodes: Sequence[int]) -> np.ndarray:
        """Actions [n] for observations [n, *shape] of the episodes with these indices."""
        return greedy(self.q_values(observation, episodes)).cpu().numpy()

    def q_values(self, observation: np.ndarray, episodes: Sequence[int]) -> torch.Tensor:
        """The values float64 [n, actions] of every action, with one draw of the noise for each observation."""
        with torch.inference_mode():
            x = torch.from_numpy(observation).to(self._device, torch.float64)
            noise = None
            if self._noise is not None:
                noise = self._noise.draw_each([self._generators[episode] for episode in episodes]).to(x)
            values: torch.Tensor = self._network(x, noise).q_values
            return values


def _double_copy(network: QNetwork, device: torch.device) -> QNetwork:
    with torch.no_grad():  # in evaluation mode, as a user's encoder may hold modules that have one
        return copy.deepcopy(network).to(device).double().eval()  # in this order, as MPS has no float64


def play(
    envs: Sequence[Env],
    policy: Policy,
    seeds: Sequence[int],
    task: Task,
    on_step: Callable[[Env], None] | None = None,
    stop: Callable[[], bool] = never,
) -> Evaluation:
    """Plays one whole episode for each seed, len(envs) of them side by side.

    Exactly these episodes count, so that short ones are not favoured. Each begins with its own seed, so that the
    result does not depend on the number of environments.

    Args:
        envs: environments of one task, which may be reset.
        policy: maps observations [n, *shape] and the indices of their episodes to actions.
        seeds: one per episode.
        task: the task of the environments.
        on_step: called with the first environment after each of its resets and steps.
        stop: called before each step; True ends the evaluation without a result.

    Raises:
        Stopped: `stop` returned True.
    """
    episodes = _Episodes(envs, seeds, task, on_step)
    while episodes.running:
        if stop():
            raise Stopped
        episodes.step(policy(episodes.observations(), list(episodes.running.values())))
    return Evaluation(tuple(episodes.returns), tuple(episodes.lengths))


class _Episodes:
    """The episodes of a call of `play`, which describes the arguments."""

    def __init__(
        self,
        envs: Sequence[Env],
        seeds: Sequence[int],
        task: Task,
        on_step: Callable[[Env], None] | None,
    ) -> None:
        self._envs, self._seeds, self._task, self._on_step = envs, seeds, task, on_step
        self.returns, self.lengths = [0.0] * len(seeds), [0] * len(seeds)
        self.running: dict[int, int] = {}  # environment → episode
        self._observations: dict[int, Observation] = {}
        self._waiting = iter(range(len(seeds)))
        for slot in range(len(envs)):
            self._begin(slot)

    def observations(self) -> np.ndarray:
        """The observations [n, *shape] of the environments that are playing."""
        observe = self._task.observe
        return observe(observe.stack([self._observations[slot] for slot in self.running]))

    def step(self, actions: np.ndarray) -> None:
        """Steps the environments that are playing; an environment whose episode ended begins the next episode."""
        each = zip(self.running.items(), self._task.to_environment(actions), strict=True)
        for slot in [slot for (slot, episode), action in each if self._step_one(slot, episode, action)]:
            self._begin(slot)

    def _begin(self, slot: int) -> None:
        """Begins the next episode, if there is one."""
        self.running.pop(slot, None)
        if (episode := next(self._waiting, None)) is not None:
            self.running[slot] = episode
            self._observations[slot], _ = self._envs[slot].reset(seed=self._seeds[episode])
            self._notify(slot)

    def _step_one(self, slot: int, episode: int, action: np.generic) -> bool:
        """Steps one environment; returns whether its episode ended."""
        self._observations[slot], reward, terminated, truncated, _ = self._envs[slot].step(action)
        self.returns[episode] += float(reward)
        self.lengths[episode] += 1
        self._notify(slot)
        return bool(terminated or truncated or self.lengths[episode] >= EPISODE_CAP)

    def _notify(self, slot: int) -> None:
        if slot == 0 and self._on_step is not None:
            self._on_step(self._envs[0])


def metrics_of(statistics: PlainData) -> dict[str, float]:
    """The metrics of an evaluation with the given statistics."""
    low, high = statistics["return_ci95"]
    metrics = {f"eval/{name}": value for name, value in statistics.items() if name != "return_ci95"}
    return metrics | {"eval/return_ci95_low": low, "eval/return_ci95_high": high}


def finite(result: Evaluation, name: str) -> Evaluation:
    """The result of an evaluation, checked; `name` is the task's, for the error.

    Raises:
        UserError: if a return is not finite.
    """
    if not all(map(math.isfinite, result.returns)):
        raise UserError(f"{name} gave rewards that are NaN or infinite")
    return result


def evaluate(
    task: Task,
    network: QNetwork,
    seeds: Sequence[int],
    noise: NoiseModel | None = None,
    num_envs: int = 20,
    stop: Callable[[], bool] = never,
    env: Env | None = None,
) -> Evaluation:
    """Plays one episode per seed in fresh environments: the mean network, or with fresh `noise` at every step.

    Args:
        task: the task.
        network: the agent's Q-network.
        seeds: one per episode.
        noise: how to draw; None for the mean network.
        num_envs: environments side by side, at most one per episode; the number does not change the result.
        stop: see `play`.
        env: an open environment to use in place of fresh ones; it stays open.

    Raises:
        Stopped: `stop` returned True.
    """
    with apart(network, seeds[0]), ExitStack() as stack:
        envs: list[Env] = [] if env is None else [env]
        for _ in range(min(num_envs, len(seeds)) if env is None else 0):
            envs.append(task.make_guarded())
            stack.callback(envs[-1].close)
        return play(envs, EvaluationPolicy(network, noise, seeds), seeds, task, stop=stop)
