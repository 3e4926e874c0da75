"""Speed on a GPU: updates per second, frames per second of whole Atari training, and memory.

    python benchmarks/gpu.py                         # all of it; writes docs/performance/gpu_<part>.md line by line
    python benchmarks/gpu.py --only updates --agents rainbow      # a part of it; or: training
    python benchmarks/gpu.py --pong 18               # and how long Pong takes to an average return of 18
    python benchmarks/gpu.py --device cpu --quick    # a test of this script, not of anything's speed

Updates: the presets noisy_dqn, rainbow and btr (with its own encoder) on frames as Atari's, batches of 32 and 256,
drawn from a replay on the device. Each is run as it is (eager), with CUDA graphs, compiled, both, and both with bf16
in the encoder. The first updates (compiling, recording) are left out; what is timed ends with a synchronisation. The
median of several blocks, and the most memory that torch held beside the replay.

Training: Pong with 16, 64 and 128 environments, at the presets' replay ratios, not compiled; four frames are a step.
Nothing is evaluated, logged or saved. It needs the extra `atari`.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import reporting
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from agent.config import TrainConfig  # noqa: E402
from agent.dqn import DQN  # noqa: E402
from agent.learning import Learner  # noqa: E402
from agent.network import build_network  # noqa: E402
from agent.observation import ObservationSpec  # noqa: E402
from agent.options import parse  # noqa: E402
from agent.priorities import PrioritisedReplay  # noqa: E402
from agent.replay import Replay  # noqa: E402
from agent.resources import prepare_cpu, resolve_device  # noqa: E402
from agent.seeding import torch_generator  # noqa: E402
from agent.speed import Speed  # noqa: E402
from train import presets  # noqa: E402

FRAMES, ACTIONS, ENVS = ObservationSpec((4, 84, 84), "uint8", 255.0, 4), 6, 64
PRESETS = ("noisy_dqn", "rainbow", "btr")
WAYS = {
    "eager": Speed(),
    "graph": Speed(graphs=True),
    "compiled": Speed(compiled=True),
    "compiled, graph": Speed(compiled=True, graphs=True),
    "compiled, graph, bf16": Speed(compiled=True, graphs=True, autocast=True),
}


def preset(name: str, *options: str) -> TrainConfig:
    """The config of Pong with an agent's preset."""
    presets(["env=ALE/Pong-v5"])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = ["env=ALE/Pong-v5", f"agent={name}", *options]
        tree: Any = OmegaConf.to_container(compose("train", overrides=[*words, "env.id=ALE/Pong-v5"]))
    return parse(TrainConfig, {key: value for key, value in tree.items() if key not in ("resume", "imports", "hydra")})


class Memory:
    """The most that torch held on the device since this was made, in MiB."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)

    def peak(self) -> float:
        return torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else float("nan")


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---- updates


def filled(config: TrainConfig, device: torch.device, rows: int) -> Replay:
    """A replay of `rows` vector steps, with an ending now and then."""
    agent, sizes = config.agent, (rows * ENVS, ENVS, FRAMES)
    options: dict[str, Any] = {"n_step": agent.n_step, "gamma": agent.gamma, "device": device}
    if agent.priority.enabled:
        replay: Replay = PrioritisedReplay(*sizes, exponent=agent.priority.exponent, **options)
    else:
        replay = Replay(*sizes, **options)
    rng = np.random.Generator(np.random.PCG64(0))
    observation = rng.integers(256, size=(ENVS, *FRAMES.shape), dtype=np.uint8)
    replay.begin(observation)
    nothing, action, reward = np.zeros(ENVS, dtype=bool), np.zeros(ENVS, dtype=np.int64), rng.standard_normal(ENVS)
    for t in range(rows):
        replay.add(action, reward, np.arange(ENVS) == t % 200, nothing, np.roll(observation, t, axis=3))
    return replay


def updates_per_second(config: TrainConfig, speed: Speed, device: torch.device, quick: bool) -> tuple[float, float]:
    """Updates per second, and the memory that they need beside the replay in MiB."""
    replay = filled(config, device, 20 if quick else 1_000)
    memory, held = Memory(device), torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    network = build_network(config.agent, FRAMES, ACTIONS, torch_generator(0, "initialisation"))
    agent = DQN(network, config.agent, ACTIONS, 0, device, speed)
    learner = Learner(agent, replay, 0)

    def run(count: int) -> None:
        ratio = config.agent.replay_ratio
        updates = agent.updates + count
        for _ in learner(config.agent.learning_starts - (-updates * ratio.denominator // ratio.numerator)):
            pass
        finish(device)

    run(1 if quick else 20)
    began = time.perf_counter()
    run(1 if quick else 20)
    block = 1 if quick else max(20, int(0.5 * 20 / (time.perf_counter() - began)))
    rates = []
    for _ in range(1 if quick else 7):
        before, began = agent.updates, time.perf_counter()
        run(block)
        rates.append((agent.updates - before) / (time.perf_counter() - began))
    torch.compiler.reset()
    return median(rates), memory.peak() - held / 2**20


def updates(device: torch.device, quick: bool, agents: Sequence[str]) -> Iterator[str]:
    ways = {name: way for name, way in WAYS.items() if device.type == "cuda" or way == Speed()}
    yield "| agent, batch | " + " | ".join(f"{name}: updates/s (MiB)" for name in ways) + " |"
    yield "|---|" + "---|" * len(ways)
    for name in agents:
        for batch in (8,) if quick else (32, 256):
            config = preset(name, f"agent.batch_size={batch}")
            cells = []
            for way in ways.values():
                rate, memory = updates_per_second(config, way, device, quick)
                cells.append(f"{rate:,.0f} ({memory:,.0f})")
            yield f"| {name}, {batch} | " + " | ".join(cells) + " |"


# ---- whole training


class Silent:
    """A tracker and its console that drop what they are told; `seen` is called with every episode's return."""

    run_id = None

    def __init__(self, seen: Callable[[float], None] = lambda value: None) -> None:
        self.console, self.seen = self, seen

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if "train/episode_return" in metrics:
            self.seen(metrics["train/episode_return"])

    def update(self, step: int) -> None:
        pass


