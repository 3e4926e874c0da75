"""The programs: the options of their command lines, and how they begin and end."""

import os
import warnings
from collections.abc import Callable

from agent.command import errors
from agent.command.arguments import Program, install_parser
from agent.common.beginning import quit_at_once, quit_by_exception
from agent.common.foreign import is_exit
from agent.common.leaving import leave_others_behind, loud_exit, stop_timers
from agent.common.streams import check_output, tolerate_streams
from agent.config.compare import CompareConfig
from agent.config.parsing import leaf_names, names_of
from agent.config.run import EvaluateConfig, TrainConfig
from agent.config.share import ShareConfig
from agent.config.tune import TuneConfig

_TRAIN_OPTIONS = (*leaf_names(TrainConfig), "imports", "resume", "hydra.run.dir")
TRAIN = Program(
    name="train.py",
    options=[name for name in _TRAIN_OPTIONS if name != "env.id"],  # env= sets it
    example="env=CartPole-v1",
    texts=names_of(TrainConfig, str),
    lists=names_of(TrainConfig, tuple),
    other_program_options={
        "checkpoint": "resume a run with resume={value}, or play its agent with evaluate.py",
        "episodes": "for its evaluations write eval.episodes={value}",
        "video": "for its evaluations write eval.video={value}",
        "which": "evaluate.py plays an agent with checkpoint=<run folder> which={value}",
        "render": "evaluate.py shows an agent with checkpoint=<run folder> render={value}",
    },
)

_EVALUATE_OPTIONS = [*leaf_names(EvaluateConfig), "imports"]
_ONLY_TRAIN = {name.split(".")[0] for name in (*_TRAIN_OPTIONS, "preset", "task", "sizes")} - {
    *_EVALUATE_OPTIONS,
    "hydra",
}
EVALUATE = Program(
    name="evaluate.py",
    options=_EVALUATE_OPTIONS,
    example="checkpoint=<run folder>",
    texts=names_of(EvaluateConfig, str),
    lists=names_of(EvaluateConfig, tuple),
    several="several agents with checkpoint=[runs/a,runs/b]",
    other_program_options={
        **dict.fromkeys(_ONLY_TRAIN, "it is an option of train.py; leave it out"),
        "env": "an agent plays in the environment that it was trained in, which its file names; leave it out",
        "agent": "the algorithm and its network are in the agent's file; leave it out",
        "eval": "its options are episodes, num_envs, seed, noise, video and render",
        "resume": "play the agent of a run with checkpoint={value}",
    },
)

COMPARE = Program(
    name="compare.py",
    options=leaf_names(CompareConfig),
    example="runs=[runs/a,runs/b]",
    texts=names_of(CompareConfig, str),
    lists=names_of(CompareConfig, tuple),
    several="the folders of several runs: python compare.py runs/a runs/b",
)

SHARE = Program(
    name="share.py",
    options=[*leaf_names(ShareConfig), "imports"],
    example="checkpoint=<run folder>",
    texts=names_of(ShareConfig, str),
    lists=names_of(ShareConfig, tuple),
    several="one agent at a time",
)

TUNE = Program(
    name="tune.py",
    options=[*leaf_names(TuneConfig), *TRAIN.options],
    example="env=CartPole-v1",
    texts=names_of(TuneConfig, str),
    lists=names_of(TuneConfig, tuple),
    several="many trials with trials=<number>",
)


def run(main: Callable[[], object], program: Program) -> None:
    """Runs a Hydra program; ends the process with exit code 2 and one sentence for an error that a user can correct.

    Args:
        main: the program's main function, decorated with `hydra.main`.
        program: the command line that it accepts.
    """
    install_parser(program)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and we word them
    tolerate_streams()
    code: object = 1  # of a traceback
    try:
        with loud_exit(errors.FAILED), errors.sentences(program):
            quit_by_exception()
            warnings.filterwarnings("ignore", r".*Defaults list is missing `_self_`")  # Hydra then adds it at the end
            try:
                main()
            except SystemExit as end:  # raised by Hydra after --help
                if end.code or not is_exit(end):
                    raise
            check_output()
            errors.check_jobs()
        code = 0
    except SystemExit as end:
        code = end.code
        raise
    finally:
        quit_at_once()  # everything has been saved
        stop_timers()
        leave_others_behind(code if isinstance(code, int) else 1)
