"""The pieces of micro.py in this checkout beside those of another one, such as the commit before a change.

    git worktree add ../before HEAD~1
    python benchmarks/beside.py ../before --only act,update

Two processes on one processor take turns of a few milliseconds, and each row compares their fastest turns (the fifth
percentile), so that other work on the machine disturbs little. Repeats agree within 1.5 %. The allocator keeps all
memory: with its own thresholds, an update that takes some hundred kilobytes has one of two speeds, by chance.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import reporting

ROOT = Path(__file__).parents[1]
#: A turn, in microseconds.
TURN = 4_000

#: For glibc: memory that is freed stays with the process, so that no update waits for the kernel's pages.
ALLOCATOR = {f"MALLOC_{name}_": str(2**32) for name in ("MMAP_THRESHOLD", "TRIM_THRESHOLD")} | {
    "MALLOC_TOP_PAD_": str(2**28)
}

#: For each line of its input it runs a piece the given number of times, and prints the microseconds of one call.
SERVER = """
import argparse, json, os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
sys.path[:0] = [f"{sys.argv[1]}/benchmarks", sys.argv[1]]
import micro, torch
torch.set_num_threads(1)
arguments = argparse.Namespace(rows=10_000, device=torch.device("cpu"))
works = {f"{name}: {row}": work for name in sys.argv[2:] for row, work in micro.SECTIONS[name](arguments).items()}
print(json.dumps(list(works)), flush=True)
for line in sys.stdin:
    row, times = json.loads(line)
    began = time.perf_counter()
    for _ in range(times):
        works[row]()
    print((time.perf_counter() - began) / times * 1e6, flush=True)
"""


class Checkout:
    """A process that runs the pieces of one checkout."""

    def __init__(self, path: Path, sections: list[str]) -> None:
        command = [sys.executable, "-c", SERVER, str(path.resolve()), *sections]
        self._process = subprocess.Popen(
            command,
            cwd=path,
            env=os.environ | ALLOCATOR,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self.rows: list[str] = json.loads(self._output.readline())

    def microseconds(self, row: str, times: int) -> float:
        """The microseconds of one call, in a turn of `times` calls."""
        print(json.dumps([row, times]), file=self._input, flush=True)
        return float(self._output.readline())

    def close(self) -> None:
        self._input.close()
        self._process.wait()


def compare(checkouts: list[Checkout], row: str, turns: int) -> list[float]:
    """Microseconds of a row in each checkout."""
    times = max(3, int(TURN / min(checkout.microseconds(row, 10) for checkout in checkouts)))
    measured: list[list[float]] = [[] for _ in checkouts]
    for turn in range(turns):
        for i in (0, 1) if turn % 2 else (1, 0):
            measured[i].append(checkouts[i].microseconds(row, times))
    return [sorted(values)[len(values) // 20] for values in measured]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("other", type=Path, help="the root of the other checkout")
    parser.add_argument("--only", type=lambda text: text.split(","), default=["act", "update"], help="of micro.py")
    parser.add_argument("--rows", default="", help="only rows whose names hold this text")
    parser.add_argument("--turns", type=int, default=150)
    arguments = parser.parse_args()
    checkouts = [Checkout(path, arguments.only) for path in (arguments.other, ROOT)]
    shared = [row for row in checkouts[0].rows if row in checkouts[1].rows and arguments.rows in row]
    rows = []
    for row in shared:
        other, this = compare(checkouts, row, arguments.turns)
        rows.append([row, f"{other:.1f}", f"{this:.1f}", f"{this / other:.3f}"])
    print(reporting.table(["µs", "other", "this", "this / other"], rows))
    for checkout in checkouts:
        checkout.close()


if __name__ == "__main__":
    main()
