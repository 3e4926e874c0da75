"""The evidence of docs/RESULTS.md: runs of every task, agent and seed, and the page itself.

    python benchmarks/results.py                                    # make the runs that are missing, write the page
    python benchmarks/results.py --only CartPole-v1,Pong --jobs 2   # some tasks, two runs at a time
    python benchmarks/results.py --report                           # write the page from the existing runs

Every run is saved as a small file below docs/results, and only missing runs are made; delete a file to make its run
again. A task is on the page when all its runs are made. train.py and evaluate.py run in processes of their own. The
tasks are at the end of this file. DeepSea has its own study, benchmarks/deep_sea.py. The extras atari, box2d, minatar
and cluster are needed.
"""

import argparse
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import returns
from drawing import Picture, learning_curves
from learning import RESULTS, ROOT, Study, run_ours
from reporting import FIGURES
from returns import bracketed, number

from agent.records.statistics import Difference, holm, interquartile_mean, mean_interval, welch
from envs.returns import return_bounds

KEPT = ROOT / "docs" / "results"
SEEDS = range(100, 105)


@dataclass(frozen=True)
class Task:
    """One table of the page.

    Attributes:
        name: the title, and the name of the folder of the runs.
        env: the id.
        steps: environment steps of a run.
        agents: label → overrides of train.py.
        seeds: the seeds of the runs.
        eval_every: environment steps between the evaluations that make the curve; 0: no curve.
        solved: a line in the figure; nan: none.
        references: the returns that others report, label → return.
        note: a remark for readers.
    """

    name: str
    env: str
    steps: int
    agents: Mapping[str, Sequence[str]]
    seeds: Sequence[int] = SEEDS
    eval_every: int = 5_000
    solved: float = math.nan
    references: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def path(self, agent: str, seed: int) -> Path:
        """The file of a run's result."""
        return KEPT / self.name / f"{file_name(agent)}_{seed}.json"

    def results(self, agent: str) -> list[dict[str, Any]]:
        """The results of the existing runs of an agent."""
        paths = [self.path(agent, seed) for seed in self.seeds]
        return [json.loads(path.read_text()) for path in paths if path.exists()]

    @property
    def is_complete(self) -> bool:
        """Whether all runs are made. Only then is the task on the page: an interim result could end it early."""
        return all(self.path(agent, seed).exists() for agent in self.agents for seed in self.seeds)

    def study(self, agents: Iterable[str]) -> Study:
        """The same task for some agents, as a study that benchmarks/learning.py runs."""
        variants = {agent: list(self.agents[agent]) for agent in agents}
        return Study(self.env, self.steps, self.solved, "", variants, self.eval_every)


def file_name(agent: str) -> str:
    """The name of an agent in file names."""
    return agent.replace(", ", "_").replace(" ", "_").replace("ε", "epsilon")


def make(task: Task, agent: str, seed: int) -> None:
    """Makes one run, and saves its curve and the return of its last agent."""
    result = run_ours(task.study([agent]), agent, seed, RESULTS / "runs" / f"{task.name}-{os.getpid()}")
    curve = [[step, round(value, 2), round(seconds, 1)] for step, value, seconds in result["curve"]]
    kept = {"label": agent, "seed": seed, "final": round(result["final"], 2), "curve": curve}
    task.path(agent, seed).parent.mkdir(parents=True, exist_ok=True)
    task.path(agent, seed).write_text(json.dumps(kept) + "\n")
    print(f"{task.name} {agent} seed {seed}: {kept['final']} after {curve[-1][2]:.0f} s of training", flush=True)


# ---- the page


def finals(task: Task, agent: str) -> np.ndarray:
    return np.array([result["final"] for result in task.results(agent)])


def spread(values: np.ndarray, env: str) -> str:
    """The mean with its interval, for returns of an environment."""
    return returns.spread(values, return_bounds(env))


def table(task: Task) -> list[str]:
    """The returns of every agent, and the figures of others."""
    lines = ["| | per seed | mean [95 %] | IQM |", "|---|---|---|---|"]
    for agent in task.agents:
        values = finals(task, agent)
        each = " ".join(map(number, values))
        iqm = number(interquartile_mean(values)) if len(values) > 1 else ""
        lines.append(f"| {agent} | {each} | {spread(values, task.env)} | {iqm} |")
    return lines + [f"| *{label}* | | {value} | |" for label, value in task.references.items()]


