"""Speed on a GPU: updates per second, frames per second of whole Atari training, and memory.

    python benchmarks/gpu.py                         # everything; writes docs/performance/gpu_<part>.md line by line
    python benchmarks/gpu.py --only updates --agents rainbow --ways eager,graph   # a part of it
    python benchmarks/gpu.py --only training         # another part; or profile, both, none
    python benchmarks/gpu.py --pong 18               # also the time until Pong reaches a mean return of 18
    python benchmarks/gpu.py --device cpu --quick    # a test of this script, not of its speed

Updates: the presets noisy_dqn, rainbow and btr (with its own encoder) on frames like those of Atari, in batches of 32
and 256 from a replay on the device. Each runs eagerly, with CUDA graphs, compiled, and with both, with and without bf16
in the encoder. The first updates (compiling, recording) are excluded, and a synchronisation ends each measurement. The
tables show the median of several blocks, and the peak memory of torch besides the replay. bf16 includes TF32.

Profile: the kernels of the device in an update, and where the time of a training step goes on the host.

Training: Pong with 16, 64 and 128 environments, at the presets' replay ratios; four frames are a step. Nothing is
evaluated, logged or saved. It needs the extra `atari`.

With --together everything is prepared at once, in one process for each number, and then measured one by one: most of
the work is compiling, which uses one core each.
"""

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
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

from agent.command.presets import register_presets  # noqa: E402
from agent.common.observation import ObservationSpec  # noqa: E402
from agent.common.seeding import torch_generator  # noqa: E402
from agent.compute.plan import Plan  # noqa: E402
from agent.config.parsing import parse  # noqa: E402
from agent.config.run import TrainConfig  # noqa: E402
from agent.learning.dqn import DQN  # noqa: E402
from agent.learning.learner import Learner  # noqa: E402
from agent.networks.build import build_network  # noqa: E402
from agent.replay.prioritised import PrioritisedReplay  # noqa: E402
from agent.replay.ring import Replay  # noqa: E402
from agent.running.resources import prepare_cpu, resolve_device  # noqa: E402

FRAMES, ACTIONS, ENVS = ObservationSpec((4, 84, 84), "uint8", 255.0, 4), 6, 64
PRESETS = ("noisy_dqn", "rainbow", "btr")
#: Ways to compute an update.
WAYS = {
    "eager": Plan(),
    "graph": Plan(graphs=True),
    "graph+bf16": Plan(graphs=True, tf32=True, autocast=True),
    "compiled": Plan("compiled"),
    "compiled+graph": Plan("compiled", graphs=True),
    "compiled+graph+tf32": Plan("compiled", graphs=True, tf32=True),
    "compiled+graph+bf16": Plan("compiled", graphs=True, tf32=True, autocast=True),
}
#: Ways to train.
TRAINING = {
    "nothing of it": ("backend=torch", "cuda_graphs=off", "overlap=off"),
    "compiled, graphs, overlap": ("backend=compiled", "cuda_graphs=on", "overlap=on"),
    "and bf16": ("backend=compiled", "cuda_graphs=on", "overlap=on", "autocast=bf16"),
}
#: Measures a prepared cell and returns its text.
Cell = Callable[[], str]


def preset(name: str, *options: str) -> TrainConfig:
    """The config of Pong with an agent's preset."""
    register_presets(["env=ALE/Pong-v5"])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = ["env=ALE/Pong-v5", f"agent={name}", *options]
        tree: Any = OmegaConf.to_container(compose("train", overrides=[*overrides, "env.id=ALE/Pong-v5"]))
    return parse(TrainConfig, {key: value for key, value in tree.items() if key not in ("resume", "imports", "hydra")})


class Memory:
    """The peak memory of torch on the device since the construction of this object, in MiB."""

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


def filled(config: TrainConfig, device: torch.device, rows: int, plan: Plan) -> Replay:
    """A replay of `rows` vector steps, with an ending now and then."""
    capacity = config.agent.replay_size if device.type == "cuda" else rows * ENVS  # the sum tree spans all of it
    agent, sizes = config.agent, (capacity, ENVS, FRAMES)
    options: dict[str, Any] = {"n_step": agent.n_step, "gamma": agent.gamma, "device": device}
    options["compiled"] = plan.compile(agent.batch_size, device)
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


def learning(config: TrainConfig, plan: Plan, device: torch.device, replay: Replay) -> tuple[Learner, DQN]:
    """An agent that learns from a replay."""
    network = build_network(config.agent, FRAMES, ACTIONS, torch_generator(0, "initialisation"))
    agent = DQN(network, config.agent, ACTIONS, 0, device, plan.policy, plan.gradient)
    return plan.learner(agent, replay, 0), agent