def trainer_of(config: TrainConfig, device: torch.device, tracker: Silent) -> Any:
    from agent.training import Trainer
    from envs.make import load_task
    from envs.vector import make_vector
    from train import build_agent, build_replay

    task = load_task(config.env.id, config.env.kwargs, config.env.time_limit)
    envs = make_vector(task, config.num_envs, config.env.vectorization)
    agent, replay = build_agent(config, task, device), build_replay(config, task, device)
    trainer = Trainer(config, task, envs, agent, replay, tracker, Path("/dev/null"))  # type: ignore[arg-type]
    trainer._monitor.report = lambda metrics: None  # nothing is logged, which would drop what is reported
    trainer.begin()
    return trainer


def frames_per_second(config: TrainConfig, device: torch.device, seconds: float) -> tuple[float, float]:
    """Emulator frames per second after learning has started, and the most memory that torch held in MiB."""
    memory = Memory(device)
    trainer = trainer_of(config, device, Silent())
    while trainer.agent.updates < 10:
        trainer.iterate()
    finish(device)
    first, began = trainer.step, time.perf_counter()
    while time.perf_counter() - began < seconds:
        trainer.iterate()
    finish(device)
    rate = 4 * (trainer.step - first) / (time.perf_counter() - began)
    trainer.envs.close()
    return rate, memory.peak()


def training(
    device: torch.device, quick: bool, seconds: float, vectorization: str, agents: Sequence[str]
) -> Iterator[str]:
    switches = {
        "on": ("compile=off", "cuda_graphs=auto", "overlap=on"),
        "off": ("compile=off", "cuda_graphs=off", "overlap=off"),
    }
    yield "| agent, environments | frames/s, graphs and overlap | frames/s, neither | MiB |"
    yield "|---|---|---|---|"
    for name in agents:
        for count in (2,) if quick else (16, 64, 128):
            rates, memory = [], 0.0
            for words in switches.values():
                config = preset(name, *words, f"num_envs={count}", "agent.replay_size=100000", "steps=10000000")
                size = 8 if quick else config.agent.batch_size
                agent = replace(config.agent, batch_size=size, learning_starts=40 * count)
                env = replace(config.env, vectorization=vectorization)
                rate, peak = frames_per_second(replace(config, agent=agent, env=env), device, seconds)
                rates.append(f"{rate:,.0f}")
                memory = max(memory, peak)
            yield f"| {name}, {count} | {' | '.join(rates)} | {memory:,.0f} |"


def pong(device: torch.device, goal: float, vectorization: str) -> Iterator[str]:
    """How long Rainbow takes until the mean of the last 20 games is at least `goal`."""
    returns: list[float] = []
    config = preset("rainbow", "num_envs=64", "agent.replay_size=500000", "steps=10000000")
    config = replace(config, env=replace(config.env, vectorization=vectorization))
    trainer = trainer_of(config, device, Silent(returns.append))
    began = time.perf_counter()
    while len(returns) < 20 or np.mean(returns[-20:]) < goal:
        trainer.iterate()
    trainer.envs.close()
    seconds = time.perf_counter() - began
    yield f"Pong to {goal:g} (mean of the last 20 games): {seconds:,.0f} s, {4 * trainer.step:,} frames."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="run everything once, on as little as possible")
    parser.add_argument("--only", choices=("updates", "training"))
    parser.add_argument("--agents", default=",".join(PRESETS), help="of updates and training")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of training")
    parser.add_argument("--vectorization", default="auto", help="how the environments of training run")
    parser.add_argument("--pong", type=float, metavar="RETURN")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device on this machine: nothing was measured")
    device = resolve_device(arguments.device)
    prepare_cpu(1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    quick, seconds = arguments.quick, 1.0 if arguments.quick else arguments.seconds
    agents, how = arguments.agents.split(","), arguments.vectorization
    if unknown := set(agents) - set(PRESETS):
        parser.error(f"unknown agents {sorted(unknown)}: choose of {', '.join(PRESETS)}")
    parts: dict[str, Iterator[str]] = {}
    if arguments.only in (None, "updates"):
        parts["updates"] = updates(device, quick, agents)
    if arguments.only in (None, "training"):
        parts["training"] = training(device, quick, seconds, how, [name for name in agents if name != "noisy_dqn"])
    if arguments.pong is not None:
        parts["pong"] = pong(device, arguments.pong, how)
    for part, lines in parts.items():
        text = [f"`{reporting.command()}`, on {name}, torch {torch.__version__}.", ""]
        print("\n".join(text))
        for row in lines:
            text.append(row)
            print(row, flush=True)
            if not quick:  # at once: the machine may be lent for minutes
                reporting.RESULTS.mkdir(parents=True, exist_ok=True)
                (reporting.RESULTS / f"gpu_{part}.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
