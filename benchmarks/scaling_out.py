"""How collection scales with actors, where its limits are, and how far away 100 and 1 000 actors are.

    python benchmarks/scaling_out.py            # about twelve minutes; writes docs/SCALING.md
    python benchmarks/scaling_out.py --quick    # two minutes or less; prints the page and writes nothing
    python benchmarks/scaling_out.py --page     # writes the page again, from the numbers of the last time

Environments that sleep are played by 1 to 16 actors on Ray; the learner is measured by itself, with stand-ins that give
it chunks at once; and one actor is compared with a run in one process. All runs use the trainer itself.
Results: docs/performance/scaling_out.json and docs/SCALING.md.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import reporting
import sleeping
from scaling_page import page

sys.path.insert(0, str(reporting.ROOT))  # actors find the project there, and `sleeping` in the folder of this file

from stand_ins import StandIns, processor_seconds

from agent.command.composing import compose_training
from agent.config.parsing import parse
from agent.config.run import TrainConfig
from agent.running.build import build_agent, build_envs, build_replay
from agent.running.distributed.cluster import Cluster
from agent.running.distributed.collector import RayCollector
from agent.running.distributed.starting import rings_of
from agent.running.resources import prepare_cpu, resolve_device
from agent.running.trainer import Trainer
from envs.make import load_task

SLEEPS, ACTORS = (0.5, 2.0, 10.0), (1, 2, 4, 8, 16)  # milliseconds of a step; processes
TASKS = ("CartPole-v1", "MinAtar/Breakout-v1")
STORE = 256 * 2**20
RESULT, PAGE = reporting.RESULTS / "scaling_out.json", reporting.ROOT / "docs" / "SCALING.md"
ALWAYS = (
    *("wandb.mode=disabled", "log.progress=false", "eval.episodes=0", "checkpoint.every=0", "device=cpu", "steps=1e9"),
    "agent.learning_starts=1000",
)


@dataclass
class Times:
    """Seconds that the parts of this benchmark take."""

    actors: float = 5.0
    learner: float = 4.0
    overhead: float = 8.0
    rounds: int = 2


def config_of(*overrides: str) -> TrainConfig:
    """The options of a run, as train.py composes them."""
    options, _ = compose_training([*ALWAYS, *overrides])
    return parse(TrainConfig, {name: value for name, value in options.items() if name not in ("imports", "resume")})


class Silent:
    """A tracker that keeps nothing."""

    run_id = None

    @property
    def console(self) -> Silent:
        return self

    def log(self, step: int, metrics: Any) -> None: ...

    def line(self, text: str) -> None: ...


@dataclass
class Made:
    """A run that has not begun."""

    trainer: Trainer
    collector: Any
    config: TrainConfig
    close: Callable[[], None]

    def rate(self, seconds: float) -> tuple[float, float]:
        """Environment steps and updates per second of the loop, for about so long."""
        trainer = self.trainer
        began, step, updates = time.perf_counter(), trainer.step, trainer.agent.updates
        while time.perf_counter() - began < seconds:
            trainer.iterate()
        elapsed = time.perf_counter() - began
        return (trainer.step - step) / elapsed, (trainer.agent.updates - updates) / elapsed

    def warm(self) -> None:
        """Collects until every actor plays and the learner learns."""
        while self.trainer.step < 1_500:
            self.trainer.iterate()


def made(config: TrainConfig, cluster: Any, folder: Path) -> Made:
    """The objects of a run, as train.py builds them; on Ray where there is a cluster."""
    task, device, tracker = load_task(config.env.id, config.env.kwargs), resolve_device("cpu"), Silent()
    prepare_cpu(config.threads)
    agent, plan = build_agent(config, task, device)
    silent: Any = tracker
    if cluster is None:
        envs = build_envs(config, task)
        replay: Any = build_replay(config, task, device, plan)
        trainer = Trainer(config, task, envs, agent, replay, silent, folder, plan)
        return Made(trainer, trainer.collector, config, envs.close)
    rings = rings_of(config, task)
    collector = RayCollector(config, task, cluster, agent, rings, silent)
    trainer = Trainer(config, task, None, agent, rings, silent, folder, plan, collector)
    return Made(trainer, collector, config, lambda: collector.pool.close())


def fastest(turns: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """Each row from its fastest turn, since other work on the machine only makes a turn slower."""
    return [max(rows, key=lambda row: row["steps"]) for rows in zip(*turns, strict=True)]


# ---- 1. actors whose environments sleep


def actors(ray: Cluster, folder: Path, times: Times, sleeps: tuple[float, ...], counts: tuple[int, ...]) -> list[Any]:
    """Steps per second of some numbers of actors, each with one environment that sleeps."""
    rows = []
    for milliseconds in sleeps:
        for count in counts:
            options = f"env={sleeping.ID}", f"+env.kwargs.seconds={milliseconds / 1000}", f"num_envs={count}"
            run = made(config_of(*options, "collect=ray", f"collect.actors={count}"), ray, folder)
            run.trainer.begin()
            while any(slot.sequence < 2 for slot in run.collector.pool.slots):
                run.trainer.iterate()
            run.warm()
            run.collector.metrics()  # the metrics until now do not count
            processes = ray.ray.get([slot.handle.process.remote() for slot in run.collector.pool.slots])
            psutil.cpu_percent()
            before, step = processor_seconds(processes), run.trainer.step
            steps, updates = run.rate(times.actors)
            busy, waits, after = psutil.cpu_percent(), run.collector.metrics(), processor_seconds(processes)
            played_steps = run.trainer.step - step
            run.close()
            named = {name: waits[f"collect/{name}"] for name in ("actor_wait", "learner_wait", "staleness")}
            rows.append({"milliseconds": milliseconds, "actors": count, "steps": steps, "updates": updates} | named)
            rows[-1]["busy"] = busy / 100
            rows[-1] |= {f"{name}_cpu": (after[name] - before[name]) / played_steps for name in before}
            print(f"{milliseconds} ms, {count} actors: {steps:.0f} steps/s", file=sys.stderr)
    return rows


# ---- 2. the learner by itself


def limits(ray: Cluster, folder: Path, times: Times, counts: tuple[int, ...]) -> list[dict[str, float]]:
    """Steps per second that the learner takes in and learns from, by itself, with the options of `actors`.

    Each row also has the processor time of a step without Ray: of playing it here, and of learning what is due for it.
    """
    rows = []
    for count in counts:
        config = config_of(f"env={sleeping.ID}", f"num_envs={count}", "collect=ray", f"collect.actors={count}")
        run, stand_ins = made(config, ray, folder), StandIns(ray.ray, config)
        run.collector._pool = stand_ins
        run.warm()
        began, step = time.process_time(), run.trainer.step
        steps, updates = run.rate(times.learner)
        learning = (time.process_time() - began) / (run.trainer.step - step)
        rows.append({"actors": count, "steps": steps, "updates": updates})
        rows[-1] |= {"playing": stand_ins.seconds_of_step, "learning": learning}
        print(f"the learner alone, {count} actors: {steps:.0f} steps/s", file=sys.stderr)
    return rows


def learner(ray: Cluster, folder: Path, times: Times) -> dict[str, Any]:
    """The speeds of a learner that never waits, in stored steps and in updates; the bytes of a transition."""
    result = {}
    for name in TASKS:
        config = config_of(f"env={name}", "collect=ray", "collect.actors=1")
        run, stand_ins = made(config, ray, folder), StandIns(ray.ray, config)
        run.collector._pool = stand_ins
        trainer, chunks = run.trainer, stand_ins.chunks_of_one
        steps = sum(sum(chunk.steps) for chunk in chunks)
        run.warm()
        both, updates = run.rate(times.learner)
        trainer._learn = lambda step: None  # type: ignore[method-assign]
        intake, _ = run.rate(times.learner)
        result[name] = {
            "both": both,
            "updates_at_both": updates,
            "intake": intake,
            "updates": updates_alone(made(config, ray, folder), stand_ins, times.learner),
            "replay_ratio": float(config.agent.replay_ratio),
            "parameters": trainer.agent.parameters.numel(),
            "bytes": sum(chunk.bytes for chunk in chunks) / steps,
            "wire": sum(len(pickle.dumps(chunk, 5)) for chunk in chunks) / steps,
            "steps_of_chunk": steps / len(chunks),
            "chunk": config.collect.chunk,
            "publish": config.collect.publish,
        }
        print(f"{name}: {result[name]}", file=sys.stderr)
    return result


def updates_alone(run: Made, stand_ins: StandIns, seconds: float) -> float:
    """Updates per second on transitions that are there."""
    run.collector._pool, stand_ins.count = stand_ins, 0
    run.warm()
    count, began, step = 0, time.perf_counter(), run.trainer.step
    while (elapsed := time.perf_counter() - began) < seconds:
        step += int(1 / run.config.agent.replay_ratio) or 1  # one more update is due
        count += sum(1 for _ in run.trainer._learner(step))
    return count / elapsed


# ---- 3. one actor, and none


def overhead(ray: Cluster, folder: Path, times: Times) -> dict[str, Any]:
    """Steps per second of a run in one process, and of one actor and the learner, in turns."""
    result: dict[str, Any] = {}
    for name in TASKS:
        runs = {
            "local": made(config_of(f"env={name}"), None, folder),
            "ray": made(config_of(f"env={name}", "collect=ray", "collect.actors=1"), ray, folder),
        }
        found: dict[str, list[float]] = {kind: [] for kind in runs}
        for run in runs.values():
            run.trainer.begin()
            run.warm()
        for _ in range(times.rounds):
            for kind, run in runs.items():
                found[kind].append(run.rate(times.overhead / times.rounds)[0])
        for run in runs.values():
            run.close()
        result[name] = found
        print(f"{name}: {found}", file=sys.stderr)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short measurements; prints, and writes nothing")
    parser.add_argument("--page", action="store_true", help="the page again, from the numbers of the last time")
    arguments = parser.parse_args()
    if arguments.page:
        PAGE.write_text(page(json.loads(RESULT.read_text())))
        return
    sleeping.register()
    times = Times(1.0, 1.0, 2.0, 1) if arguments.quick else Times()
    sleeps, counts = ((2.0,), (1, 2, 4)) if arguments.quick else (SLEEPS, ACTORS)
    result: dict[str, Any] = {
        "command": reporting.command(),
        "machine": reporting.machine(),
        "versions": reporting.versions("ray", "torch", "numpy", "gymnasium"),
    }
    ray = Cluster(None, max(counts) + 1, STORE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            result["learner"] = learner(ray, Path(folder), times)
            result["overhead"] = overhead(ray, Path(folder), times)
            turns = [
                (limits(ray, Path(folder), times, counts), actors(ray, Path(folder), times, sleeps, counts))
                for _ in range(times.rounds)
            ]
            result["turns"] = times.rounds
            result["limits"], result["actors"] = map(fastest, zip(*turns, strict=True))
    finally:
        ray.close()
    if arguments.quick:
        print(page(result))
        return
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    PAGE.write_text(page(result))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
