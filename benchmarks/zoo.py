"""Makes zoo/: one trained agent for each small task that has a preset, with its card and its returns.

    python benchmarks/zoo.py                    # all tasks: train, play 100 episodes, write zoo/<task>/
    python benchmarks/zoo.py LunarLander-v3     # some tasks

train.py trains the agents, and a run that is complete below `--runs` is not trained again. Every agent is the best one
of its run in the evaluations during training, whose seeds differ from those of the card.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from agent import evaluate  # noqa: E402
from agent.common.files import atomic_write_text  # noqa: E402
from agent.records.evaluations import archived_results_path  # noqa: E402
from agent.records.names import AGENT  # noqa: E402
from agent.records.saved_agent import read_header  # noqa: E402
from agent.running.export.card import algorithm, card  # noqa: E402
from agent.running.player import load_player  # noqa: E402

ZOO = ROOT / "zoo"
RUNS = ROOT / "benchmarks" / "results" / "zoo"
MAX_BYTES = 1_000_000  # of an agent
EPISODES = 100
#: The options of the command that trains the agent of a task, besides the task: the seed, and others if it needs them.
AGENTS: dict[str, tuple[str, ...]] = {
    "CartPole-v1": ("seed=0",),
    "Acrobot-v1": ("seed=0",),
    "MountainCar-v0": ("seed=0",),
    "LunarLander-v3": ("seed=0", "agent=munchausen_dqn"),
    "FrozenLake-v1": ("seed=0",),
    "Taxi-v4": ("seed=0", "agent.n_step=1", "steps=30000"),
    "CliffWalking-v1": ("seed=0",),
    "CliffWalkingSlippery-v1": ("seed=0",),
    "Blackjack-v1": ("seed=0",),
    "DeepSea-v0": ("seed=0",),
}
QUIET = ("wandb.mode=disabled", "eval.video=false", "eval.noisy=false", "log.progress=false")
INDEX = """\
# Trained agents

This folder has one agent for each small task that has a preset. They can play without training:

```bash
python evaluate.py checkpoint=zoo/LunarLander-v3 video=true
```

| agent | algorithm | steps | mean ± standard deviation of {episodes} episodes | interquartile mean |
|---|---|---|---|---|
{rows}

LunarLander-v3 needs the extra `box2d`. `python benchmarks/zoo.py` trained all agents; a table in it holds their seeds
and options. An agent is the best one of a single run: the returns describe that agent, and
[docs/RESULTS.md](../docs/RESULTS.md) has the results of other seeds.

The presets have changed since. `config.yaml` beside an agent holds the options that trained it; the command on its card
now trains with those of today.

Of the tasks that have a preset, the games of MinAtar are missing: an agent of theirs has 1.06 MB, and the zoo takes up
to 1 MB. Games of Atari have larger ones.
"""


def command(task: str) -> tuple[str, ...]:
    """The command that trains the agent of a task, as its card shows it."""
    return ("python", "train.py", f"env={task}", *AGENTS[task])


def train(task: str, run: Path) -> None:
    """Trains the agent of a task, unless its run is complete; an interrupted run is continued."""
    if finished(run):
        return
    training = [sys.executable, *command(task)[1:], *QUIET, f"hydra.run.dir={run}"]
    resumed = [f"resume={run}"] if (run / "checkpoints").exists() else []
    if code := subprocess.run([*training, *resumed], cwd=ROOT, check=False).returncode:
        raise SystemExit(code)  # train.py has printed the reason


def finished(run: Path) -> bool:
    """Whether the last agent of a run has all the steps that its config asks for."""
    last = run / "last" / AGENT
    if not last.is_file():
        return False
    steps = yaml.safe_load((run / "config.yaml").read_text())["steps"]
    return bool(read_header(last).description["global_step"] >= steps)


def publish(task: str, run: Path) -> None:
    """Writes zoo/<task>/: the agent, its options, its returns and its card."""
    folder = ZOO / task
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "best" / AGENT, folder / AGENT)
    size = (folder / AGENT).stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"the agent of {task} has {size:,} bytes, more than the {MAX_BYTES:,} of the zoo")
    config = yaml.safe_load((run / "config.yaml").read_text())
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    atomic_write_text(folder / "config.yaml", f"# {shlex.join(command(task))}\n{text}")
    name = f"zoo/{task}"
    returns = {**evaluate(folder, episodes=EPISODES), "label": name, "agent": f"{name}/{AGENT}"}
    kept = archived_results_path(folder / AGENT, EPISODES, returns["seed"], noise=False)
    atomic_write_text(Path(f"{kept}.json"), json.dumps(returns, indent=1))
    player = load_player(folder / AGENT)
    filmed = "rgb_array" in player.task.render_modes
    text = card(player.description, returns, name, f"{kept.name}.json", filmed, shlex.join(command(task)))
    atomic_write_text(folder / "README.md", text)


def index() -> str:
    """The page with the table of all agents."""
    rows = []
    for task in AGENTS:
        found = sorted((ZOO / task).glob(f"evaluation_{EPISODES}_episodes_*.json"))
        if found:
            returns: dict[str, Any] = json.loads(found[0].read_text())
            said = read_header(ZOO / task / AGENT).description
            spread = f"{returns['return_mean']:.2f} ± {returns['return_std']:.2f}"
            rows.append(
                f"| [{task}]({task}/README.md) | {algorithm(said['agent'])} | {said['global_step']:,} | {spread} "
                f"| {returns['return_iqm']:.2f} |"
            )
    return INDEX.format(rows="\n".join(rows), episodes=EPISODES)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="task", help="by default all")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where runs are kept")
    arguments = parser.parse_args(argv)
    tasks = arguments.tasks or list(AGENTS)
    if unknown := [task for task in tasks if task not in AGENTS]:
        parser.error(f"{unknown[0]} is no task of the zoo: choose from {', '.join(AGENTS)}")
    for task in tasks:
        run = arguments.runs.absolute() / task
        train(task, run)
        publish(task, run)
        print(f"wrote zoo/{task}", flush=True)
    atomic_write_text(ZOO / "README.md", index())


if __name__ == "__main__":
    main()
