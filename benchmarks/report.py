"""Makes docs/PERFORMANCE.md from the tables in docs/performance: python benchmarks/report.py.

The command in the first line of a table writes it. Nobody edits the document by hand.
"""

import argparse

from reporting import FIGURES, ROOT
from reporting import RESULTS as TABLES

DOCUMENT = ROOT / "docs" / "PERFORMANCE.md"

#: (title, introduction, name of the table, the command that makes it)
SECTIONS = (
    (
        "Against other libraries",
        """This section compares whole training loops, plain (ε-greedy) and noisy, in environment steps per second.
Each library runs at its best; the top of `benchmarks/peers/run_<library>.py` says how. Each contender is a process of
its own, and the processes are measured in turns. The ratio is to Stable-Baselines3's plain DQN in the same round:
median, least and greatest. All contenders play the same environments, with networks of the same widths, batches of
the same size and the same number of updates. Every runner checks this.

Some things differ:

- Stable-Baselines3 and SBX have neither noisy layers nor Rainbow. TorchRL has the parts of Rainbow, but its prioritised
  replay needs a C++ extension that does not load with this PyTorch, so that its row is missing.
- For an update, Tianshou draws one noise for each of its two networks. TorchRL draws one for the online network; the
  noise of its target network changes only when that network is copied. Both act with the noise of the last update.
  This project draws a new one for every acting step. With one draw per batch or per row it learns jointly, as the
  others do, and draws one noise for the prediction, one for the target and, with double Q-learning, one for the
  selection. Separate learning, the default, has noise only in further predictions for half of the batch, with a draw
  for each row.
- Double Q-learning, n-step returns and layer normalisation are off in all libraries; Rainbow keeps the first two. The
  default agent has all three, and takes longer for a step than the row of separate learning says.
- Peak memory is that of the whole process, with its imports. An Atari transition takes two stacks of
  frames in Stable-Baselines3 and TorchRL here, one stack in Tianshou, and one frame in this project. The options
  `optimize_memory_usage` of Stable-Baselines3 and `save_only_last_obs` of Tianshou would need less memory; both are
  off.
- All noisy rows of this project, and its Rainbow, include the scale of the acting noise: a second forward pass in a
  quarter of the steps. `noise=paper` and `agent=rainbow` do not have it.
- The process of this project has the settings of `train.py`: numbers below 1e-38 are 0, and freed memory is kept
  (`agent/running/resources.py`). The other processes keep their defaults.""",
        "peers",
        "python benchmarks/peers.py",
    ),
    (
        "Time to a solved CartPole",
        """CartPole is solved at a greedy return of at least 475 over 20 episodes. Training seconds exclude
evaluation. The time to the first such evaluation is not that of the run: every run continues to its last step, and the
last column has its seconds. The seeds are 200–209; each run has one core, and two run at a time. `noisy_dqn` is the
default with the preset of CartPole. With `noise=paper` it has the noise of Fortunato et al. (2018), and the rest
of the preset. SB3 DQN is Stable-Baselines3 with the settings of its zoo: two layers of 256 instead of
128, and twice as many updates. It learns in blocks of 128 updates after 256
steps, so that its last agent is 176 steps and one block later than the last point of its curve. This block, and 100
instead of 20 episodes, change its mean from 423 to 443. Dots in the [picture of these runs](figures/cartpole.png)
show the last agents.""",
        "learning_cartpole",
        "python benchmarks/learning.py cartpole --only noisy_dqn,paper,sb3 --jobs 2 --publish",
    ),
    (
        "A whole run, piece by piece",
        """This is a run of `train.py`, including logging, evaluation and checkpoints. The time of a piece excludes the
pieces that it calls. It was measured with an earlier preset, which made twice as many updates as that of today and
learned jointly.""",
        "whole_run",
        "python benchmarks/whole_run.py",
    ),
    (
        "Saving and resuming",
        """The table gives the seconds of a checkpoint, of a resume, and of the training between two checkpoints at the
interval of the preset. The percentages are parts of this training. A resume loads everything and replays the
unfinished episodes. The replay of Pong holds 50,000 transitions here, and 200,000 in its preset.""",
        "resume",
        "python benchmarks/resume.py --publish",
    ),
    (
        "The pieces",
        """The tables give microseconds per call: median, least and greatest of several blocks. The first row of the
updates is a lower bound for all of them: the matrix products of a plain update and nothing else.
`python benchmarks/overhead.py` prints the ratio of an update to its own products, with noise and without.""",
        "micro",
        "python benchmarks/micro.py",
    ),
    (
        "Gains of the tricks, growth of the costs",
        """The first table measures the tricks one at a time, each against a straightforward program, with everything
else equal. The other tables show how the costs of an update, an environment step and a sample grow.""",
        "scaling",
        "python benchmarks/scaling.py",
    ),
    (
        "On a GPU: updates",
        """The presets learn from frames like Atari's, drawn from a replay on the device. The tables give updates per
second and the memory besides the replay.""",
        "gpu_updates",
        "python benchmarks/gpu.py --only updates",
    ),
    (
        "On a GPU: where the time goes",
        """The tables show the work of the device in an update that is one CUDA graph, and the waits of the host in a
training step.""",
        "gpu_profile",
        "python benchmarks/gpu.py --only profile",
    ),
    (
        "On a GPU: Atari training",
        """This is the speed of whole training runs on Pong in emulator frames per second, at the presets' replay
ratios.""",
        "gpu_training",
        "python benchmarks/gpu.py --only training",
    ),
    (
        "On a GPU: Pong",
        """Rainbow trains until the mean of its last 20 games is 18, with 32 environments, batches of 128, a learning
rate of 2e-4, a new target network every 500 updates and a replay of 500,000 transitions. All else is its preset.""",
        "gpu_pong",
        "python benchmarks/gpu.py --pong 18",
    ),
)


def document() -> str:
    """The whole document; in place of a missing table it names the command."""
    parts = [
        "# Performance",
        "`python benchmarks/report.py` makes this page from the tables in `docs/performance/`. Above each table "
        "are the command that made it and the machine on which it ran; a few trials were made in another way, and say "
        "so. The load is the machine's average over the minute before the command began. It includes programs that "
        "were stopped for the measurement.",
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
