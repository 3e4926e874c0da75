"""Notebooks: the cells of the example are executed, and the interrupt button saves the run.

Jupyter is not needed: the cells run as a kernel runs them, in the main thread inside an event loop that is running,
with a standard output that is no file, in another folder.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, plain_environment

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

KERNEL = """
import asyncio, io, json, sys

class Output(io.TextIOBase):  # as that of a kernel: text goes over a socket
    def __init__(self): self.text = []
    def writable(self): return True
    def write(self, text): self.text.append(text); return len(text)

async def execute(cells):
    names = {"__name__": "__main__"}
    for cell in cells:
        try:
            exec(compile(cell, "<cell>", "exec"), names)
        except KeyboardInterrupt:
            names["interrupted"] = True

cells, real = json.load(open(sys.argv[1])), sys.stdout
sys.stdout = Output()
asyncio.new_event_loop().run_until_complete(execute(cells))  # asyncio.run would handle Ctrl-C
real.write("executed")
"""


def start(cells: list[str], folder: Path) -> subprocess.Popen[str]:
    (folder / "cells.json").write_text(json.dumps(cells))
    environment = plain_environment() | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    command = [sys.executable, "-c", KERNEL, "cells.json"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True)


def ended(process: subprocess.Popen[str]) -> None:
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (0, "executed"), errors


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert all(cell.get("outputs", []) == [] for cell in notebook["cells"]), "results of one machine are not kept"
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 3
    checks = [
        "import pathlib; assert run.folder.is_relative_to(pathlib.Path.cwd() / 'runs')",
        "assert len(result['returns']) == 5 and episode_return >= 8",
        "assert agent.act(observation, mask=[True, False]) == 0 and agent.act(observation, mask=[False, True]) == 1",
    ]
    ended(start([*cells, *checks], tmp_path))


INTERRUPTED = [
    "from agent import load_agent, train",
    "options = {'eval': {'every': 0, 'episodes': 2, 'video': False}, 'agent': {'learning_starts': 128}}",
    "train('hydra.run.dir=run', env='CartPole-v1', steps=10_000_000, **options)",
    "assert interrupted",
    "import signal; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler",
    "step = load_agent('run', 'last').description['global_step']; assert step > 0",
    "run = train(resume='run', steps=step + 200, **options); assert run.step >= step + 200",
]


def test_the_interrupt_button_saves_the_run(tmp_path: Path) -> None:
    process = start(INTERRUPTED, tmp_path)
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)  # the server of a notebook sends this signal to the kernel
    ended(process)
