"""Where the time of a whole run goes: acting, environments, replay, updates, logging, evaluation, saving.

    python benchmarks/whole_run.py                                   # CartPole-v1 and its preset, 10 000 steps
    python benchmarks/whole_run.py env=MinAtar/Breakout-v1 steps=10000
    python benchmarks/whole_run.py agent=rainbow

The arguments are options of train.py; `--cpu-time` counts processor time, for a machine that others use. The run is
that of train.py, with a clock around its pieces: the time of a piece excludes the pieces that it calls. The clock costs
half a microsecond per call. Results: docs/performance/whole_run.json and .md.
"""

import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reporting

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
OVERRIDES = ("steps=10000", "wandb.mode=disabled", "log.progress=false", "eval.video=false")


class Clock:
    """Measures the time of each piece. While one piece runs inside another, only the inner one is counted."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._running: list[str] = []
        self._since = 0.0

    def around(self, owner: Any, name: str, piece: str) -> None:
        """Puts the clock around a method, or a function of a module."""
        inner = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            self._switch()
            self._running.append(piece)
            try:
                return inner(*arguments, **options)
            finally:
                self._switch()
                self._running.pop()
                self.calls[piece] += 1

        setattr(owner, name, timed)

    def _switch(self) -> None:
        now = self._now()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def instrument(clock: Clock) -> Callable[..., Any]:
    """Puts the clock around the pieces of a run; returns the function that trains, with the clock around the rest."""
    from gymnasium.vector import SyncVectorEnv

    import agent.running.build as building
    import agent.running.evaluator as evaluating
    import agent.running.run as running
    import agent.running.saving as saving
    import agent.running.trainer as training
    from agent.compute.numpy.gradient import NumpyGradient
    from agent.learning.adam import Adam
    from agent.learning.dqn import DQN
    from agent.learning.gradient import AutogradGradient
    from agent.noise.streams import TableNoise
    from agent.replay.prioritised import PrioritisedReplay
    from agent.replay.ring import Replay
    from agent.running.monitor import Monitor

    made = building.make_vector

    def make_vector(*arguments: Any) -> Any:
        envs = made(*arguments)
        kind = type(envs) if not isinstance(envs, SyncVectorEnv) else SyncVectorEnv
        clock.around(kind, "step", "environments")
        return envs

    building.make_vector = make_vector
    for owner, name, piece in (
        (running, "train", "start, and everything else"),
        (DQN, "act", "act: network"),
        (TableNoise, "draw", "noise, of acting and updates"),
        (Replay, "add", "replay: add"),
        (Replay, "sample_many", "replay: sample"),
        (PrioritisedReplay, "sample_to_learn", "replay: sample"),
        (PrioritisedReplay, "update_priorities", "replay: priorities"),
        (DQN, "update", "update: everything else"),
        (AutogradGradient, "__call__", "update: forward, loss and backward"),
        (NumpyGradient, "__call__", "update: forward, loss and backward"),
        (Adam, "step", "update: Adam"),
        (training.Trainer, "iterate", "loop"),
        (Monitor, "log", "logging"),
        (evaluating, "evaluate", "evaluation"),
        (saving, "save_agent", "saving"),
        (saving, "save_checkpoint", "saving"),
    ):
        clock.around(owner, name, piece)
    return running.train


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    options = [option for option in sys.argv[1:] if option != "--cpu-time"]
    clock = Clock(time.perf_counter if len(options) == len(sys.argv) - 1 else time.process_time)
    train = instrument(clock)
    from agent.config.parsing import parse
    from agent.config.run import TrainConfig

    env_id = next((option[4:] for option in options if option.startswith("env=")), "CartPole-v1")
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        composed = compose("train", overrides=[*OVERRIDES, f"env.id={env_id}", *options])
    plain = OmegaConf.to_container(composed, resolve=True)
    config = parse(TrainConfig, {key: value for key, value in plain.items() if key not in ("imports", "resume")})
    about = reporting.machine()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        train(config, Path(folder))
    result = {
        "command": reporting.command(),
        "machine": about,
        "versions": reporting.versions("torch", "numpy", "gymnasium"),
        "seconds": dict(clock.seconds),
        "calls": dict(clock.calls),
    }
    total = sum(clock.seconds.values())
    rows = []
    for piece, seconds in clock.seconds.most_common():
        calls = clock.calls[piece]
        rows.append(
            [piece, f"{seconds:.2f}", f"{100 * seconds / total:.1f} %", f"{calls}", f"{seconds / calls * 1e6:.1f}"]
        )
    rows.append(["all", f"{total:.2f}", "100 %", "", ""])
    title = f"{config.env.id}, {config.steps} steps, {config.num_envs} environments"
    reporting.save("whole_run", result, reporting.table([title, "s", "share", "calls", "µs a call"], rows))


if __name__ == "__main__":
    main()
