"""The metrics of learning, gathered as tensors on the device and turned into floats once per interval."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from agent.common.seeding import restore, torch_generator
from agent.common.state import State
from agent.learning.dqn import DQN
from agent.learning.gradient import UpdateMetrics
from agent.records.tracking import Tracker
from agent.replay.rings import AnyReplay

ROWS = 512  # transitions on which Q values and the effect of the noise are measured


class NotFiniteError(Exception):
    """A loss or a parameter is not finite; the message names it."""


class Monitor:
    """Averages the metrics of the updates, measures the agent on a batch, and checks that all values are finite.

    It has its own random streams, so that measuring does not change training.
    """

    def __init__(self, agent: DQN, replay: AnyReplay, tracker: Tracker, seed: int) -> None:
        self._agent, self._replay, self._tracker = agent, replay, tracker
        self._batches = torch_generator(seed, "diagnostics", 0, device=replay.place.device)
        self._noise = torch_generator(seed, "diagnostics", 1, device=agent.device)
        self._reported: list[UpdateMetrics] = []
        self._last = (0, 0, 0.0)  # step, updates and training seconds at the last log

    @property
    def step(self) -> int:
        """The step of the last log."""
        return self._last[0]

    def report(self, metrics: UpdateMetrics) -> None:
        """Records the metrics of one update."""
        if metrics.priority is not None:  # only the mean over a batch is logged
            metrics = metrics._replace(priority=metrics.priority.mean())
        self._reported.append(metrics)

    def log(self, step: int, seconds: float, more_metrics: Mapping[str, float] | None = None) -> None:
        """Logs the interval that ends at `step`, after `seconds` of training, with `more_metrics` added.

        Raises:
            NotFiniteError: a value is not finite; this is raised before anything is saved.
        """
        agent, (last_step, last_updates, last_seconds) = self._agent, self._last
        elapsed = max(seconds - last_seconds, 1e-9)
        metrics: dict[str, float] = {
            "replay/size": len(self._replay),
            "train/epsilon": agent.config.epsilon.at(step),
            "train/learning_rate": agent.learning_rate(),
            "train/updates": agent.updates,
            "speed/env_steps_per_second": (step - last_step) / elapsed,
            "speed/updates_per_second": (agent.updates - last_updates) / elapsed,
            "time/train_seconds": seconds,
        }
        metrics |= self._replay.priority_metrics() | dict(more_metrics or {})
        if agent.config.priority.enabled:
            metrics["replay/beta"] = agent.config.priority.beta_at(step)
        measured = self._measure() if self._reported else {}
        self._reported.clear()
        self._last = (step, agent.updates, seconds)
        self._tracker.log(step, metrics | measured)
        self.check_finite(measured)

    def check_finite(self, measured: dict[str, float] | None = None) -> None:
        """Raises NotFiniteError if one of the values `measured`, or a parameter, is not finite."""
        not_finite = [f"{name} is {value}" for name, value in (measured or {}).items() if not np.isfinite(value)]
        if not_finite:
            raise NotFiniteError(", ".join(not_finite))
        if not self._agent.is_finite():
            raise NotFiniteError("a parameter is not finite")

    def _measure(self) -> dict[str, float]:
        """The means over the interval, and the agent's diagnostics on a batch."""
        columns = zip(UpdateMetrics._fields, zip(*self._reported, strict=True), strict=True)
        measured = {
            f"train/{name}": self._stacked(values).mean()
            for name, values in columns
            if values[0] is not None  # None: the replay has no priorities
        }
        batch = self._replay.sample(ROWS, self._batches)
        measured |= self._agent.diagnostics(batch, self._noise)
        values = torch.stack(list(measured.values())).tolist()  # waits once for the device
        return dict(zip(measured, values, strict=True))

    def _stacked(self, values: Iterable[object]) -> torch.Tensor:
        """One metric of several updates, as a tensor [updates]."""
        return torch.stack([torch.as_tensor(value, device=self._agent.device) for value in values])

    def state(self) -> dict[str, object]:
        """The state of its random streams, and the metrics since the last log."""
        columns = zip(UpdateMetrics._fields, zip(*self._reported, strict=True), strict=False)
        return {
            "batches": self._batches.get_state(),
            "noise": self._noise.get_state(),
            "last": self._last,
            "reported": {name: self._stacked(values) for name, values in columns if values[0] is not None},
        }

    def load_state(self, state: State, step: int, seconds: float) -> None:
        """Continues from a checkpoint at `step`, after `seconds` of training."""
        restore(self._batches, state["batches"])
        restore(self._noise, state["noise"])
        self._last = tuple(state.get("last", (step, self._agent.updates, seconds)))
        rows = zip(*(column.unbind() for column in state.get("reported", {}).values()), strict=True)
        self._reported = [UpdateMetrics(*row) for row in rows]
