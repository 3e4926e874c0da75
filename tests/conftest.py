"""Shared by all tests: one torch thread, as train.py sets it, and the devices that this machine has."""

import gc
import signal
from collections.abc import Iterator

import pytest
import torch
from helpers import Programs, plain_environment

from agent.common import notices
from agent.running.resources import prepare_cpu

#: The environment variables before any test changes them.
ENVIRONMENT = plain_environment()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    prepare_cpu(1)


@pytest.fixture(scope="module", autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Restores the signal handlers after each module: a cluster of Ray replaces that of SIGTERM for good."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _no_line_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes notices that appear once per process appear in each test, and restores the place to which they are sent."""
    monkeypatch.setattr(notices, "_told", set())
    monkeypatch.setattr(notices, "_say", notices._print)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs the programs as a person does. All modules share it, since its process takes seconds to start."""
    started = Programs(tmp_path_factory.mktemp("logs"), ENVIRONMENT)
    yield started
    started.close()


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Turns garbage collection off in tests with a time limit: that of the whole suite can take more than a second."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU and CUDA; a test that takes this fixture is skipped for a device that the machine lacks."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)
