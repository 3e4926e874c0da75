"""This project's agent, as a line of JSON: python benchmarks/peers/run_ours.py --workload a --variant noisy.

It runs the trainer's own loop: acting, environment, replay and updates. As for all libraries, nothing is evaluated,
logged or saved.
"""

import os
from pathlib import Path
from typing import Any

import harness
from workloads import NOISY_ROWS, PLAIN, RAINBOW, SEPARATE, Workload

# The algorithm of the peers' DQNs: all further parts of ours are off. `rainbow` is the one of conf/agent/rainbow.yaml.
BASIC: dict[str, Any] = {"double": False, "n_step": 1}
FULL: dict[str, Any] = {"double": True, "n_step": 3, "head": "categorical", "priority": {"enabled": True}}


class NoTracker:
    """Takes metrics and drops them."""

    run_id = None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        pass


class Ours:
    """Everything as train.py builds it."""

    def __init__(self, workload: Workload, variant: str) -> None:
        import torch

        from agent.config.parsing import parse
        from agent.config.run import TrainConfig
        from agent.running.build import build_agent, build_replay
        from agent.running.resources import prepare_cpu
        from agent.running.trainer import Trainer
        from envs.make import load_task
        from envs.vector import make_vector

        config = parse(TrainConfig, {**settings(workload, variant), "threads": torch.get_num_threads()})
        prepare_cpu(config.threads)
        task = load_task(workload.env_id, dict(workload.kwargs))
        device = torch.device("cpu")
        self.agent, plan = build_agent(config, task, device)
        envs, replay = make_vector(task, workload.num_envs), build_replay(config, task, device, plan)
        parts = self.agent, replay, NoTracker(), Path(os.devnull), plan
        self.trainer = Trainer(config, task, envs, *parts)  # type: ignore[arg-type]
        self.trainer.begin()
        self.advance(workload.starts)

    def advance(self, steps: int) -> None:
        until = self.trainer.step + steps
        while self.trainer.step < until:
            self.trainer.iterate()

    def updates(self) -> int:
        return self.agent.updates


def settings(workload: Workload, variant: str) -> dict[str, Any]:
    """The config of a workload, as nested dicts."""
    epsilon = 0.1 if variant == PLAIN else 0.0
    agent = {
        **(FULL if variant == RAINBOW else BASIC),
        "network": {"hidden": list(workload.hidden), "layer_norm": False, "dueling": variant == RAINBOW},
        "noise": {
            "enabled": variant != PLAIN,
            "learning": "separate" if variant == SEPARATE else "joint",
            "draws": 0 if variant in (NOISY_ROWS, SEPARATE) else 1,
            "mean_envs": 0,
        },
        "epsilon": {"start": epsilon, "end": epsilon},
        "batch_size": workload.batch,
        "replay_ratio": f"1/{workload.every}",
        "target_every": workload.target_updates,
        "replay_size": workload.replay,
        "learning_starts": workload.starts,
    }
    return {"agent": agent, "num_envs": workload.num_envs, "env": {"id": workload.env_id}, "steps": 10**9}


if __name__ == "__main__":
    harness.run("ours", "noisy-dqn", Ours)
