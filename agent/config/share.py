"""The options of share.py."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ShareConfig:
    """The root of conf/share/share.yaml; `checkpoint` None is the newest run, `out` None a folder beside the agent."""

    checkpoint: str | None = None
    which: Literal["best", "last"] = "best"
    to: Literal["onnx"] = "onnx"
    noise: bool = False
    out: str | None = None
