"""Trains on every registered Gymnasium id with Discrete actions, for a few hundred steps; on Atari's, 352 ids, for fewer.

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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "ENVIRONMENTS.md"
STEPS, SECONDS = 300, 300
#: Short, and nothing else: what the task is given is its id alone.
SHORT = (
    f"steps={STEPS}",
    "agent.learning_starts=200",
    "eval.episodes=1",
    "eval.video=false",
    "wandb.mode=disabled",
    "log.progress=false",
)
#: Beyond that, of Atari's games: their networks are large, and there are many of them.
SHORTER = ("steps=80", "num_envs=2", "agent.learning_starts=60", "agent.batch_size=8", "agent.replay_size=1000")
#: Evaluation plays whole episodes; some games last for half an hour.
EPISODE_CAP, ATARI_CAP = 300, 20


def known_ids() -> list[str]:
    """Everything that Gymnasium knows once the packages that are installed have been asked."""
    import gymnasium as gym

    from envs import packages

    packages.deep_sea.register()
    for package in packages.PACKAGES:
        if packages.is_installed(package.module):
            package.register()
    return sorted(gym.registry)


def attempt(env_id: str, answers: Any) -> None:
    """Loads the task and trains on it; answers (group, what it observes or why not)."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    import agent.evaluation
    import train
    from agent.config import TrainConfig
    from agent.errors import UserError
    from agent.options import parse
    from envs.make import load_task

    agent.evaluation.EPISODE_CAP = EPISODE_CAP
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("train", [f"env={env_id}", f"env.id={env_id}", *SHORT])
        asked: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
        config = parse(TrainConfig, {key: value for key, value in asked.items() if key not in ("imports", "resume")})
        task = load_task(env_id, config.env.kwargs, config.env.time_limit)
        with tempfile.TemporaryDirectory() as folder:
            train.train(config, Path(folder) / "run")
        answers.put(("trained", f"{task.observation}, {task.actions} actions"))
    except UserError as error:
        words = str(error)
        continuous = re.search(r"has actions (\w+)", words)
        answers.put(("not Discrete", continuous[1]) if continuous else ("refused", words))
    except Exception as error:
        answers.put(("failed", f"{type(error).__name__}: {error}"))


def outcome(env_id: str) -> tuple[str, str]:
    """What `attempt` answers, or how it ended without an answer."""
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
    """The list, grouped by outcome, ids with one and the same answer on one line."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for env_id, (group, what) in found.items():
        groups[group][re.sub(re.escape(env_id), "<id>", what)].append(env_id)
    installed = ", ".join(name for name in ("ale_py", "minatar", "Box2D") if importlib.util.find_spec(name))
    lines = [
        "# Environments",
        "",
        f"Every id that Gymnasium knows with these packages installed: {installed}. Each with Discrete actions was",
        f"trained on for {STEPS} steps with nothing but `env=<id>`; made by `python benchmarks/environments.py`.",
        "",
    ]
    titles = {
        "trained": "Trained",
        "refused": "Refused, in one sentence",
        "failed": "Failed",
        "not Discrete": "Other actions than Discrete: not for this agent",
    }
    for group, title in titles.items():
        count = sum(map(len, groups[group].values()))
        lines += [f"## {title}: {count}", ""] if count else []
        lines += [f"- {what}: {', '.join(f'`{name}`' for name in names)}" for what, names in groups[group].items()]
        lines += [""] if count else []
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--match", default=".*", help="only ids that match; then nothing is written")
    options = parser.parse_args()
    import train  # noqa: F401 (imported once, for all the forks)

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
