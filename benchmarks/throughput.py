"""Environment steps per second of a whole training loop, ours and Stable-Baselines3's DQN in alternation.

    python benchmarks/throughput.py            # needs the extra `bench`

One CartPole-v1, MLP 120-84, batch 128, one thread, CPU, an update every 10 steps and every step: the workloads of
CleanRL's dqn.py. Nothing is evaluated, logged or saved. Each measurement is a process of its own; the table gives the
median, the spread and the ratio to Stable-Baselines3 in the same round.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

NOISY = {"double": False, "n_step": 1}  # what SB3's DQN does, and noise on top
CONTENDERS = {
    "sb3 (no noise)": None,
    "ours, plain": {**NOISY, "noise": {"enabled": False}, "epsilon": {"start": 0.1, "end": 0.1}},
    "ours, noisy, shared draw": {**NOISY, "noise": {"draws": 1}},
    "ours, noisy, draw per row": {**NOISY, "noise": {"draws": 0}},
    "ours, noisy, the default agent": {},
}
STARTS = 1_000


def ours(settings: dict[str, object], every: int, steps: int) -> float:
    import torch

    from agent.config import TrainConfig
    from agent.options import parse
    from agent.resources import use_threads
    from agent.training import Trainer
    from envs.make import load_task
    from envs.vector import make_vector
    from train import build_agent, build_replay

    use_threads(1)
    common = {"batch_size": 128, "replay_ratio": f"1/{every}", "target_every": 500 // every, "replay_size": 10_000}
    network = {"hidden": [120, 84], "layer_norm": settings == {}}
    agent_config = {**common, "network": network, "learning_starts": STARTS, "adam_eps": 1e-8, **settings}
    config = parse(TrainConfig, {"agent": agent_config, "num_envs": 1, "steps": steps + STARTS})
    task = load_task("CartPole-v1", {})
    device = torch.device("cpu")
    agent, replay = build_agent(config, task, device), build_replay(config, task, device)
    trainer = Trainer(config, task, make_vector(task, 1), agent, replay, NoTracker(), Path(os.devnull))  # type: ignore[arg-type]
    trainer.begin()
    while trainer.step < STARTS:
        trainer.iterate()
    began = time.perf_counter()
    while trainer.step < STARTS + steps:
        trainer.iterate()
    return steps / (time.perf_counter() - began)


class NoConsole:
    def update(self, step: int) -> None:
        pass


class NoTracker:
    """Takes metrics and drops them."""

    run_id = None
    console = NoConsole()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        pass


def sb3(every: int, steps: int) -> float:
    import torch

    torch.set_num_threads(1)
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    class Clock(BaseCallback):
        began = 0.0

        def _on_step(self) -> bool:
            if self.num_timesteps == STARTS:
                self.began = time.perf_counter()
            return True

    model = DQN(
        "MlpPolicy",
        "CartPole-v1",
        batch_size=128,
        buffer_size=10_000,
        learning_starts=STARTS,
        train_freq=every,
        gradient_steps=1,
        target_update_interval=500,
        policy_kwargs={"net_arch": [120, 84]},
        device="cpu",
        seed=0,
    )
    clock = Clock()
    model.learn(STARTS + steps, callback=clock)
    return steps / (time.perf_counter() - clock.began)


def measure(contender: str, every: int, steps: int) -> float:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--child", contender, str(every), str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return float(
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        contender, every, steps = arguments.child[0], int(arguments.child[1]), int(arguments.child[2])
        settings = CONTENDERS[contender]
        print(sb3(every, steps) if settings is None else ours(settings, every, steps))
        return
    for every, steps in ((10, 30_000), (1, 6_000)):
        rounds = [{name: measure(name, every, steps) for name in CONTENDERS} for _ in range(arguments.repeats)]
        print(
            f"\n| an update every {every} steps | env steps/s, median (min … max) | ratio to sb3, median (min … max) |"
        )
        print("|---|---|---|")
        for name in CONTENDERS:
            speeds = np.array([measured[name] for measured in rounds])
            ratios = np.array([measured[name] / measured["sb3 (no noise)"] for measured in rounds])
            print(
                f"| {name} | {np.median(speeds):.0f} ({speeds.min():.0f} … {speeds.max():.0f}) "
                f"| {np.median(ratios):.2f} ({ratios.min():.2f} … {ratios.max():.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
