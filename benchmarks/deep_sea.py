"""Episodes until DeepSea is solved, by size, for ε-greedy exploration and three kinds of learned noise.

    python benchmarks/deep_sea.py                                     # everything: a day on one core
    python benchmarks/deep_sea.py --agents index --sizes 10,20 --seeds 100-101
    python benchmarks/deep_sea.py --only-report                       # the page and figure of the saved runs

As in bsuite (Osband et al. 2020), a task is solved when fewer than 90 % of the episodes so far missed the treasure.
Loop, agent and settings are those of train.py. A run ends when it has solved its task, or after 10 000 episodes. Each
run is saved as a file in docs/results/deep_sea/. Only runs that are missing, or that have other settings, are made
again.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawing import clean, looks, save

from agent.common.files import atomic_write_bytes
from agent.common.interrupt import Interrupt
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.records.console import Console
from agent.records.plots import GREY, short_number
from agent.running.build import build_agent, build_replay
from agent.running.resources import prepare_cpu, resolve_device
from agent.running.trainer import Trainer
from envs.make import load_task
from envs.vector import make_vector

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "deep_sea"
REPORT = ROOT / "docs" / "results" / "deep_sea.md"
FIGURE = ROOT / "docs" / "figures" / "deep_sea.svg"

EPISODES = 10_000  # at most
GOOD = 0.9  # returns of at least this found the treasure, which is 1; the way to it costs 0.01
BAD_SHARE = 0.9  # solved if the fraction of episodes without treasure is below this
SIZES, SEEDS = (10, 14, 20, 30, 40), range(100, 105)
#: HyperAgent's budgets of episodes for some sizes (Li et al. 2024).
BUDGETS = {20: 2_500, 30: 3_333, 40: 3_000, 50: 4_000, 60: 5_000, 80: 6_250, 100: 10_000}
#: The sizes of agents that are compared with HyperAgent on large seas; the others have `SIZES`.
OTHER_SIZES = {"index": (*SIZES, 50, 60, 80, 100), "index uniform": (40, 50, 60)}

#: The settings of "index fewer updates" that the agents without an index share, so that only their exploration differs.
COMMON = [
    *("agent.network.hidden=[64]", "agent.batch_size=128", "agent.replay_ratio=1/2", "agent.target_every=4"),
    "agent.n_step=1",
]
NOISY = ["agent=noisy_dqn", *COMMON]
INDEX = ["agent=index_dqn", "agent.replay_size=500000"]
UNIFORM = "agent.priority.enabled=false"
#: Options of train.py, in the order of the runs; {decay} is the number of steps in which ε falls.
AGENTS: dict[str, list[str]] = {
    "index": INDEX,
    "index uniform": [*INDEX, UNIFORM],
    "index fewer updates": ["agent=index_dqn", UNIFORM, "agent.replay_ratio=1/2"],
    "noise per episode": [*NOISY, "agent.noise.hold=episode"],
    "noise per step": [*NOISY, "agent.noise.hold=step"],
    "ε-greedy": ["agent=dqn", *COMMON, "agent.epsilon.end=0.02", "agent.epsilon.steps={decay}"],
}
#: The names on the page: the preset, and the differences from it.
NAMES = {
    "index": "index_dqn",
    "index uniform": "index_dqn, uniform replay",
    "index fewer updates": "index_dqn, uniform replay, fewer updates",
    "noise per episode": "noisy_dqn",
    "noise per step": "noisy_dqn, a draw a step",
    "ε-greedy": "dqn",
}
DECAY_EPISODES = 1_000  # ε decreases over these


class Finished(BaseException):
    """The run is over: it is solved, or has all its episodes. An Exception would count as the tracker's error."""


@dataclass
class Recorder:
    """Takes the place of the tracker; counts episodes and stops the run."""

    console: Console
    run_id: str | None = None
    episodes: int = 0
    bad: int = 0
    first: int | None = None  # the first episode that found the treasure
    solved: int | None = None
    seconds: float = field(default_factory=time.process_time)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Receives the metrics of the trainer, including those of each episode."""
        value = metrics.get("train/episode_return")
        if value is None:
            return
        self.episodes += 1
        self.bad += value < GOOD
        if value >= GOOD and self.first is None:
            self.first = self.episodes
        if self.bad < BAD_SHARE * self.episodes:
            self.solved = self.episodes
        if self.solved is not None or self.episodes >= EPISODES:
            raise Finished


def options(agent: str, size: int, seed: int) -> list[str]:
    """The options of the run, as on the command line of train.py."""
    steps = (EPISODES + 100) * size  # never reached: the recorder ends the run
    mine = [option.format(decay=DECAY_EPISODES * size) for option in AGENTS[agent]]
    sea = [f"env.kwargs.size={size}", f"env.kwargs.mapping_seed={seed}", f"seed={seed}", f"steps={steps}"]
    return [*mine, "env=DeepSea-v0", *sea, "eval.every=0", "checkpoint.every=0", "device=cpu"]


def configure(chosen: list[str]) -> TrainConfig:
    """The config of the run, as train.py parses it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [*chosen, "env.id=DeepSea-v0"])
    mapping: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return parse(TrainConfig, {key: value for key, value in mapping.items() if key not in ("imports", "resume")})


