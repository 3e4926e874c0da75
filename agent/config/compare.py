"""The options of compare.py."""

from dataclasses import dataclass
from typing import Annotated

from agent.common.errors import UserError
from agent.config.paths import OptionalPath, Paths
from agent.config.ranges import POSITIVE


@dataclass(frozen=True)
class CompareConfig:
    """The root of conf/compare/compare.yaml; with `out` None the page goes to a new folder below runs/comparisons."""

    runs: Paths = ()
    by: tuple[str, ...] = ()
    baseline: str | None = None
    metric: str = "eval/return_mean"
    out: OptionalPath = None
    follow: bool = False
    every: Annotated[float, POSITIVE] = 5.0

    def __post_init__(self) -> None:
        if not self.metric.strip():
            raise UserError("metric is empty: name a metric of metrics.jsonl, such as eval/return_mean")
