"""The common parts of the benchmarks' results: the description of the machine, the timing, and the tables."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS, FIGURES = ROOT / "docs" / "performance", ROOT / "docs" / "figures"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system and present load: the load of other programs makes measured times wrong."""
    import psutil

    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        name = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), name
        )
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages."""
    from importlib.metadata import version

    return {package: version(package) for package in packages}


def command() -> str:
    """The command that started this program."""
    return " ".join(["python", str(Path(sys.argv[0]).resolve().relative_to(ROOT)), *sys.argv[1:]])


def spread(values: Iterable[float], digits: int = 0) -> str:
    """median (least … greatest)."""
    array = np.array(list(values))
    return f"{np.median(array):.{digits}f} ({array.min():.{digits}f} … {array.max():.{digits}f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(name: str, result: dict[str, Any], text: str, quiet: bool = False) -> None:
    """Writes docs/performance/<name>.json and .md, with the command and the machine on top, and prints the latter."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    about = result["machine"]
    made = (
        f"`{result['command']}`, on {about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, "
        f"{about['system']}, Python {about['python']}, "
        + ", ".join(f"{package} {version}" for package, version in result["versions"].items())
        + f"; load of the machine before it began: {about['load']}."
    )
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(f"{made}\n\n{text}\n")
    if not quiet:
        print(f"{made}\n\n{text}")


def add_clock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time, not the clock's: steadier where others use the machine"
    )


def use_clock(arguments: argparse.Namespace) -> None:
    """Sets the clock of `alternate`: processor time with --cpu-time, and otherwise elapsed time."""
    global _clock
    _clock = time.process_time if arguments.cpu_time else time.perf_counter


_clock: Callable[[], float] = time.perf_counter


def alternate(works: dict[str, Callable[[], object]], blocks: int = 9, seconds: float = 0.03) -> dict[str, list[float]]:
    """Microseconds of one call of each work in each block. The works take turns, and a block takes about `seconds`."""
    calls = {}
    for name, work in works.items():
        work()
        began = _clock()
        for _ in range(3):
            work()
        calls[name] = max(1, int(3 * seconds / (_clock() - began)))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(blocks):
        for name, work in works.items():
            began = _clock()
            for _ in range(calls[name]):
                work()
            times[name].append((_clock() - began) / calls[name] * 1e6)
    return times
