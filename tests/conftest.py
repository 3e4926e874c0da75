"""Shared by all tests: one torch thread, as train.py sets it, and the devices that this machine has."""

import gc
from collections.abc import Iterator

import pytest
import torch
from helpers import Programs, plain_environment

from agent.common import notices
from agent.running.resources import prepare_cpu

#: As it is before any test changes it.
ENVIRONMENT = plain_environment()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    prepare_cpu(1)


@pytest.fixture(autouse=True)
def _no_line_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sees the lines that are told once, wherever an earlier one has sent them."""
    monkeypatch.setattr(notices, "_told", set())
    monkeypatch.setattr(notices, "_say", notices._print)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs the programs as a person does. One for all modules: the process that it copies takes seconds to start."""
    started = Programs(tmp_path_factory.mktemp("logs"), ENVIRONMENT)
    yield started
    started.close()


@pytest.fixture
def no_collection() -> Iterator[None]:
    """For tests with a limit of time: to collect the garbage of the whole suite can take more than a second."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that matters; tests that take it are skipped on the ones that are not here."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)
