"""Noise of other families for the agent (agent.noise.distribution=…): CartPole-v1, 5 seeds each, all else equal.

    python benchmarks/noise_families.py                            # the figure and table in docs/figures
    python benchmarks/noise_families.py --seeds 100 --steps 3000   # does it run?

A study of benchmarks/learning.py. Writes noise_families.png and .md to --out, and every run's curve to
benchmarks/results/noise_families.json.
"""

import argparse
import json
from pathlib import Path

from learning import RESULTS, ROOT, Study, plot, run_study, table

from agent.noise.distributions import QUANTILES


def study(steps: int) -> Study:
    """One variant per family of agent.noise, with everything else equal: the paper's one draw for each batch of 64."""
    common = ["agent.noise.learning=joint", "agent.noise.draws=1", "agent.batch_size=64"]
    variants = {name: [f"agent.noise.distribution={name}", *common] for name in QUANTILES}
    return Study("CartPole-v1", steps, 475.0, "100-104", variants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", default="100-104", help="first-last")
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps of each run")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; 1 for timings")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "figures", help="folder of the figure and the table"
    )
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    families = study(arguments.steps)
    RESULTS.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = run_study("noise_families", families, range(int(first), int(last or first) + 1), arguments.jobs)
    (RESULTS / "noise_families.json").write_text(json.dumps(results, indent=1))
    plot(families, results, arguments.out / "noise_families.png")
    (arguments.out / "noise_families.md").write_text(table(families, results) + "\n")
    print(table(families, results))


if __name__ == "__main__":
    main()
