"""Environment steps per second of whole training loops: this project and its peers, on the same work, in turns.

    python benchmarks/peers.py                                  # about twenty minutes on two cores
    python benchmarks/peers.py --quick                          # about three minutes
    python benchmarks/peers.py --workloads a,b --peers sb3 --repeats 9

It makes an environment of its own (benchmarks/.venv-peers) with the libraries of peers/requirements.txt and the
versions of constraints.txt; `--no-venv` takes the Python that runs it. Every contender is a process that waits while
another is measured, A B C A B C …; imports, construction, compilation and warm-up come before the clock. Ratios are
taken within a round. Each runner checks that it made the environment steps and the updates that were asked for. The
workloads are in peers/workloads.py, and the settings for the best speed of a library in peers/run_<library>.py.

Results: docs/performance/peers.json and .md, docs/figures/peers.png.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "peers"))

import reporting  # noqa: E402
from drawing import COLOURS, save  # noqa: E402
from workloads import LIBRARIES, VARIANTS, WORKLOADS  # noqa: E402

from agent.records.plots import BLUE, GREEN, ORANGE  # noqa: E402

RUNNERS = ROOT / "benchmarks" / "peers"
VENV = ROOT / "benchmarks" / ".venv-peers"
FIGURE = ROOT / "docs" / "figures" / "peers.png"
COMPILED = " compiled"
THEN = "`, then `"  # between the commands that made a table


@dataclass(frozen=True)
class Contender:
    library: str
    variant: str
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{LIBRARIES[self.library][0]}{COMPILED if self.options else ''}, {VARIANTS[self.variant]}"


def contenders(workload: str, libraries: list[str], variants: list[str], compiled: bool) -> list[Contender]:
    """The contenders of a workload; TorchRL plays with and without torch.compile if there are no convolutions."""
    found = []
    for library in libraries:
        for variant in WORKLOADS[workload].variants:
            if variant in LIBRARIES[library][1] and variant in variants:
                found.append(Contender(library, variant))
                if library == "torchrl" and compiled and WORKLOADS[workload].trunk == "none":
                    found.append(Contender(library, variant, ("--compile",)))
    return found


def python_of_peers() -> str:
    """Makes or updates the environment benchmarks/.venv-peers, and returns its Python."""
    wanted = [ROOT / "constraints.txt", RUNNERS / "requirements.txt", ROOT / "pyproject.toml"]
    stamp, digest = VENV / "stamp", hashlib.sha256(b"".join(path.read_bytes() for path in wanted)).hexdigest()
    python = VENV / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not stamp.exists() or stamp.read_text() != digest:
        print(f"making {VENV.relative_to(ROOT)} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        install = ["-m", "pip", "install", "--quiet", "-c", str(wanted[0]), "-r", str(wanted[1])]
        subprocess.run([str(python), *install, "-e", f"{ROOT}[atari,minatar]"], check=True)
        stamp.write_text(digest)
    return str(python)


class Process:
    """A runner that waits for orders."""

    def __init__(self, contender: Contender, python: str, workload: str, threads: int) -> None:
        self.contender, self.blocks, self.rate, self.failure = contender, [], 0.0, None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        threads_of = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
        command = [python, str(RUNNERS / f"run_{contender.library}.py"), "--workload", workload, "--serve"]
        self._process = subprocess.Popen(
            [*command, "--variant", contender.variant, "--threads", str(threads), *contender.options],
            env={**os.environ, **threads_of, "RL_LOGGING_LEVEL": "ERROR"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def order(self, steps: int) -> None:
        if self._process.poll() is None:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """The next measurement. It is None if the runner has ended; `failure` then has the reason."""
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                block = json.loads(line)
                self.rate = block["steps_per_second"]
                return block
        if self.failure is None:
            self._errors.seek(0)
            self.failure = (self._errors.read().strip().splitlines() or ["it ended without a word"])[-1]
            print(f"{self.contender.label}: {self.failure}", file=sys.stderr)
        return None

    def measure(self, seconds: float) -> None:
        """Measures one block of about `seconds`."""
        if self.failure is None:
            self.order(max(10, int(self.rate * seconds)))
            if (block := self.answer()) is not None:
                self.blocks.append(block)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def compete(chosen: list[Contender], python: str, workload: str, threads: int, options: Any) -> list[dict[str, Any]]:
    """All contenders of a workload in turns."""
    processes = [Process(contender, python, workload, threads) for contender in chosen]
    try:
        for process in processes:
            process.order(10)
        for process in processes:  # afterwards all are ready, and no other process computes during a measurement
            process.answer()
        for process in processes:
            process.measure(options.seconds / 2)
            process.blocks.clear()  # this block only measured the speed
        for _ in range(options.repeats):
            for process in processes:
                process.measure(options.seconds)
    finally:
        for process in processes:
            process.close()
    print(f"{workload}, {threads} thread{'s' * (threads > 1)}: measured", file=sys.stderr, flush=True)
    return [
        {
            "workload": workload,
            "threads": threads,
            "library": process.contender.library,
            "variant": process.contender.variant,
            "label": process.contender.label,
            "failure": process.failure,
            "blocks": [{key: block[key] for key in MEASURED} for block in process.blocks],
            "versions": process.blocks[0]["versions"] if process.blocks else {},
        }
        for process in processes
    ]


MEASURED = ("steps", "updates", "seconds", "cpu_seconds", "steps_per_second", "peak_mib")


def speeds(entry: dict[str, Any], clock: str) -> np.ndarray:
    """Environment steps per second of each round."""
    return np.array([block["steps"] / block[clock] for block in entry["blocks"]])


def order(entry: dict[str, Any]) -> tuple[int, int]:
    """The key of the order: plain variants come first, and Stable-Baselines3, the reference, is the first of them."""
    libraries = ["sb3", *(library for library in LIBRARIES if library != "sb3")]
    return list(VARIANTS).index(entry["variant"]), libraries.index(entry["library"])


def groups(results: list[dict[str, Any]], clock: str) -> list[tuple[str, list[tuple[dict[str, Any], Any, Any]]]]:
    """Per workload and number of threads: (entry, speeds, ratios within a round); the first is the reference."""
    found = []
    for workload, threads in dict.fromkeys((entry["workload"], entry["threads"]) for entry in results):
        entries = [e for e in results if (e["workload"], e["threads"]) == (workload, threads) and e["blocks"]]
        entries.sort(key=order)
        rounds = min((len(entry["blocks"]) for entry in entries), default=0)
        if entries:
            base = speeds(entries[0], clock)[:rounds]
            rows = [(e, speeds(e, clock)[:rounds], speeds(e, clock)[:rounds] / base) for e in entries]
            title = f"({workload}) {WORKLOADS[workload].title}, {threads} thread{'s' * (threads > 1)}"
            earlier = entries[0].get("machine")
            found.append((f"{title}; measured earlier, on {earlier}" if earlier else title, rows))
    return found


def write_table(results: list[dict[str, Any]], clock: str) -> str:
    """A table per workload, and the contenders that could not play."""
    parts = []
    for title, rows in groups(results, clock):
        reference = rows[0][0]["label"]
        unit = "env steps/s" if clock == "seconds" else "env steps per processor second"
        head = [title, unit, f"ratio to {reference}", "µs a step", "peak MiB"]
        lines = [
            [
                entry["label"],
                reporting.spread(speed),
                reporting.spread(ratio, 2),
                f"{np.median(1e6 / speed):.0f}",
                f"{max(block['peak_mib'] for block in entry['blocks']):.0f}",
            ]
            for entry, speed, ratio in rows
        ]
        parts.append(reporting.table(head, lines))
    failed = [f"- {entry['workload']}, {entry['label']}: {entry['failure']}" for entry in results if entry["failure"]]
    return "\n\n".join([*parts, *(["Not measured:\n\n" + "\n".join(failed)] if failed else [])])


def draw(results: list[dict[str, Any]], clock: str, path: Path) -> None:
    """Ratios as bars on one scale, one panel per workload on one thread, the spread over rounds as a line."""
    panels = [group for group in groups(results, clock) if ", 1 thread" in group[0]] or groups(results, clock)
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(7.0 * columns, 3.4 * lines), layout="constrained")
    colours = dict(zip(LIBRARIES, (ORANGE, COLOURS["SB3 DQN"], "#8a9199", GREEN, BLUE), strict=True))
    most = max(np.max(ratio) for _, rows in panels for _, _, ratio in rows)
    figure.suptitle("Bars: median of the rounds; lines: least and greatest", x=0.01, ha="left", fontsize=10)
    for place, (title, rows) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, place)
        middle = np.array([np.median(ratio) for _, _, ratio in rows])
        low, high = (np.array([f(ratio) for _, _, ratio in rows]) for f in (np.min, np.max))
        heights = range(len(rows))[::-1]
        bars = [colours[entry["library"]] for entry, _, _ in rows]
        axes.barh(heights, middle, color=bars, xerr=np.array([middle - low, high - middle]), ecolor="0.3")
        axes.set_yticks(heights, [entry["label"] for entry, _, _ in rows], fontsize=8)
        axes.axvline(1.0, color="0.5", linewidth=0.8, linestyle=":")
        axes.set_xlim(0.0, 1.03 * most)
        axes.set_title(title.replace("; ", ";\n"), fontsize=8, loc="left")
        axes.set_xlabel(f"environment steps per second ÷ {rows[0][0]['label']}", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(figure, path)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words = {"type": lambda text: text.split(",")}
    parser.add_argument("--workloads", **words, default=list(WORKLOADS), help=f"of {','.join(WORKLOADS)}")
    parser.add_argument(
        "--peers", **words, default=list(LIBRARIES), help=f"of {','.join(LIBRARIES)}; ours is always in"
    )
    parser.add_argument("--variants", **words, default=list(VARIANTS), help=f"of {','.join(VARIANTS)}")
    parser.add_argument("--threads", **words, help="such as 1,2; default: what each workload says")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.7, help="length of a measurement")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.3 s, one thread, nothing compiled")
    parser.add_argument(
        "--clock", choices=("seconds", "cpu_seconds"), default="seconds", help="what the table divides by"
    )
    parser.add_argument("--keep", action="store_true", help="workloads that are not measured now stay as they were")
    parser.add_argument("--no-venv", action="store_true", help="the peers are in the Python that runs this")
    parser.add_argument("--out", type=Path, help="folder of the results instead of docs/")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats, arguments.seconds, arguments.threads = 2, 0.3, ["1"]
    for asked, known in (
        (arguments.workloads, WORKLOADS),
        (arguments.peers, LIBRARIES),
        (arguments.variants, VARIANTS),
    ):
        if unknown := set(asked) - set(known):
            parser.error(f"{', '.join(sorted(unknown))}: choose of {', '.join(known)}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    about = reporting.machine()
    python = sys.executable if arguments.no_venv else python_of_peers()
    libraries = [library for library in LIBRARIES if library == "ours" or library in arguments.peers]
    figure = FIGURE
    if arguments.out:
        reporting.RESULTS, figure = arguments.out, arguments.out / "peers.png"
    path = reporting.RESULTS / "peers.json"
    kept = json.loads(path.read_text()) if arguments.keep and path.exists() else {"results": [], "versions": {}}
    command = THEN.join([*([kept["command"]] if "command" in kept else []), reporting.command()])
    results: list[dict[str, Any]] = []
    for workload in arguments.workloads:
        for threads in map(int, arguments.threads or WORKLOADS[workload].threads):
            chosen = contenders(workload, libraries, arguments.variants, not arguments.quick)
            results += compete(chosen, python, workload, threads, arguments)
            # The results so far, in case nobody waits for the rest.
            publish(with_kept(results, kept), about, arguments.clock, figure, command)
    print((reporting.RESULTS / "peers.md").read_text())


def with_kept(results: list[dict[str, Any]], kept: dict[str, Any]) -> list[dict[str, Any]]:
    """Adds the earlier results of other workloads or threads. All results of one table come from the same rounds."""

    def key(entry: dict[str, Any]) -> tuple[str, int]:
        return entry["workload"], entry["threads"]

    measured = {key(entry) for entry in results}
    others = [
        {"machine": kept["machine"]["processor"], **entry, "versions": kept["versions"]}
        for entry in kept["results"]
        if key(entry) not in measured
    ]
    return sorted([*results, *others], key=lambda entry: (list(WORKLOADS).index(entry["workload"]), entry["threads"]))


def publish(results: list[dict[str, Any]], about: dict[str, Any], clock: str, figure: Path, command: str) -> None:
    """Writes the results, their table and their figure."""
    versions = {name: version for entry in results for name, version in entry["versions"].items()}
    entries = [{key: value for key, value in entry.items() if key != "versions"} for entry in results]
    result = {"command": command, "machine": about, "versions": versions, "results": entries}
    reporting.save("peers", result, write_table(results, clock), quiet=True)
    if any(entry["blocks"] for entry in results):
        draw(results, clock, figure)


if __name__ == "__main__":
    main()
