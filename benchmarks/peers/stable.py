"""The part of the runners that Stable-Baselines3 and SBX share: both have the same interface."""

from typing import Any

from harness import make_env
from stable_baselines3.common.vec_env import DummyVecEnv
from workloads import Workload


class Stable:
    """DQN.learn goes on where it stopped: only its total grows.

    Args:
        dqn: the library's DQN.
        policy: its policy.
        workload: the work.
        options: further arguments of `dqn`.
    """

    def __init__(self, dqn: Any, policy: Any, workload: Workload, **options: Any) -> None:
        vector_steps, gradient_steps = workload.cycle
        self.round = vector_steps * workload.num_envs
        self.model = dqn(
            policy,
            DummyVecEnv([lambda: make_env(workload)] * workload.num_envs),
            batch_size=workload.batch,
            buffer_size=workload.replay,
            learning_starts=workload.starts,
            train_freq=vector_steps,  # counted in vector steps
            gradient_steps=gradient_steps,
            target_update_interval=workload.target_steps,
            exploration_initial_eps=0.1,
            exploration_final_eps=0.1,
            seed=0,
            **options,
        )
        self.advance(workload.starts)

    def advance(self, steps: int) -> None:
        rounds = -(-steps // self.round)
        self.model.learn(rounds * self.round, reset_num_timesteps=False, log_interval=None)