def seconds_of(learner: Learner, agent: DQN, count: int) -> float:
    """The seconds until the device has computed `count` updates."""
    began = time.perf_counter()
    config, updates = agent.config, agent.updates + count
    ratio = config.replay_ratio
    for _ in learner(config.learning_starts - (-updates * ratio.denominator // ratio.numerator)):
        pass
    finish(agent.device)
    return time.perf_counter() - began


def prepare_update(name: str, batch: int, way: str, device: torch.device, quick: bool) -> Cell:
    """Prepares everything, including the first updates. The returned function measures updates per second, and the
    memory besides the replay in MiB."""
    config, plan = preset(name, f"agent.batch_size={batch}"), WAYS[way]
    replay = filled(config, device, 20 if quick else 500, plan)
    memory, held = Memory(device), torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    seconds = partial(seconds_of, *learning(config, plan, device, replay))
    seconds(1 if quick else 20)
    used = memory.peak() - held / 2**20

    def measure() -> str:
        seconds(1 if quick else 50)
        block = 1 if quick else max(20, int(0.3 * 20 / seconds(20)))
        rate = median(block / seconds(block) for _ in range(1 if quick else 5))
        return f"{rate:,.0f} ({used:,.0f})"

    return measure


# ---- whole training


class Silent:
    """A tracker and console without output; `on_return` is called with the return of every episode."""

    run_id = None

    def __init__(self, on_return: Callable[[float], None] = lambda value: None) -> None:
        self.console, self.on_return = self, on_return

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if "train/episode_return" in metrics:
            self.on_return(metrics["train/episode_return"])

    def update(self, step: int) -> None:
        pass


def trainer_of(config: TrainConfig, device: torch.device, tracker: Silent) -> Any:
    from agent.running.build import build_agent, build_replay
    from agent.running.trainer import Trainer
    from envs.make import load_task
    from envs.vector import make_vector

    task = load_task(config.env.id, config.env.kwargs, config.env.time_limit)
    envs = make_vector(task, config.num_envs, config.env.vectorization)
    agent, plan = build_agent(config, task, device)
    replay = build_replay(config, task, device, plan)
    trainer = Trainer(config, task, envs, agent, replay, tracker, Path("/dev/null"), plan)  # type: ignore[arg-type]
    trainer._monitor.report = lambda metrics: None  # without logs the reported metrics would pile up
    trainer.begin()
    return trainer


def warm_trainer(
    name: str, overrides: Sequence[str], count: int, device: torch.device, quick: bool, vectorization: str
) -> Any:
    """A trainer of `count` environments that has begun to learn."""
    config = preset(name, *overrides, f"num_envs={count}", "agent.replay_size=100000", "steps=10000000")
    size = 8 if quick else config.agent.batch_size
    agent = replace(config.agent, batch_size=size, learning_starts=40 * count)
    config = replace(config, agent=agent, env=replace(config.env, vectorization=vectorization))
    trainer = trainer_of(config, device, Silent())
    while trainer.agent.updates < 10:
        trainer.iterate()
    finish(device)
    return trainer


def iterate(trainer: Any, device: torch.device, seconds: float) -> tuple[int, float]:
    """Trains for some seconds. Returns the number of vector steps, and their time including all their work."""
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        trainer.iterate()
        count += 1
    finish(device)
    return count, time.perf_counter() - began


def prepare_training(
    name: str, count: int, way: str, device: torch.device, quick: bool, seconds: float, vectorization: str
) -> Cell:
    """Trains until there have been a few updates. The returned function measures emulator frames per second, and the
    memory in MiB."""
    memory = Memory(device)
    trainer = warm_trainer(name, TRAINING[way], count, device, quick, vectorization)
    used = memory.peak()

    def measure() -> str:
        iterate(trainer, device, seconds / 10)
        first = trainer.step
        _, elapsed = iterate(trainer, device, seconds)
        trainer.collector.envs.close()
        return f"{4 * (trainer.step - first) / elapsed:,.0f} ({used:,.0f})"

    return measure


# ---- where the time goes


def kernels(config: TrainConfig, plan: Plan, device: torch.device, count: int = 20) -> Iterator[str]:
    """The kernels of an update, ordered by their time, and how long the device is busy."""
    seconds = partial(seconds_of, *learning(config, plan, device, filled(config, device, 200, plan)))
    seconds(100)
    wall = seconds(count) / count
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        seconds(count)
    found = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
    busy, calls = sum(event.self_device_time_total for event in found), sum(event.count for event in found)
    yield f"| all | {calls / count:,.0f} | {busy / count:,.1f} of {1e6 * wall:,.1f} µs an update |"
    for event in found[:12]:
        name = event.key.replace("|", "/")
        yield f"| `{name:.90}` | {event.count / count:,.1f} | {event.self_device_time_total / count:,.1f} |"


class Watch:
    """Measures the calls of an object's methods. The time of a nested call counts for the nested method."""

    def __init__(self, owner: Any, name: str) -> None:
        self._function, self.seconds = getattr(owner, name), 0.0
        setattr(owner, name, self)

    def __call__(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        result = self._function(*arguments)
        self.seconds += time.perf_counter() - began
        return result


def host(trainer: Any, device: torch.device, seconds: float) -> Iterator[str]:
    """Yields the parts of a training step's time on the host, as lines of a table."""
    parts = {
        "acting, which waits for the updates before it": Watch(trainer.agent, "act"),
        "waiting for the environments": Watch(trainer.collector.envs, "step_wait"),
        "the replay": Watch(trainer.replay, "add"),
        "launching the updates": Watch(trainer, "_learn"),
    }
    count, whole = iterate(trainer, device, seconds)
    trainer.collector.envs.close()
    yield f"| a step of {trainer.config.num_envs} environments | {1e6 * whole / count:,.0f} µs |"
    for name, part in parts.items():
        yield f"| {name} | {1e6 * part.seconds / count:,.0f} µs |"


def profile(
    device: torch.device, quick: bool, seconds: float, how: str, agents: Sequence[str], ways: Sequence[str]
) -> Iterator[str]:
    for name in agents:
        config = preset(name)
        for way in ways if device.type == "cuda" else ():
            yield f"| {name}, {config.agent.batch_size} in a batch, {way}: kernel | calls | µs |"
            yield "|---|---|---|"
            yield from kernels(config, WAYS[way], device)
            yield ""
        overrides = ["backend=compiled"] if device.type == "cuda" else []
        yield f"| {name}, training{', compiled' if overrides else ''} | host |"
        yield "|---|---|"
        trainer = warm_trainer(name, overrides, 2 if quick else ENVS, device, quick, how)
        yield from host(trainer, device, seconds / 2)
        yield ""


def pong(device: torch.device, goal: float, vectorization: str) -> Iterator[str]:
    """Yields the lines of a table: the time that Rainbow needs until the mean of the last 20 games is at least `goal`.

    The preset has larger batches here, with a learning rate and an interval of the target network that match them:
    the number of learned transitions counts, and not that of updates.
    """
    returns: list[float] = []
    faster = "agent.batch_size=128", "agent.lr=2e-4", "agent.target_every=500"
    config = preset("rainbow", *faster, "num_envs=32", "agent.replay_size=500000", "steps=10000000")
    config = replace(config, env=replace(config.env, vectorization=vectorization))
    trainer = trainer_of(config, device, Silent(returns.append))
    yield "| seconds | frames | mean of the last 20 games |"
    yield "|---|---|---|"
    began, told, reached = time.perf_counter(), 0, False
    while not reached:
        trainer.iterate()
        seconds, mean = time.perf_counter() - began, np.mean(returns[-20:]) if returns else np.nan
        reached = len(returns) >= 20 and mean >= goal
        if seconds >= told or reached:
            told += 30
            yield f"| {seconds:,.0f} | {4 * trainer.step:,} | {f'{mean:.1f}' if returns else '–'} |"
    trainer.collector.envs.close()


# ---- tables


def write_table(part: str, card: str, lines: Sequence[str]) -> None:
    """Writes the table after each line, since the machine may be available for minutes only."""
    head = [f"`{reporting.command()}`, on {card}, torch {torch.__version__}.", ""]
    reporting.RESULTS.mkdir(parents=True, exist_ok=True)
    (reporting.RESULTS / f"gpu_{part}.md").write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Row:
    """A line of a table: its name, and the function that prepares each cell."""

    part: str
    name: str
    cells: tuple[Callable[[], Cell], ...]


def prepared(prepare: Callable[[], Cell]) -> Cell:
    prepare_cpu(1)
    torch.compiler.reset()
    return prepare()


def one_by_one(rows: Sequence[Row]) -> Iterator[tuple[int, int, str]]:
    """Yields row, cell and text; each cell is measured as soon as it is prepared."""
    for i, row in enumerate(rows):
        for j, prepare in enumerate(row.cells):
            yield i, j, said_by(lambda prepare=prepare: prepared(prepare)())  # type: ignore[misc]


def together(rows: Sequence[Row]) -> Iterator[tuple[int, int, str]]:
    """Like `one_by_one`, but all cells are prepared at once in processes of their own, and then measured one by one."""
    context, children = multiprocessing.get_context("spawn"), []
    for i, row in enumerate(rows):
        for j, prepare in enumerate(row.cells):
            ours, theirs = context.Pipe()
            context.Process(target=take_part, args=(prepare, theirs), daemon=True).start()
            theirs.close()
            children.append((i, j, ours))
    for _, _, pipe in children:
        with suppress(EOFError):  # its process died
            pipe.recv()
    print("all are prepared", file=sys.stderr, flush=True)
    for i, j, pipe in children:
        try:
            pipe.send("go on")
            yield i, j, pipe.recv()
        except (EOFError, OSError):
            yield i, j, "its process died"


def take_part(prepare: Callable[[], Cell], pipe: Any) -> None:
    """The work of one process: it prepares, reports this, waits for its turn, and reports its measurement."""
    try:
        cell = prepared(prepare)
    except Exception as error:
        cell = partial(failure, error)
    pipe.send("prepared")
    pipe.recv()
    pipe.send(said_by(cell))


def said_by(cell: Cell) -> str:
    try:
        return cell()
    except Exception as error:
        return failure(error)


def failure(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="run everything once, on as little as possible")
    parser.add_argument("--only", choices=("updates", "training", "both", "profile", "none"))
    parser.add_argument("--agents", default=",".join(PRESETS), help="of all parts but Pong")
    parser.add_argument("--ways", default=",".join(WAYS), help="of updates")
    parser.add_argument("--batches", default="32,256", help="of updates")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of training")
    parser.add_argument("--vectorization", default="auto", help="how the environments of training run")
    parser.add_argument("--envs", default="16,64,128", help="of training")
    parser.add_argument("--together", action="store_true", help="prepare all numbers at once, in as many processes")
    parser.add_argument("--pong", type=float, metavar="RETURN")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device on this machine: nothing was measured")
    device = resolve_device(arguments.device)
    prepare_cpu(1)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    kept = device.type == "cuda" and not arguments.quick
    quick, seconds = arguments.quick, 1.0 if arguments.quick else arguments.seconds
    agents, how = arguments.agents.split(","), arguments.vectorization
    ways, batches = arguments.ways.split(","), [*map(int, arguments.batches.split(","))]
    for what, given, known in (("agents", agents, PRESETS), ("ways", ways, WAYS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown {what} {', '.join(sorted(unknown))}: choose of {', '.join(known)}")
    training = [*TRAINING]
    if device.type != "cuda":
        ways, training = [way for way in ways if WAYS[way] == Plan()], training[:1]
    atari = [name for name in agents if name != "noisy_dqn"]
    rows, parts = [], dict[str, Iterator[str]]()
    if arguments.only in (None, "updates", "both"):
        for name in agents:
            for batch in (8,) if quick else batches:
                cells = (partial(prepare_update, name, batch, way, device, quick) for way in ways)
                rows.append(Row("updates", f"{name}, {batch}", tuple(cells)))
    if arguments.only in (None, "training", "both"):
        for name in atari:
            for count in (2,) if quick else map(int, arguments.envs.split(",")):
                cells = (partial(prepare_training, name, count, way, device, quick, seconds, how) for way in training)
                rows.append(Row("training", f"{name}, {count}", tuple(cells)))
    heads = {
        "updates": ["agent, batch", *(f"{way}: updates/s (MiB)" for way in ways)],
        "training": ["agent, environments", *(f"{way}: frames/s (MiB)" for way in training)],
    }
    if not any(row.cells for row in rows) and arguments.only in ("updates", "training", "both"):
        parser.error(f"nothing is measured of agents={arguments.agents}, ways={arguments.ways} on {device}")
    if arguments.together and how == "async":
        parser.error("--together does not go with --vectorization async: its processes start none of their own")
    said = {(i, j): "" for i, row in enumerate(rows) for j in range(len(row.cells))}
    for i, j, text in (together if arguments.together else one_by_one)(rows):
        said[i, j], part = text, rows[i].part
        print(f"{rows[i].name} · {heads[part][j + 1]}: {text}", flush=True)
        lines = [f"| {' | '.join(heads[part])} |", "|---" * len(heads[part]) + "|"]
        for number, row in enumerate(rows):
            if row.part == part:
                lines.append(f"| {row.name} | {' | '.join(said[number, k] for k in range(len(row.cells)))} |")
        if kept:
            write_table(part, card, lines)
    if arguments.only in (None, "profile"):
        parts["profile"] = profile(device, quick, seconds, how, atari, ways)
    if arguments.pong is not None:
        parts["pong"] = pong(device, arguments.pong, how)
    for part, made in parts.items():
        lines = []
        for line in made:
            print(line, flush=True)
            lines.append(line)
            if kept:
                write_table(part, card, lines)


if __name__ == "__main__":
    main()
