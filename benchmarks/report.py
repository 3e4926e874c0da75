"""Puts docs/PERFORMANCE.md together from the tables in docs/performance: python benchmarks/report.py.

Each table is written by the command in its first line; nothing in the document is edited by hand.
"""

import argparse

from reporting import FIGURES, ROOT
from reporting import RESULTS as TABLES

DOCUMENT = ROOT / "docs" / "PERFORMANCE.md"

#: (title, what to know when reading it, the table, the command that makes it)
SECTIONS = (
    (
        "Against other libraries",
        """Environment steps per second of whole training loops, plain (ε-greedy) and noisy, each library at its best.
What was done for that is said at the top of `benchmarks/peers/run_<library>.py`. The contenders are
processes that are measured in turns, and the ratio is to Stable-Baselines3's plain DQN in the same
round: median, least and greatest. All play the same environments, have networks of the same widths,
batches of the same size and the same number of updates, which every runner checks.

What is not the same: libraries that have no noisy layers, or no Rainbow, are missing there. For an update
Tianshou draws one noise for each of its two networks and TorchRL one for the online network (that of its
target network changes when it is copied); both act by what the last update drew. This project draws one
for the prediction, one for the target, with double Q-learning one for the selection, and a new one for
every acting step. Peak memory is of the whole process, its imports included; of an Atari transition
Stable-Baselines3 and TorchRL keep two stacks of frames, Tianshou one, this project one frame. This
project's process is set up as `train.py` sets it up (agent/running/resources.py: numbers below 1e-38 are 0, freed
memory is kept), the others' as they come.""",
        "peers",
        "python benchmarks/peers.py",
    ),
    (
        "Time to a solved CartPole",
        """Greedy return of at least 475 over 20 episodes, training seconds without evaluation; Stable-Baselines3
with its zoo's settings.""",
        "learning_cartpole",
        "python benchmarks/learning.py cartpole --only per_row,shared,sb3 --publish",
    ),
    (
        "A whole run, piece by piece",
        """A run of `train.py` with its preset, logging, evaluation and checkpoints included. The time of a piece
is what it takes itself, without the pieces that it calls.""",
        "whole_run",
        "python benchmarks/whole_run.py",
    ),
    (
        "The pieces",
        """Microseconds of a call, median, least and greatest of several blocks. The first line of the updates
is the floor under all of them: the matrix products of a plain update, and nothing else.""",
        "micro",
        "python benchmarks/micro.py",
    ),
    (
        "What each trick bought, and what grows",
        """First the tricks, one at a time: the part as it is, and what a straightforward program does in its
place, everything else equal. Then what an update, an environment step and a sample cost as things grow.""",
        "scaling",
        "python benchmarks/scaling.py",
    ),
    (
        "On a GPU: updates",
        """The presets on frames as Atari's, drawn from a replay on the device; updates per second, and the memory
beside the replay.""",
        "gpu_updates",
        "python benchmarks/gpu.py --only updates",
    ),
    (
        "On a GPU: where the time goes",
        """What the device does in an update that is one CUDA graph, and what the host waits for in a training step.""",
        "gpu_profile",
        "python benchmarks/gpu.py --only profile",
    ),
    (
        "On a GPU: Atari training",
        """Emulator frames per second of whole training on Pong, at the presets' replay ratios.""",
        "gpu_training",
        "python benchmarks/gpu.py --only training",
    ),
    (
        "On a GPU: Pong",
        """How long Rainbow trains until the mean of its last 20 games is 18: 32 environments, batches of 128, steps
of 2e-4, a target network every 500 updates, a replay of 500,000 transitions, else as its preset.""",
        "gpu_pong",
        "python benchmarks/gpu.py --pong 18",
    ),
)


def document() -> str:
    """The whole document; a table that was not made yet is named with its command."""
    parts = [
        "# Performance",
        "Made by `python benchmarks/report.py` from the tables that the commands below write to `docs/performance/`. "
        "Every number, but for trials that say so, stands under the command that makes it and the machine that it "
        "comes from. The load in that line is the machine's average over the minute before the command began: what ran "
        "until then counts, even where it was stopped for the measurement.",
    ]
    for title, prose, name, command in SECTIONS:
        path = TABLES / f"{name}.md"
        table = path.read_text().strip() if path.exists() else f"Not measured yet: `{command}`."
        figure = [f"![{title}](figures/{name}.png)"] if (FIGURES / f"{name}.png").exists() else []
        parts += [f"## {title}", prose, *figure, table]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    DOCUMENT.write_text(document())
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
