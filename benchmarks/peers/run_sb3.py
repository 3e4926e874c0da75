"""Stable-Baselines3's DQN, as a line of JSON: python benchmarks/peers/run_sb3.py --workload a.

At its best: environments without its Monitor and without Gymnasium's checks, fused Adam, no logging. It has no noisy
layers and no Rainbow.
"""

import harness
from harness import make_env, optimiser_steps
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn
from workloads import Workload


class MinAtar(BaseFeaturesExtractor):
    """One convolution of 16 channels; the policy adds the linear layers."""

    def __init__(self, space) -> None:
        channels, height, width = space.shape
        super().__init__(space, 16 * (height - 2) * (width - 2))
        self.layers = nn.Sequential(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten())

    def forward(self, observation: Tensor) -> Tensor:
        return self.layers(observation.float())


class StableBaselines:
    """DQN.learn goes on where it stopped: only its total grows."""

    def __init__(self, workload: Workload, variant: str) -> None:
        vector_steps, gradient_steps = workload.cycle
        self.round = vector_steps * workload.num_envs
        policy, options = "MlpPolicy", {"net_arch": list(workload.hidden)}
        if workload.trunk == "nature":
            policy, options = "CnnPolicy", {"net_arch": []}  # its NatureCNN ends with the hidden layer of 512
        elif workload.trunk == "minatar":
            options |= {"features_extractor_class": MinAtar, "normalize_images": False}
        self.model = DQN(
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
            policy_kwargs={**options, "optimizer_kwargs": {"fused": True}},
            device="cpu",
            seed=0,
        )
        self.advance(workload.starts)

    def advance(self, steps: int) -> None:
        rounds = -(-steps // self.round)
        self.model.learn(rounds * self.round, reset_num_timesteps=False, log_interval=None)

    def updates(self) -> int:
        return optimiser_steps(self.model.policy.optimizer)


if __name__ == "__main__":
    harness.run("sb3", "stable-baselines3", StableBaselines)
