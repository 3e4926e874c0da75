"""Evaluations as Ray tasks, which play the agent of a step while training goes on."""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from agent.common.errors import UserError, one_line
from agent.common.seeding import environment_seeds
from agent.learning.dqn import DQN
from agent.noise.distributions import NoiseModel
from agent.running.build import build_acting_agent
from agent.running.distributed.actor_pool import POLL_SECONDS, first_sentence
from agent.running.distributed.chunk import Failure, Setup
from agent.running.evaluation import EncodedFilm, Evaluation, EvaluationResults, evaluate, finite
from agent.running.filming import record_film
from agent.running.resources import prepare_cpu
from envs.make import Task
from envs.video import write_video

#: Ray repeats an evaluation whose process or node died this many times; it has its own seeds, so nothing changes.
MAX_RETRIES = 2


class RayEvaluations:
    """Lets a Ray task play one evaluation at a time.

    The task requests no CPU: it would wait forever on a cluster whose CPUs the actors occupy.

    Args:
        ray: the package, connected.
        setup: the setup of the actors.
    """

    def __init__(self, ray: ModuleType, setup: Setup) -> None:
        self._ray, self._shared = ray, ray.put(setup)
        self._function = ray.remote(num_cpus=0, max_retries=MAX_RETRIES)(evaluate_in_task)
        self._reference: Any = None

    def begin(self, tensors: Mapping[str, torch.Tensor], films: bool) -> None:
        """Begins an evaluation of the network with these parameters, and perhaps a film of its first episode."""
        self._reference = self._function.remote(self._shared, dict(tensors), films)

    def result(self, wait: bool) -> EvaluationResults | None:
        """The results of the evaluation that was begun; None if they have not arrived.

        Args:
            wait: whether to wait for a moment.

        Raises:
            UserError: the evaluation failed.
        """
        ready, _ = self._ray.wait([self._reference], timeout=POLL_SECONDS if wait else 0.0)
        if not ready:
            return None
        reference, self._reference = self._reference, None
        try:
            results: EvaluationResults | Failure = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # this project's own error, in full
            raise error.as_instanceof_cause() from None
        except self._ray.exceptions.RayError as error:
            raise UserError(f"its process ended ({first_sentence(error)})") from None
        if isinstance(results, Failure):
            raise UserError(results.sentence, results.detail)
        return results

    def close(self) -> None:
        """Ends the evaluation under way, if any."""
        if self._reference is not None:
            with suppress(Exception):  # Ray may be gone
                self._ray.cancel(self._reference, force=True)
            self._reference = None


def evaluate_in_task(setup: Setup, tensors: Mapping[str, torch.Tensor], films: bool) -> EvaluationResults | Failure:
    """Plays an evaluation as `Evaluator` does, with these parameters and on one thread of this process."""
    prepare_cpu(1)
    setup.register()
    config, task = setup.config, setup.task.for_evaluation()
    player = build_acting_agent(config, setup.task, config.seed)
    player.network.load_state_dict(dict(tensors))
    seeds = environment_seeds(config.seed, "evaluation", config.eval.episodes)
    num_envs = config.eval.num_envs or config.num_envs

    def play(noise: NoiseModel | None) -> Evaluation:
        return finite(evaluate(task, player.network, seeds, noise, num_envs), task.id)

    try:
        mean, noisy = play(None), play(player.noise) if config.eval.noisy and player.noise.size else None
    except (Exception, SystemExit) as error:  # an environment may do anything
        return Failure(one_line(error), error.detail if isinstance(error, UserError) else "")
    return EvaluationResults(mean, noisy, film(task, player, seeds[:1]) if films else None)


def film(task: Task, player: DQN, seeds: list[int]) -> EncodedFilm:
    """A film of the episodes of `seeds`, as the bytes of its file."""
    try:
        frames, _ = record_film(task, player.network, seeds)
        with tempfile.TemporaryDirectory() as folder:
            path = write_video(frames, Path(folder) / "film", task.fps)
            return EncodedFilm(path.read_bytes(), path.suffix)
    except (Exception, SystemExit) as error:
        return EncodedFilm(failure=one_line(error))
