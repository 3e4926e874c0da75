"""The options of share.py."""

from dataclasses import dataclass
from typing import Literal

from agent.common.errors import UserError
from agent.config.paths import OptionalPath
from agent.config.which import Which


@dataclass(frozen=True)
class ShareConfig:
    """The root of conf/share/share.yaml. `checkpoint` None: the newest run; `out` None: a folder beside the agent."""

    checkpoint: OptionalPath = None
    which: Which = "best"
    to: Literal["onnx", "hub"] = "onnx"
    noise: bool = False
    out: OptionalPath = None
    repo: str | None = None
    private: bool = False
    push: bool = True

    def __post_init__(self) -> None:
        if self.to == "hub" and self.repo is None:
            raise UserError("to=hub needs repo=user/name, the repository on the Hugging Face Hub")
        if self.to == "hub" and self.noise:
            raise UserError("noise=true is for to=onnx, and an agent on the Hub keeps its noise anyway: leave it out")
        for name, given in (("repo", self.repo is not None), ("private", self.private), ("push", not self.push)):
            if given and self.to != "hub":
                raise UserError(f"{name} is for to=hub: add to=hub, or leave {name} out")