def section(task: Task) -> list[str]:
    """A heading, the table, the figure and the overrides of train.py that make the agents."""
    first, last = task.seeds[0], task.seeds[-1]
    seeds = f"seeds {first}–{last}" if last > first else f"seed {first}"
    steps = f"{task.steps:,}".replace(",", " ")
    lines = [f"## {task.name}: {steps} steps, {seeds}", "", *table(task), ""]
    if task.note:
        lines += [task.note, ""]
    if task.eval_every:
        lines += [f"![Learning curves on {task.name}](figures/results_{task.name}.svg)", ""]
    for agent, overrides in task.agents.items():
        lines.append(
            f"- {agent}: `{' '.join(['python train.py', f'env={task.env}', f'steps={task.steps}', *overrides])}`"
        )
    return [*lines, ""]


def ablation(tasks: Sequence[Task]) -> list[str]:
    """The difference between learned noise and ε-greedy on each task; the p-values are corrected for their number."""
    rows: list[tuple[Task, np.ndarray, np.ndarray, Difference]] = []
    for task in tasks:
        epsilon, noise = finals(task, "dqn"), finals(task, "noisy_dqn")
        if (difference := welch(noise, epsilon)) is not None:
            rows.append((task, epsilon, noise, difference))
    lines = ["| | ε-greedy (dqn) | noise alone | difference [95 %] | p, corrected | |", "|---|---|---|---|---|---|"]
    corrected = holm([difference.p for *_, difference in rows])
    for (task, epsilon, noise, (mean, (low, high), _)), p in zip(rows, corrected, strict=True):
        verdict = "undecided" if p >= 0.05 else "noise wins" if mean > 0 else "ε-greedy wins"
        interval = f"{number(mean, '+')} {bracketed(low, high, '+')}"
        means = f"{number(epsilon.mean())} | {number(noise.mean())}"
        lines.append(f"| {task.name} | {means} | {interval} | {p:.2f} | {verdict} |")
    return lines


def best(tasks: Sequence[Task]) -> list[str]:
    """The agent of a task with the best mean, beside the best figure that others report."""
    lines = ["| | best of ours | mean [95 %] | best of others | |", "|---|---|---|---|---|"]
    for task in tasks:
        if not task.references:
            continue
        runs = {agent: finals(task, agent) for agent in task.agents}
        others = {label: float(value.replace("−", "-")) for label, value in task.references.items()}
        agent, label = max(runs, key=lambda of: runs[of].mean()), max(others, key=others.__getitem__)
        reference = f"{label}: {task.references[label]}"
        verdict = beside(runs[agent], others[label])
        lines.append(f"| {task.name} | {agent} | {spread(runs[agent], task.env)} | {reference} | {verdict} |")
    return lines


def beside(ours: np.ndarray, theirs: float) -> str:
    """Whether the figure of others is below our interval, above it, or within it."""
    low, high = mean_interval(ours) or (ours.mean(), ours.mean())
    return "ahead" if low > theirs else "behind" if high < theirs else "undecided" if low < high else "equal"


def draw(task: Task) -> None:
    """The learning curves of a task; evaluations beside training come at other steps in each run, and are not drawn."""
    if not task.eval_every:
        return
    runs = {agent: task.results(agent) for agent in task.agents if agent != ACTORS}
    solved = None if math.isnan(task.solved) else task.solved
    title = f"{task.name}, {task.steps:,} steps"
    picture = Picture(title, task.eval_every, return_bounds(task.env), solved, whole="Pong" in task.env)
    curves = {agent: [result["curve"] for result in results] for agent, results in runs.items()}
    last = {agent: [result["final"] for result in results] for agent, results in runs.items()}
    learning_curves(picture, curves, last, FIGURES / f"results_{task.name}.svg")