def run(agent: str, size: int, seed: int) -> dict[str, Any]:
    """Makes one run with the trainer's own loop, until it is solved or over."""
    chosen = options(agent, size, seed)
    config = configure(chosen)
    prepare_cpu(config.threads)
    device = resolve_device(config.device)
    task = load_task(config.env.id, config.env.kwargs, config.env.time_limit)
    learner, plan = build_agent(config, task, device)
    replay = build_replay(config, task, device, plan)
    envs = make_vector(task, config.num_envs, config.env.vectorization)
    recorder = Recorder(Console(config.steps, enabled=False))
    with tempfile.TemporaryDirectory() as folder, Interrupt() as interrupt:
        trainer = Trainer(config, task, envs, learner, replay, recorder, Path(folder), plan)  # type: ignore[arg-type]
        try:
            trainer.run(interrupt)
        except Finished:
            pass
        else:
            raise KeyboardInterrupt
    envs.close()
    return {
        **{"agent": agent, "size": size, "seed": seed, "options": chosen},
        **{"solved": recorder.solved, "first_treasure": recorder.first, "episodes": recorder.episodes},
        "cpu_seconds": round(time.process_time() - recorder.seconds, 1),
    }


def path_of(agent: str, size: int, seed: int) -> Path:
    """The file of a run."""
    return RESULTS / f"{agent.replace(' ', '_').replace('ε', 'epsilon')}_{size}_{seed}.json"


def kept(agent: str, size: int, seed: int) -> dict[str, Any] | None:
    """The saved run, if it was made with these settings; otherwise None."""
    path = path_of(agent, size, seed)
    result: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return result if result is not None and result["options"] == options(agent, size, seed) else None


