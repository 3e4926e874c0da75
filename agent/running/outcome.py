"""How a run ended."""

from dataclasses import dataclass

from agent.common.errors import UserError
from agent.running.evaluation import Evaluation


@dataclass(frozen=True)
class Outcome:
    """How a run ended, with everything saved.

    Attributes:
        step: the last step.
        exit_code: the exit code for the signal that stopped it; 0 if none did.
        evaluation: the newest evaluation; None if there was none, and without evaluations.
        seconds: the time spent in collecting and learning.
        solved: whether it stopped because evaluations reached `eval.stop_at`.
        evaluation_due: whether it stopped before the evaluation of its last step.
        failure: the error that the user must fix before it can continue.
    """

    step: int
    exit_code: int
    evaluation: Evaluation | None
    seconds: float = 0.0
    solved: bool = False
    evaluation_due: bool = False
    failure: UserError | None = None