def page() -> str:
    """The text of docs/RESULTS.md, from the tasks that are complete."""
    deep_sea, tasks = KEPT / "deep_sea.md", [task for task in TASKS if task.is_complete]
    lines = [
        HEAD,
        "## Beside others",
        "",
        BEST,
        "",
        *best(tasks),
        "",
        "## The effect of noise",
        "",
        ABLATION,
        "",
        *ablation([task for task in tasks if not task.name.endswith(NO)]),
        "",
        "### Without presets",
        "",
        WITHOUT,
        "",
        *ablation([task for task in tasks if task.name.endswith(NO)]),
        "",
        *(line for task in tasks for line in section(task)),
    ]
    if deep_sea.exists():
        lines += [deep_sea.read_text().replace("# DeepSea", "## DeepSea").replace("../figures", "figures").rstrip(), ""]
    return "\n".join(lines)


def report() -> None:
    """Writes docs/RESULTS.md and its figures."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        if task.is_complete:
            draw(task)
    (ROOT / "docs" / "RESULTS.md").write_text(page())


HEAD = """# Results

`python benchmarks/results.py` and `python benchmarks/deep_sea.py` make the runs that are missing below `docs/results`
and write this page. Each run is `train.py` with one seed, followed by `evaluate.py` on the **last** agent: its mean
network plays 100 episodes greedily, on seeds that training never used. Settings were chosen on seeds that are not
reported; if a reported seed had an influence, the section says so. Intervals are Student's 95 % intervals for the mean
over seeds, clipped to possible returns; if all seeds have the same return, they have no width. IQM is the mean over
seeds without the best and the worst quarter, as rliable computes it. Curves show greedy evaluations during training,
over 20 episodes (10 on Atari). Runs with actors ([CLUSTER.md](CLUSTER.md)) have no curves, because their evaluations
are at other steps in each run.

Agents have the names of their presets. If a run has other settings than the preset has on this task, the difference
follows a comma, and the command below the figure lists all settings.

The runs were made with many versions of the code. With the same seed, the present code may give another result.

