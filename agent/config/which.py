"""The two agents that a run saves."""

from typing import Literal

Which = Literal["best", "last"]
