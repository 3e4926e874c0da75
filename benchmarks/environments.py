"""Trains on every registered Gymnasium id with Discrete actions for a few hundred steps, and on Atari for fewer.

python benchmarks/environments.py [--match REGEX] writes docs/ENVIRONMENTS.md. Every run is a process of its own.
"""

import argparse
import importlib.util
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "ENVIRONMENTS.md"
STEPS, SECONDS = 300, 300
#: Options that shorten the run; otherwise the task gets only its id.
SHORT = (
    f"steps={STEPS}",
    "agent.learning_starts=200",
    "eval.episodes=1",
    "eval.video=false",
    "wandb.mode=disabled",
    "log.progress=false",
)
#: An evaluation plays whole episodes, and some games last for half an hour.
EPISODE_CAP = 300
#: Options of the 104 games of Atari, whose networks are large. Their agents are neither evaluated nor saved.
SHORTER = {
    "agent": {"learning_starts": 16, "batch_size": 8, "replay_size": 200, "replay_ratio": "1/2"},
    "steps": 32,
    "num_envs": 1,
    "wandb": {"mode": "disabled"},
    "log": {"progress": False},
}


def known_ids() -> list[str]:
    """All ids that Gymnasium and the installed packages register."""
    import gymnasium as gym

    from envs import packages

    packages.deep_sea.register()
    for package in packages.PACKAGES:
        if packages.is_installed(package.module):
            package.register()
    return sorted(gym.registry)


def is_atari(env_id: str) -> bool:
    """Whether an id is ale-py's."""
    import gymnasium as gym

    return str(gym.registry[env_id].entry_point).startswith("ale_py")


def attempt(env_id: str, answers: Any) -> None:
    """Loads the task and trains on it; puts (group, observations or reason) into the queue."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    from agent.common.errors import UserError
    from envs.make import load_task

    try:
        if is_atari(env_id) and not env_id.startswith("ALE/"):  # an older id of the same game
            task = load_task(env_id, {})
            answers.put(("constructed", f"{task.observation}, {task.actions} actions"))
            return
        with tempfile.TemporaryDirectory() as folder:
            task = (play if is_atari(env_id) else trained)(env_id, Path(folder) / "run")
        answers.put(("trained", f"{task.observation}, {task.actions} actions"))
    except UserError as error:
        sentence = str(error)
        continuous = re.search(r"has actions (\w+)", sentence)
        answers.put(("not Discrete", continuous[1]) if continuous else ("refused", sentence))
    except Exception as error:
        answers.put(("failed", f"{type(error).__name__}: {error}"))


def trained(env_id: str, folder: Path) -> Any:
    """The task, after a short run like that of `python train.py env=<id>`."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    import agent.running.evaluation
    from agent.command.presets import register_presets
    from agent.config.parsing import parse
    from agent.config.run import TrainConfig
    from agent.running.run import train
    from envs.make import load_task

    agent.running.evaluation.EPISODE_CAP = EPISODE_CAP
    register_presets([f"env={env_id}"])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [f"env={env_id}", f"env.id={env_id}", *SHORT])
    options: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    config = parse(TrainConfig, {key: value for key, value in options.items() if key not in ("imports", "resume")})
    task = load_task(env_id, config.env.kwargs, config.env.time_limit)
    train(config, folder)
    return task


def play(env_id: str, folder: Path) -> Any:
    """The task, after random play, a few updates, and a few steps of the agent."""
    from agent.config.parsing import parse, to_plain
    from agent.config.run import TrainConfig
    from agent.records.console import Console
    from agent.records.tracking import Tracker
    from agent.running.build import build_agent, build_replay
    from agent.running.resources import prepare_cpu, resolve_device
    from agent.running.trainer import Trainer
    from envs.make import load_task
    from envs.vector import make_vector

    prepare_cpu(1)
    config = parse(TrainConfig, {**SHORTER, "env": {"id": env_id}})
    device, task = resolve_device("cpu"), load_task(env_id, {})
    folder.mkdir()
    tracker = Tracker(folder, to_plain(config), config.wandb, Console(config.steps, 0, enabled=False))
    tracker.open()
    agent, plan = build_agent(config, task, device)
    parts = agent, build_replay(config, task, device, plan), tracker, folder, plan
    trainer = Trainer(config, task, make_vector(task, config.num_envs), *parts)
    trainer.begin()
    while trainer.step < config.steps:
        trainer.iterate()
    assert trainer.agent.updates == 8
    trainer._monitor.check_finite()
    return task


def outcome(env_id: str) -> tuple[str, str]:
    """The answer of `attempt`, or how its process ended without an answer."""
    context = multiprocessing.get_context("fork")  # everything is imported already
    answers = context.Queue()
    process = context.Process(target=attempt, args=(env_id, answers))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        return "failed", f"not done after {SECONDS} s"
    return ("failed", f"exit code {process.exitcode}") if answers.empty() else answers.get()


def document(found: dict[str, tuple[str, str]]) -> str:
    """The page, grouped by outcome; ids with the same answer share a line."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for env_id, (group, what) in found.items():
        groups[group][re.sub(re.escape(env_id), "<id>", what)].append(env_id)
    installed = ", ".join(name for name in ("ale_py", "minatar", "Box2D") if importlib.util.find_spec(name))
    lines = [
        "# Environments",
        "",
        f"This page lists every id that Gymnasium registers with these packages: {installed}. Every task with Discrete",
        f"actions was trained with `env=<id>` for {STEPS} steps and 25 to 100 updates (its preset's ratio), evaluated",
        "and saved. Atari games were made, played at random, trained for 8 updates and played by the agent.",
        "`python benchmarks/environments.py` writes this page.",
        "",
    ]
    titles = {
        "trained": "Trained",
        "constructed": "Constructed: older ids of the same games, which are played in the same way",
        "refused": "Refused, in one sentence",
        "failed": "Failed",
        "not Discrete": "Other actions than Discrete: not for this agent",
    }
    for group, title in titles.items():
        count = sum(map(len, groups[group].values()))
        lines += [f"## {title}: {count}", ""] if count else []
        for what, ids in groups[group].items():
            games = [env_id for env_id in ids if is_atari(env_id)]
            others = [f"`{env_id}`" for env_id in ids if env_id not in games]
            lines += [f"- {what}: {', '.join(others)}"] if others else []
            lines += [f"- {what}, {line}" for line in by_game(games)]
        lines += [""] if count else []
    return "\n".join(lines).rstrip() + "\n"


def by_game(ids: Sequence[str]) -> list[str]:
    """The ids of Atari; games with the same versions share a line."""
    versions: dict[str, list[str]] = defaultdict(list)
    for env_id in ids:
        game = re.sub(r"^ALE/|(NoFrameskip)?-v\d$", "", env_id)
        versions[game].append(env_id.replace(game, "<game>"))
    games: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for game, forms in versions.items():
        games[tuple(forms)].append(game)
    return [f"{', '.join(f'`{form}`' for form in forms)}: {', '.join(names)}" for forms, names in games.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default=".*", help="only ids that match; then nothing is written")
    options = parser.parse_args()
    import agent.running.run  # noqa: F401 (imported once, for all the forks)

    found = {}
    for env_id in known_ids():
        if not re.fullmatch(options.match, env_id):
            continue
        began = time.monotonic()
        found[env_id] = outcome(env_id)
        print(f"{env_id}: {': '.join(found[env_id])} ({time.monotonic() - began:.1f} s)", flush=True)
    if options.match == ".*":
        DOCUMENT.write_text(document(found), encoding="utf-8")
        print(f"wrote {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