Rows in italics are figures that others publish, with their own protocols. The zoo of SB3 (Stable-Baselines3) reports
one trained agent per task. CleanRL and SLM-Lab report averages of returns during training. Their number of steps is
given if it differs from ours.
"""
NO = "-no-preset"  # ends the names of tasks whose preset is turned off
WITHOUT = """With `preset=none` an agent has the same settings on all tasks. The p-values of this table have their own
correction."""
BEST = """An agent is ahead if its whole interval is above the figure of others, and undecided if its interval contains
that figure. The figure has no interval of its own, and the same runs select the best of our agents."""
ABLATION = """`dqn` is `noisy_dqn` with plain linear layers and ε-greedy exploration. All else is the same: double
Q-learning, n-step returns (n = 3, on MountainCar 5), layer normalisation, widths, batch, learning rate and replay. On
MinAtar noise learns jointly, and the mean network acts in half of the environments of `noisy_dqn`. Each difference has
Welch's interval. The p-values decide. They have Holm's correction for the number of rows: if noise and ε-greedy were
equal in all rows, one table in twenty would name a winner. Losses are reported like wins."""

CONTROL = {"dqn": ["agent=dqn"], "noisy_dqn": [], "rainbow": ["agent=rainbow"]}
#: Two processes play, and a third one learns: see docs/CLUSTER.md.
ACTORS = "noisy_dqn, 2 actors"
TWO_ACTORS = ["collect=ray", "collect.actors=2"]


def landing(steps: int, *more: str) -> dict[str, list[str]]:
    """The agents on LunarLander for a run of `steps`, with more options; the learning rate falls all the time."""
    beta = f"agent.priority.beta_steps={steps}"
    lower = ["agent.lr=5e-4", "agent.replay_ratio=1/2", f"agent.lr_updates={steps // 2}", *more]
    every = [f"agent.lr_updates={steps}", *more]
    return {
        "dqn": ["agent=dqn", *every],
        "noisy_dqn": every,
        "rainbow, tuned": ["agent=rainbow", "agent.n_step=7", *lower, beta],
        "munchausen_dqn": ["agent=munchausen_dqn", *every],
    }


LANDING = """These settings were chosen on seeds 20–22: for the preset, the step size, updates per step and width;
for Rainbow, n = 7 and its other options; for the best ε-greedy agent, Munchausen targets; on seeds 20–24 for noise,
separate learning and how exploration falls; on seeds 20–25, that the target network acts. Earlier settings were
reported on the seeds of this section and the next two. While the online network acted, noisy_dqn reached 181.3 here
and 169.9 on ten seeds, dqn 209.0 and 168.3, munchausen_dqn 226.4, and Rainbow 113.5; with joint learning as well,
noisy_dqn reached 187.9, 183.6, and 204 after 300 000 steps. Actors act with older weights in any case. Two of them
reached 230.5 with chunks of 16 steps and 255.3 with 32 while one could give more chunks than the other."""

#: Settings for an hour on one core: smaller convolutions, fewer products, more updates, no sticky actions. There is one
#: draw per row, so that half of the rows train the mean network, which is evaluated.
SMALL_PONG = (
    *("imports=benchmarks.mnih2013", "agent.network.encoder=mnih2013", "agent.network.hidden=[128]"),
    *("agent.network.layer_norm=true", "noise=per_row", "agent.double=false", "agent.replay_ratio=1/2"),
    *("agent.lr=2.5e-4", "agent.target_every=500", "agent.learning_starts=5000", "checkpoint.every=50000"),
    "env.kwargs.repeat_action_probability=0",
)

#: Agents on a task whose preset is turned off: the same settings for all tasks.
NO_PRESET = {"dqn": ["preset=none", "agent=dqn"], "noisy_dqn": ["preset=none"]}
TESTED = range(300, 310)  # seeds; no setting was chosen by runs with them
LANDED = range(200, 205)  # seeds; runs with seed 100 had an influence on the settings
TASKS = (
    Task(
        "CartPole-v1",
        "CartPole-v1",
        50_000,
        CONTROL | {ACTORS: TWO_ACTORS},
        range(200, 205),
        eval_every=2_500,
        solved=475.0,
        references={
            "SB3 zoo DQN": "500",
            "SB3 zoo QR-DQN": "500",
            "CleanRL DQN, 500k steps": "488.7",
            "SLM-Lab DDQN+PER, 200k steps": "451.5",
        },
        note="Half the updates that are usual on small tasks were chosen for noisy_dqn on seeds 20–29. With twice as "
        "many, which take twice the time, the seeds of this section gave 498.7 (noisy_dqn), 497.4 (dqn) and 500 "
        "(rainbow).",
    ),
    Task(
        "Acrobot-v1",
        "Acrobot-v1",
        100_000,
        CONTROL,
        solved=-100.0,
        references={
            "SB3 zoo DQN": "−76.6",
            "SB3 zoo QR-DQN": "−69.1",
            "CleanRL DQN, 500k steps": "−91.5",
            "SLM-Lab DDQN+PER, 300k steps": "−83.9",
        },
    ),
    Task(
        "MountainCar-v0",
        "MountainCar-v0",
        120_000,
        CONTROL,
        solved=-110.0,
        references={"SB3 zoo DQN": "−100.8", "SB3 zoo QR-DQN": "−106.0", "CleanRL DQN, 500k steps": "−195"},
    ),
    Task(
        "LunarLander-v3",
        "LunarLander-v3",
        100_000,
        landing(100_000) | {ACTORS: [*TWO_ACTORS, "agent.lr_updates=100000"]},
        LANDED,
        eval_every=10_000,
        solved=200.0,
        references={"SB3 zoo DQN, LunarLander-v2": "154", "SB3 zoo QR-DQN, LunarLander-v2": "70"},
        note=LANDING,
    ),
    Task(
        "LunarLander-v3-ten-seeds",
        "LunarLander-v3",
        100_000,
        {"dqn": ["agent=dqn"], "noisy_dqn": []},
        TESTED,
        eval_every=0,
    ),
    Task(
        "LunarLander-v3-300k",
        "LunarLander-v3",
        300_000,
        landing(300_000, "agent.act_with=online"),
        LANDED,
        eval_every=20_000,
        solved=200.0,
        references={"SLM-Lab DDQN+PER, 300k steps": "265.9"},
        note="These runs act with the online network. The preset has used the target network since then.",
    ),
    Task("CartPole-v1-no-preset", "CartPole-v1", 50_000, NO_PRESET, TESTED, eval_every=0),
    Task("Acrobot-v1-no-preset", "Acrobot-v1", 100_000, NO_PRESET, TESTED, eval_every=0),
    Task("MountainCar-v0-no-preset", "MountainCar-v0", 120_000, NO_PRESET, TESTED, eval_every=0),
    Task("LunarLander-v3-no-preset", "LunarLander-v3", 100_000, NO_PRESET, TESTED, eval_every=0),
    Task("LunarLander-v3-300k-no-preset", "LunarLander-v3", 300_000, NO_PRESET, TESTED, eval_every=0),
    Task("MinAtar-Breakout-no-preset", "MinAtar/Breakout-v1", 1_000_000, NO_PRESET, range(100, 103), eval_every=0),
    Task(
        "MinAtar-Asterix-no-preset",
        "MinAtar/Asterix-v1",
        1_000_000,
        NO_PRESET,
        range(100, 103),
        eval_every=0,
        note="Neither agent learns with these settings: random play returns 0.47 ± 0.04, over 500 episodes. With the "
        "preset both learn.",
    ),
    Task(
        "DeepSea-20-no-preset",
        "DeepSea-v0",
        50_000,
        {agent: ["preset=none", f"agent={agent}", "env.kwargs.size=20"] for agent in ("dqn", "index_dqn")},
        TESTED,
        eval_every=0,
        note="2,500 episodes, HyperAgent's budget for this size. The treasure gives 0.99; without it the best return "
        "is 0. [The last section](#deepsea-episodes-until-solved) has the episodes until it is solved, with the "
        "preset.",
    ),
    *(
        Task(f"MinAtar-{game}", f"MinAtar/{game}-v1", 1_000_000, CONTROL, range(100, 103), 50_000)
        for game in ("Breakout", "Asterix", "Freeway", "SpaceInvaders", "Seaquest")
    ),
    Task("MinAtar-Seaquest-5M", "MinAtar/Seaquest-v1", 5_000_000, {"noisy_dqn": []}, range(100, 103), 250_000),
    Task(
        "Pong",
        "ALE/Pong-v5",
        200_000,
        {"noisy_dqn, larger steps": ["agent.lr=1.5e-4", "agent.target_every=250", "agent.learning_starts=5000"]},
        range(100, 101),
        25_000,
        note="A CPU finishes this run within an hour: 800 000 frames with sticky actions. They are too few to learn "
        "from; random play loses by 20.7 on average. The step size is larger and the target network newer than in "
        "the preset, which is made for millions of steps. Two other runs show that the program learns Pong: the next "
        "section, with a smaller network, and a run of Rainbow on a GPU, which went from −21 to 3.5 in 2.5 million "
        "frames, [in six minutes](PERFORMANCE.md#on-a-gpu-pong), when it was stopped.",
    ),
    Task(
        "Pong-250k",
        "ALE/Pong-v5",
        250_000,
        {"noisy_dqn, small network": SMALL_PONG},
        range(101, 102),
        25_000,
        note="This run takes one core little more than an hour. It has a million frames without sticky actions, the "
        "convolutions of Mnih et al. (2013) as a user's encoder "
        "([benchmarks/mnih2013.py](../benchmarks/mnih2013.py)), fewer products, and an update every two steps. Each "
        "point of the curve is the mean of 10 games. At 100 000 steps endless games were cut after 27 000 "
        "steps: without sticky actions a greedy policy can repeat itself for ever. Two earlier runs on seed 100 were "
        "stopped. With one draw for the batch, the mean return was −16 after 115 000 steps, and that of the "
        "mean network −20.3. With Rainbow of this size it was −21.0 after 125 000. This run "
        "therefore has one draw per row, half of which train the mean network, and another seed.",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="tasks, separated by commas")
    parser.add_argument("--agents", help="agents as the files are named, separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--report", action="store_true", help="make no run, write the page")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else [task.name for task in TASKS]
    if unknown := set(names) - {task.name for task in TASKS}:
        parser.error(f"unknown tasks {sorted(unknown)}: choose of {', '.join(task.name for task in TASKS)}")
    missing = [
        (task, agent, seed)
        for task in TASKS
        if task.name in names and not arguments.report
        for seed in task.seeds
        for agent in task.agents
        if not task.path(agent, seed).exists()
        and (not arguments.agents or file_name(agent) in arguments.agents.split(","))
    ]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: make(*run), missing))
    report()


if __name__ == "__main__":
    main()
