"""How a trial of a study ended, or how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A trial, as the study knows it.

    Attributes:
        number: the number of the trial, from 0.
        state: complete | pruned | failed | running.
        score: the mean over the seeds; for a pruned trial, the last value.
        settings: the options of the trial.
        seeds: the score of each completed seed.
        reported: the number of evaluations over all seeds.
        seconds: the duration; None while it runs.
        error: the reason why it failed.
    """

    number: int
    state: str
    score: float | None
    settings: Mapping[str, object]
    seeds: Mapping[str, float]
    reported: int
    seconds: float | None
    error: str = ""
