"""The results of a study: the printed table and the written files."""

import sys
from collections.abc import Sequence
from pathlib import Path

from agent.command.tables import aligned
from agent.common.errors import UserError
from agent.config.tune import StudyConfig
from agent.records.console import format_return
from agent.records.study_plots import plot_history, plot_importances
from agent.running.tuning.pool import check_failures
from agent.running.tuning.result import Result
from agent.running.tuning.results import (
    best_of,
    commands_of_test,
    train_command,
    write_preset,
    write_trials,
)
from agent.running.tuning.study import Study

#: The most characters of an error in the table.
MAX_ERROR = 60


def finish(study: Study, imports: Sequence[str]) -> None:
    """Prints the trials of a study and writes its files.

    Args:
        study: the study.
        imports: the option that names the user's own modules, for the printed commands.

    Raises:
        UserError: all trials have failed, or a file cannot be written.
    """
    results = study.results()
    check_failures(results)
    print(trials_table(results))
    written = write_trials(study.folder, results)
    best = best_of(results)
    if best is None:
        print("no trial has been trained to its end yet")
    else:
        written.append(write_preset(study.folder, study.config, best, imports))
    written += draw(study, results)
    print("\n".join(f"wrote {path}" for path in written))
    if best is not None:
        print_best(study.folder, study.config, best, imports)


def draw(study: Study, results: Sequence[Result]) -> list[Path]:
    """Draws the scores of the trials and, with enough of them, the importances of options; returns the pictures."""
    history, bars = study.folder / "history.png", study.folder / "importances.png"
    title = f"{study.config.env}: {len(results)} trials"
    complete = [result.state == "complete" for result in results]
    try:
        plot_history([result.score for result in results], complete, history, title)
        if not (importances := study.importances()):
            return [history]
        plot_importances(importances, bars, f"{title}: which options matter")
    except UserError as error:  # a picture that cannot be drawn does not end a study
        print(error, file=sys.stderr)
        return []
    return [history, bars]


def print_best(folder: Path, config: StudyConfig, best: Result, imports: Sequence[str]) -> None:
    """Prints the best settings, the command that trains with them, and commands that test them on fresh seeds."""
    settings = " ".join(f"{name}={_cell(value)}" for name, value in best.settings.items())
    seeds = " and ".join(map(str, config.seeds)) if len(config.seeds) < 3 else f"{config.seeds[0]}–{config.seeds[-1]}"
    print(f"\nbest: trial {best.number}, {format_return(best.score or 0.0)}: {settings}")
    print(f"train with it:\n  {train_command(folder, config, imports)}")
    print(
        f"its score is no test score: the best of many trials is partly the luckiest on seed {seeds}. Test it on fresh "
        "seeds, together with the settings that the study started from:"
    )
    print("\n".join(f"  {command}" for command in commands_of_test(folder, config, imports)))


def trials_table(results: Sequence[Result]) -> str:
    """Formats one line for each trial, below a header."""
    names = list(dict.fromkeys(name for result in results for name in result.settings))
    header = ["trial", "state", "score", "evaluations", *(name.removeprefix("agent.") for name in names)]
    rows = [header]
    for result in results:
        score = "" if result.score is None else format_return(result.score)
        state = f"failed: {result.error}"[:MAX_ERROR] if result.state == "failed" else result.state
        settings = [_cell(result.settings.get(name, "")) for name in names]
        rows.append([str(result.number), state, score, str(result.reported), *settings])
    return aligned(rows)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace(" ", "")
