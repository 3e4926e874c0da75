"""How a run ended."""

from dataclasses import dataclass

from agent.common.errors import UserError
from agent.running.evaluation import Evaluation


@dataclass(frozen=True)
class Outcome:
    """How a run ended, with everything saved.

    Attributes:
        step: its last one.
        exit_code: the exit code of the signal that stopped it; 0: none.
        evaluation: its newest.
        seconds: the seconds of collecting and learning alone.
        solved: it stopped since evaluations reached `eval.stop_at`.
        evaluation_due: it was stopped before the evaluation of its last step.
        failure: what has to be mended before it can go on.
    """

    step: int
    exit_code: int
    evaluation: Evaluation | None
    seconds: float = 0.0
    solved: bool = False
    evaluation_due: bool = False
    failure: UserError | None = None
