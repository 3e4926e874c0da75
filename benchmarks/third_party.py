"""Out of the box: tasks of other packages without a preset, this project's agents and Stable-Baselines3's DQN.

    python benchmarks/third_party.py            # make the runs that are missing, write their tables in docs/TASKS.md
    python benchmarks/third_party.py --report   # write the tables of the existing runs

Every agent has its defaults: noisy_dqn and dqn those of train.py, SB3's DQN those of its constructor. The last agent
of a run plays 50 greedy episodes, whose seeds are the same for all agents. The runs are processes, one after the other:
all agents and tasks with one seed come before those with the next. The result of a run is kept as a small file below
docs/results/third_party, so that an interrupted study goes on where it stopped. It needs the packages of
benchmarks/third_party.txt.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from returns import bracketed, number, spread  # noqa: E402

from agent.records.statistics import Difference, holm, interquartile_mean, welch  # noqa: E402

KEPT, PAGE = ROOT / "docs" / "results" / "third_party", ROOT / "docs" / "TASKS.md"
STEPS, EPISODES, SEEDS, EVALUATION_SEED = 100_000, 50, range(400, 405), 1_000_000
#: The options of train.py for each agent; SB3's DQN has none.
AGENTS: Mapping[str, Sequence[str]] = {"noisy_dqn": [], "dqn": ["agent=dqn"], "SB3 DQN": []}
#: The pairs that are compared, by the first less the second.
PAIRS = (("noisy_dqn", "SB3 DQN"), ("dqn", "SB3 DQN"), ("noisy_dqn", "dqn"))


@dataclass(frozen=True)
class Task:
    """A task of another package.

    Attributes:
        name: in tables and as a folder.
        env: its id.
        module: which registers it.
        kwargs: of its constructor.
        limit: steps after which its episodes are cut; None: its own.
        part: of a Dict, the one that is observed; None: the whole observation.
        bounds: no return is below the first or above the second; None: it is not known.
        digits: of its returns in tables.
        seeds: those of the runs.
    """

    name: str
    env: str
    module: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    part: str | None = None
    bounds: tuple[float | None, float | None] = (None, None)
    digits: int = 2
    seeds: Sequence[int] = SEEDS

    def options(self) -> list[str]:
        """The task as train.py takes it."""
        kwargs = [f"+env.kwargs.{name}={str(value).lower()}" for name, value in self.kwargs.items()]
        limit = [f"env.time_limit={self.limit}"] if self.limit else []
        part = [f"env.observation=[{self.part}]"] if self.part else []
        return [f"env={self.env}", f"imports={self.module}", *kwargs, *limit, *part]

    def make(self) -> Any:
        """The environment of the task, made by Gymnasium alone."""
        import gymnasium as gym

        importlib.import_module(self.module)
        env = gym.make(self.env, max_episode_steps=self.limit, disable_env_checker=True, **self.kwargs)
        part = self.part
        if part is None:
            return env
        return gym.wrappers.TransformObservation(env, lambda all_: all_[part], env.observation_space[part])

    def path(self, agent: str, seed: int) -> Path:
        """The file of a run's result."""
        return KEPT / self.name / f"{agent.replace(' ', '_')}_{seed}.json"

    def finals(self, agent: str) -> np.ndarray:
        """The returns of the last agents [seeds], for the seeds whose runs are made."""
        paths = [self.path(agent, seed) for seed in self.seeds]
        return np.array([json.loads(path.read_text())["final"] for path in paths if path.exists()])


TASKS = (
    Task(
        "FlappyBird",
        "FlappyBird-v0",
        "flappy_bird_gymnasium",
        {"use_lidar": False},
        limit=2_000,
        digits=1,
        seeds=range(400, 410),
    ),
    Task("MiniGrid-DoorKey-5x5", "MiniGrid-DoorKey-5x5-v0", "minigrid", part="image", bounds=(0.0, 1.0), digits=3),
    Task("minecart", "Minecart-v0", "benchmarks.minecart"),
)


# ---- a run