def complete(agent: str, size: int, seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The saved runs of all seeds; none while one is missing, since those that are solved soon are saved first."""
    runs = [kept(agent, size, seed) for seed in seeds]
    done = [run for run in runs if run is not None]
    return done if len(done) == len(runs) else []


def make(job: tuple[str, int, int]) -> str:
    """Makes a run, saves it, and prints its result."""
    result = run(*job)
    atomic_write_bytes(path_of(*job), (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    return f"{job[0]}, size {job[1]}, seed {job[2]}: {episodes(result)} ({result['cpu_seconds']} s)"


def episodes(result: Mapping[str, Any]) -> str:
    """Episodes until solved, as text."""
    return f"> {EPISODES}" if result["solved"] is None else str(result["solved"])


def median(results: Iterable[Mapping[str, Any]]) -> float:
    """The median of the episodes until solved; an unsolved run counts as later than all others."""
    return float(np.median([np.inf if result["solved"] is None else result["solved"] for result in results]))


def failures(results: Sequence[Mapping[str, Any]]) -> int:
    """The number of unsolved runs, which a median does not show."""
    return sum(result["solved"] is None for result in results)


def report(seeds: Iterable[int]) -> None:
    """Writes the page and the figure of the saved runs, for each agent and size of which all are made."""
    lines = [
        "# DeepSea: episodes until solved",
        "",
        "`python benchmarks/deep_sea.py` makes the runs that are missing and writes this page. As in bsuite, an agent",
        "has solved the task when fewer than 90 % of its episodes so far missed the treasure. A run ends there, or",
        f"after {EPISODES} episodes. The meaning of the actions differs from seed to seed. All agents have the same",
        "network, batch and target period. index_dqn makes an update in each step, from a prioritised replay of",
        "500,000 transitions. With uniform replay only the priorities are missing. With fewer updates there is one",
        "every two steps, from a uniform replay of 100,000 transitions, as in noisy_dqn and dqn: between these rows",
        "only the exploration differs. The settings of index_dqn were chosen on seeds 20–23.",
        "",
        "| agent | size | median | unsolved | " + " | ".join(f"seed {seed}" for seed in seeds) + " |",
        "|---|---|---|---|" + "---|" * len(list(seeds)),
    ]
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    style, sizes = looks(list(NAMES.values())), set[int]()
    for number, (agent, name) in enumerate(NAMES.items()):
        places = []
        for size in sorted({*SIZES, *BUDGETS}):
            runs = complete(agent, size, seeds)
            if not runs:
                continue
            middle = median(runs)
            text = f"> {EPISODES}" if np.isinf(middle) else f"{middle:.0f}"
            failed = f"{failures(runs)} of {len(runs)}"
            lines.append(f"| {name} | {size} | {text} | {failed} | " + " | ".join(map(episodes, runs)) + " |")
            places.append((size, middle, failures(runs), len(runs)))
        sizes |= {size for size, *_ in places}
        draw(axes, name, places, style[name], number)
    axes.axhline(EPISODES, color=GREY, linewidth=1.0, linestyle=(0, (6, 3)))
    axes.set(yscale="log", xlabel="size", ylabel="episodes until solved, median", xticks=sorted(sizes))
    axes.yaxis.set_major_formatter(short_number)
    axes.set_title(
        "median of the seeds in the table; crosses: unsolved after 10 000 episodes; numbers: seeds that failed",
        loc="left",
        fontsize=8,
        color=GREY,
    )
    figure.suptitle("DeepSea", x=0.012, ha="left", fontsize=11, fontweight="bold")
    clean(axes)
    axes.legend(frameon=False, fontsize=9)
    lines += ["", "![Episodes until solved, by size](../figures/deep_sea.svg)", "", *budgets(seeds)]
    REPORT.write_text("\n".join(lines) + "\n")
    save(figure, FIGURE)
    print("\n".join(lines))


def budgets(seeds: Iterable[int]) -> list[str]:
    """The number of seeds that solve a size within the budget of HyperAgent."""
    agents = ["index", "index uniform", "index fewer updates"]
    lines = [
        "HyperAgent (Li et al. 2024) reports that it solves these sizes within a budget of episodes. The table has the",
        "number of seeds that are solved within it.",
        "",
        "| size | budget | " + " | ".join(NAMES[agent] for agent in agents) + " |",
        "|---|---|" + "---|" * len(agents),
    ]
    for size, budget in BUDGETS.items():
        runs = {agent: complete(agent, size, seeds) for agent in agents}
        if any(runs.values()):
            lines.append(f"| {size} | {budget} | " + " | ".join(within(runs[agent], budget) for agent in agents) + " |")
    return lines


def within(results: Sequence[Mapping[str, Any]], budget: int) -> str:
    """The number of runs that are solved within a budget of episodes, as text."""
    solved = sum(result["solved"] is not None and result["solved"] <= budget for result in results)
    return f"{solved} of {len(results)}" if results else "–"


def draw(
    axes: Axes, name: str, places: Sequence[tuple[int, float, int, int]], look: tuple[str, Any], number: int
) -> None:
    """Draws the line of one agent. Sizes that most seeds did not solve are at the limit, slightly shifted."""
    colour, dash = look
    solved = [(size, middle) for size, middle, *_ in places if np.isfinite(middle)]
    face = colour if dash == "-" else "white"
    line = zip(*solved, strict=True) if solved else ([], [])
    axes.plot(*line, "o", ls=dash, color=colour, mfc=face, label=name, zorder=3 + (dash == "-"))
    for size, middle, failed, runs in places:
        x, y = (size, middle) if np.isfinite(middle) else (size + 0.3 * number, EPISODES)
        if np.isinf(middle):
            axes.plot(x, y, "x", color=colour, markersize=8)
        elif failed:
            axes.annotate(
                f"{failed} of {runs}",
                (x, y),
                (7, 3 if dash == "-" else -9),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )


def sizes_of(agent: str, chosen: str | None) -> Sequence[int]:
    """The sizes that the command line names, or else those of the agent."""
    if chosen:
        return [int(size) for size in chosen.split(",")]
    return OTHER_SIZES.get(agent, SIZES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--agents", default=",".join(AGENTS), help="of " + ", ".join(AGENTS))
    parser.add_argument("--sizes", help=f"default: {SIZES}, and others for {', '.join(OTHER_SIZES)}")
    parser.add_argument("--seeds", default=f"{SEEDS[0]}-{SEEDS[-1]}", help="first-last")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--only-report", action="store_true", help="no runs")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    jobs = [
        (agent, size, seed)
        for agent in arguments.agents.split(",")
        for size in sizes_of(agent, arguments.sizes)
        for seed in seeds
        if kept(agent, size, seed) is None
    ]
    RESULTS.mkdir(parents=True, exist_ok=True)
    if not arguments.only_report:
        with ProcessPoolExecutor(arguments.jobs) as pool:
            for line in pool.map(make, jobs):
                print(line, flush=True)
    report(SEEDS)


if __name__ == "__main__":
    main()
