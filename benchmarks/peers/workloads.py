"""The work that every library gets: the task, the network, and the number of steps per update."""

from dataclasses import dataclass
from math import gcd

PLAIN, NOISY, NOISY_ROWS, SEPARATE, RAINBOW = "plain", "noisy", "noisy_rows", "noisy_separate", "rainbow"
VARIANTS = {
    PLAIN: "plain",
    NOISY: "noisy, one draw per batch",
    NOISY_ROWS: "noisy, one draw per row",
    SEPARATE: "noisy, separate learning",
    RAINBOW: "Rainbow",
}


@dataclass(frozen=True)
class Workload:
    """One line of the table.

    Attributes:
        title: for people.
        env_id: as Gymnasium knows it.
        num_envs: environments side by side.
        batch: transitions per update.
        every: environment steps per update, over all environments.
        hidden: widths of the linear hidden layers, after the convolutions if there are any.
        trunk: "none" (a vector), "minatar" (one convolution of 16 channels) or "nature" (three).
        variants: which agents play it.
        threads: with how many threads it is measured.
        kwargs: of the environment's constructor.
    """

    title: str
    env_id: str
    num_envs: int
    batch: int
    every: int
    hidden: tuple[int, ...]
    trunk: str = "none"
    variants: tuple[str, ...] = (PLAIN, NOISY, SEPARATE)
    threads: tuple[int, ...] = (1,)
    kwargs: tuple[tuple[str, float], ...] = ()

    #: Steps between copies to the target network, transitions of the replay, random steps before the first update.
    target_steps = 500
    replay = 10_000
    starts = 1_000

    @property
    def cycle(self) -> tuple[int, int]:
        """(vector steps, updates): the shortest round in which both are whole numbers."""
        vector_steps = self.every // gcd(self.every, self.num_envs)
        return vector_steps, vector_steps * self.num_envs // self.every

    @property
    def target_updates(self) -> int:
        """Updates between copies to the target network."""
        return max(1, self.target_steps // self.every)


CARTPOLE = {"env_id": "CartPole-v1", "batch": 128, "hidden": (120, 84)}
IMAGES = {"num_envs": 1, "batch": 32, "every": 4}
WORKLOADS = {
    "a": Workload(
        "CartPole-v1, an update every 10 steps",
        **CARTPOLE,
        num_envs=1,
        every=10,
        variants=tuple(VARIANTS),
        threads=(1, 2),
    ),
    "b": Workload(
        "CartPole-v1, an update every step",
        **CARTPOLE,
        num_envs=1,
        every=1,
        variants=(PLAIN, NOISY, NOISY_ROWS, SEPARATE),
    ),
    "c8": Workload("CartPole-v1, 8 environments, ratio 1/10", **CARTPOLE, num_envs=8, every=10),
    "c32": Workload("CartPole-v1, 32 environments, ratio 1/10", **CARTPOLE, num_envs=32, every=10, threads=(1, 2)),
    "d": Workload(
        "MinAtar Breakout, its convolution, an update every 4 steps",
        "MinAtar/Breakout-v1",
        **IMAGES,
        hidden=(128,),
        trunk="minatar",
        variants=(PLAIN, NOISY, SEPARATE, RAINBOW),
    ),
    "e": Workload(
        "Atari Pong, Nature's convolutions, an update every 4 steps",
        "ALE/Pong-v5",
        **IMAGES,
        hidden=(512,),
        trunk="nature",
        threads=(1, 2),
        kwargs=(("repeat_action_probability", 0.25),),
    ),
}

#: The name of each library in tables, and its agents. TorchRL has no Rainbow here: its prioritised replay needs its C++
#: extension, which does not load with torch 2.13.
LIBRARIES = {
    "ours": ("ours", tuple(VARIANTS)),
    "sb3": ("Stable-Baselines3", (PLAIN,)),
    "sbx": ("SBX", (PLAIN,)),
    "tianshou": ("Tianshou", (PLAIN, NOISY, RAINBOW)),
    "torchrl": ("TorchRL", (PLAIN, NOISY)),
}
