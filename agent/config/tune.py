"""The options of tune.py, and the options that a study stores."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from agent.common.errors import UserError
from agent.config.paths import OptionalPath
from agent.config.ranges import AT_LEAST_ONE, NOT_NEGATIVE, SEED, at_least

Pruner = Literal["median", "hyperband", "none"]
Score = Literal["last", "best", "mean"]
TRIALS = at_least(0, 1e6)
SEEDS = at_least(1, 1000)


@dataclass(frozen=True)
class TuneConfig:
    """The root of conf/tune/tune.yaml. `train` has the options of train.py; `out` None: a new folder below runs/."""

    train: tuple[str, ...] = ()
    trials: Annotated[int, TRIALS] = 40
    seeds: Annotated[int, SEEDS] = 2
    score: Score = "last"
    pruner: Pruner = "median"
    startup: Annotated[int, TRIALS] = 5
    jobs: Annotated[int, at_least(1, 1024)] = 1
    space: OptionalPath = None
    out: OptionalPath = None
    resume: OptionalPath = None


@dataclass(frozen=True)
class StudyConfig:
    """A study, as its file stores it.

    Attributes:
        overrides: the options of train.py that all trials share.
        not_in_preset: those overrides that presets do not contain: they choose a file, as env and agent do, or concern
            how a run is executed.
        preset_values: the values of the other overrides, which belong to the algorithm or the task.
        env: the id of the task.
        seeds: the seeds with which each trial is trained.
        trials: the requested number of trials.
        score: how a seed is scored from the mean returns of its evaluations.
        pruner: the method that ends trials early.
        startup_trials: the number of trials before the sampler uses earlier results and the pruner ends any trial.
        steps: environment steps of a run.
        eval_every: environment steps between two evaluations; 0: only one at the end.
        space: the search space, with every option's range or choices, as a space file has it.
        first: the settings of the first trial, which training has without the study.
    """

    overrides: tuple[str, ...]
    not_in_preset: tuple[str, ...]
    preset_values: dict[str, object]
    env: str
    seeds: Annotated[tuple[int, ...], SEED]
    trials: Annotated[int, TRIALS]
    score: Score
    pruner: Pruner
    startup_trials: Annotated[int, TRIALS]
    steps: Annotated[int, AT_LEAST_ONE]
    eval_every: Annotated[int, NOT_NEGATIVE]
    space: dict[str, object]
    first: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UserError("a study needs at least one seed")

    @property
    def evaluations(self) -> int:
        """The number of evaluations of a run: one at each multiple of `eval_every`, and one at the end."""
        return -(-self.steps // self.eval_every) if self.eval_every else 1
