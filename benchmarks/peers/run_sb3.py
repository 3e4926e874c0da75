"""Stable-Baselines3's DQN, as a line of JSON: python benchmarks/peers/run_sb3.py --workload a.

At its best: environments without its Monitor and without Gymnasium's checks, fused Adam, no logging. It has no noisy
layers and no Rainbow.
"""

import harness
from harness import optimiser_steps
from stable import Stable
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
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


class StableBaselines(Stable):
    def __init__(self, workload: Workload, variant: str) -> None:
        policy, options = "MlpPolicy", {"net_arch": list(workload.hidden)}
        if workload.trunk == "nature":
            policy, options = "CnnPolicy", {"net_arch": []}  # its NatureCNN ends with the hidden layer of 512
        elif workload.trunk == "minatar":
            options |= {"features_extractor_class": MinAtar, "normalize_images": False}
        super().__init__(
            DQN,
            policy,
            workload,
            policy_kwargs={**options, "optimizer_kwargs": {"fused": True}},
            device="cpu",
        )

    def updates(self) -> int:
        return optimiser_steps(self.model.policy.optimizer)


if __name__ == "__main__":
    harness.run("sb3", "stable-baselines3", StableBaselines)
