"""Shared by all tests: one torch thread, as train.py sets it, and the devices that this machine has."""

import pytest
import torch

from agent.common import notices
from agent.running.resources import prepare_cpu


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    prepare_cpu(1)


@pytest.fixture(autouse=True)
def _no_line_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test sees the lines that are told once, wherever an earlier one has sent them."""
    monkeypatch.setattr(notices, "_told", set())
    monkeypatch.setattr(notices, "_say", notices._print)


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that matters; tests that take it are skipped on the ones that are not here."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)
