"""Stable-Baselines3's DQN with its zoo's settings: python benchmarks/sb3.py <env> <seed> <steps> <eval_every>.

Prints one JSON object: the evaluation curve (steps, return, training seconds without evaluation) and the last agent.
"""

import json
import sys
import time

import gymnasium as gym
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

# rl-baselines3-zoo, hyperparams/dqn.yml
ZOO = {
    "CartPole-v1": {
        "learning_rate": 2.3e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "gamma": 0.99,
        "target_update_interval": 10,
        "train_freq": 256,
        "gradient_steps": 128,
        "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04,
        "policy_kwargs": {"net_arch": [256, 256]},
    },
}


class Curve(BaseCallback):
    """Evaluates every `every` steps in an environment of its own and keeps training time apart."""

    def __init__(self, env_id: str, every: int) -> None:
        super().__init__()
        self.every, self.curve = every, []
        self.eval_env = Monitor(gym.make(env_id))
        self.eval_env.reset(seed=12_345)
        self.seconds, self.since = 0.0, time.perf_counter()

    def _on_training_start(self) -> None:
        self.since = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            self.seconds += time.perf_counter() - self.since
            mean, _ = evaluate_policy(self.model, self.eval_env, n_eval_episodes=20, deterministic=True)
            self.curve.append((self.num_timesteps, float(mean), self.seconds))
            self.since = time.perf_counter()
        return True


def main() -> None:
    env_id, seed, steps, every = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    model = DQN("MlpPolicy", env_id, seed=seed, device="cpu", **ZOO[env_id])
    callback = Curve(env_id, every)
    model.learn(steps, callback=callback)
    env = Monitor(gym.make(env_id))
    env.reset(seed=54_321)
    final, _ = evaluate_policy(model, env, n_eval_episodes=100, deterministic=True)
    print(json.dumps({"curve": callback.curve, "final": float(final)}))


if __name__ == "__main__":
    main()
