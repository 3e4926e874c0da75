"""Run folders that look like train.py's, without training: config.yaml by the same writer, metrics in the same form."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.config.algorithm import AgentConfig
from agent.config.parsing import to_plain
from agent.config.parts import EpsilonConfig, NoiseConfig
from agent.config.run import EnvConfig, TrainConfig
from agent.records.run_folder import write_config

#: The options of the presets that a comparison reads.
AGENTS = {
    "noisy_dqn": AgentConfig(),
    "dqn": AgentConfig(noise=NoiseConfig(enabled=False), epsilon=EpsilonConfig(start=1.0, end=0.05)),
    "rainbow": AgentConfig(head="categorical", n_step=5),
}


def write_run(
    folder: Path,
    seed: int = 0,
    agent: str = "noisy_dqn",
    env: str = "CartPole-v1",
    final: float = 400.0,
    steps: int = 20_000,
    done: float = 1.0,
    words: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a run that rises to `final`, and returns its folder.

    Args:
        folder: of the run.
        seed: of the run, and of the noise of its curve.
        agent: of AGENTS.
        env: its task.
        final: the return that its curve comes near to.
        steps: that it was asked for.
        done: the part of them that it has done.
        words: more options of its command line.
        options: more of its config, by their full names.
    """
    config = to_plain(
        dataclasses.replace(TrainConfig(), env=EnvConfig(id=env), agent=AGENTS[agent], seed=seed, steps=steps)
    )
    for name, value in (options or {}).items():
        node = config
        for part in name.split(".")[:-1]:
            node = node.setdefault(part, {})
        node[name.split(".")[-1]] = value
    folder.mkdir(parents=True)
    said = [f"env={env}", *([] if agent == "noisy_dqn" else [f"agent={agent}"]), *words, f"seed={seed}"]
    write_config(folder, config, said)
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, _rows(seed, agent, final, steps, done))) + "\n")
    return folder


def _rows(seed: int, agent: str, final: float, steps: int, done: float) -> list[dict[str, Any]]:
    random = np.random.Generator(np.random.PCG64(seed))
    speed = random.uniform(2_000, 3_000)
    rows: list[dict[str, Any]] = []
    for step in range(1_000, int(steps * done) + 1, 1_000):
        part, seconds = step / steps, step / speed
        now = final * (1.0 - np.exp(-4.0 * part)) * random.uniform(0.8, 1.0)
        rows.append({"global_step": step - 7, "train/episode_return": now * 0.8, "train/episode_length": 20})
        row = {
            "global_step": step,
            "train/loss": 3.0 * random.uniform(0.8, 1.2) / (1 + 5 * part),
            "speed/env_steps_per_second": speed,
            "time/train_seconds": seconds,
        }
        if agent != "dqn":
            row["noise/action_change"] = 0.3 / (1 + 5 * part)
            row["sigma/encoder.layers.0"] = 0.5 / (1 + 2 * part)
            row["sigma/head.value"] = 0.5 / (1 + part)
        rows.append(row)
        if step % 2_000 == 0:
            evaluated = {"eval/return_mean": now, "eval/return_std": 3.0, "time/train_seconds": seconds}
            rows.append({"global_step": step + seed % 5, **evaluated})
    return rows