def run_ours(task: Task, agent: str, seed: int, steps: int, folder: Path) -> Callable[[Any], Any]:
    """Trains with train.py, and returns the last agent."""
    options = [*task.options(), *AGENTS[agent], f"seed={seed}", f"steps={steps}", f"hydra.run.dir={folder}"]
    quiet = ["wandb.mode=disabled", "log.progress=false", "eval.episodes=0", "checkpoint.every=0", "device=cpu"]
    subprocess.run([sys.executable, "train.py", *options, *quiet], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    from agent import load_agent

    importlib.import_module(task.module)
    return load_agent(folder, which="last").act


def run_sb3(task: Task, seed: int, steps: int) -> Callable[[Any], Any]:
    """Trains SB3's DQN with its defaults, and returns the last agent."""
    import torch
    from stable_baselines3 import DQN

    torch.set_num_threads(1)
    env = task.make()
    model = DQN("MlpPolicy", env, seed=seed, device="cpu").learn(steps)
    env.close()
    return lambda observation: int(model.predict(observation, deterministic=True)[0])


def play(env: Any, act: Callable[[Any], Any], episodes: int = EPISODES) -> list[float]:
    """The returns of whole episodes, the i-th one of which begins with the seed EVALUATION_SEED + i."""
    returns = []
    for episode in range(episodes):
        observation, _ = env.reset(seed=EVALUATION_SEED + episode)
        total, ended = 0.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def run(task: Task, agent: str, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Trains an agent, plays it, and returns the result for the file."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ours = agent != "SB3 DQN"
        act = run_ours(task, agent, seed, steps, Path(folder) / "run") if ours else run_sb3(task, seed, steps)
        trained = time.perf_counter()
        env = task.make()  # made here in either case: run_ours has trained in a process of its own
        returns = play(env, act)
        env.close()
    played = time.perf_counter()
    seconds = {"train_seconds": round(trained - began, 1), "play_seconds": round(played - trained, 1)}
    rounded = [round(value, 4) for value in returns]
    return {"label": agent, "seed": seed, "steps": steps, "final": round(float(np.mean(returns)), 4), **seconds} | {
        "returns": rounded
    }


def make_missing(tasks: Sequence[Task]) -> None:
    """Makes the runs that are missing, each in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "SDL_VIDEODRIVER": "dummy"}
    runs = [(seed, task, agent) for task in tasks for seed in task.seeds for agent in AGENTS]
    for seed, task, agent in sorted(runs, key=lambda one: one[0]):
        path = task.path(agent, seed)
        if path.exists():
            continue
        command = [sys.executable, __file__, "--run", task.name, agent, str(seed)]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        result = json.loads(path.read_text())
        print(f"{task.name} {agent} {seed}: {result['final']:.3f} in {result['train_seconds']} s", flush=True)


# ---- the tables


def returns_table(finals: Mapping[tuple[str, str], np.ndarray]) -> list[str]:
    """Every agent's last returns on every task, from those of (task, agent) [seeds]."""
    lines = ["| task | agent | return of the last agent, per seed | mean [95 %] | IQM |", "|---|---|---|---|---|"]
    for task in TASKS:
        for agent in AGENTS:
            if not len(values := finals[task.name, agent]):
                lines.append(f"| {task.name} | {agent} | not run yet | | |")
                continue
            each = " ".join(number(value, digits=task.digits) for value in values)
            iqm = number(interquartile_mean(values), digits=task.digits) if len(values) > 1 else ""
            lines.append(f"| {task.name} | {agent} | {each} | {spread(values, task.bounds, task.digits)} | {iqm} |")
    return lines


def differences_table(finals: Mapping[tuple[str, str], np.ndarray]) -> list[str]:
    """Differences between agents with Welch's intervals, and p-values with Holm's correction for all comparisons."""
    rows: list[tuple[Task, str, str, Difference]] = []
    for task in TASKS:
        for first, second in PAIRS:
            if (difference := welch(finals[task.name, first], finals[task.name, second])) is not None:
                rows.append((task, first, second, difference))
    lines = ["| task | | difference [95 %] | p, corrected | the first is |", "|---|---|---|---|---|"]
    corrected = holm([difference.p for *_, difference in rows])
    for (task, first, second, (mean, (low, high), _)), p in zip(rows, corrected, strict=True):
        verdict = "undecided" if p >= 0.05 else "ahead" if mean > 0 else "behind"
        around = f"{number(mean, '+', task.digits)} {bracketed(low, high, '+', task.digits)}"
        chance = f"{p:.3f}" if p >= 0.001 else "< 0.001"
        lines.append(f"| {task.name} | {first} less {second} | {around} | {chance} | {verdict} |")
    return lines if rows else []


def all_finals() -> dict[tuple[str, str], np.ndarray]:
    """(task, agent) → the returns of the existing runs."""
    return {(task.name, agent): task.finals(agent) for task in TASKS for agent in AGENTS}


def section(finals: Mapping[tuple[str, str], np.ndarray]) -> str:
    """The text between the marks of docs/TASKS.md."""
    made, wanted = sum(map(len, finals.values())), len(AGENTS) * sum(len(task.seeds) for task in TASKS)
    count = f"All {wanted} runs." if made == wanted else f"{made} of {wanted} runs; the others have not been made yet."
    differences = differences_table(finals)
    parts = [[count], returns_table(finals), *([differences] if differences else [])]
    return "\n\n".join("\n".join(part) for part in parts)


def with_section(page: str, text: str) -> str:
    """The page with the text between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise SystemExit(f"docs/TASKS.md has lost its marks {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


BEGIN, END = "<!-- benchmarks/third_party.py -->", "<!-- end of benchmarks/third_party.py -->"


def report() -> None:
    """Writes the tables in docs/TASKS.md."""
    text = section(all_finals())
    PAGE.write_text(with_section(PAGE.read_text(), text))
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", action="store_true", help="make no run, write the tables")
    parser.add_argument("--run", nargs=3, metavar=("TASK", "AGENT", "SEED"), help="make one run")
    parser.add_argument("--steps", type=int, default=STEPS, help="of --run")
    arguments = parser.parse_args()
    if arguments.run:
        name, agent, seed = arguments.run
        task = next(task for task in TASKS if task.name == name)
        result = json.dumps(run(task, agent, int(seed), arguments.steps))
        if arguments.steps != STEPS:  # a trial, whose result is not kept
            print(result)
            return
        path = task.path(agent, int(seed))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_text(result + "\n")
        path.with_suffix(".tmp").replace(path)
        return
    if not arguments.report:
        make_missing(TASKS)
    report()


if __name__ == "__main__":
    main()
