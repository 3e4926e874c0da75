"""tune.py: its space and its command line, and studies that are stopped, killed, shared and shown."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from agent.command.composing import training_options
from agent.command.tuned import finish
from agent.command.tuning import SPACES, read_study, train_options_to_override, tuning_request
from agent.common.errors import UserError
from agent.config.parsing import parse, to_plain
from agent.config.run import TrainConfig
from agent.config.tune import StudyConfig
from agent.records.study_plots import plot_history, plot_importances
from agent.running.tuning.locks import lock
from agent.running.tuning.pool import check_failures
from agent.running.tuning.result import Result
from agent.running.tuning.results import OUTPUTS, best_of, fresh_seeds
from agent.running.tuning.space import check_domains, first_settings, parse_space
from agent.running.tuning.space_file import default_space, read_space
from agent.running.tuning.study import Study
from agent.running.tuning.trial_run import TrialRun, last_message
from tests.helpers import Process, Programs
from tests.helpers import Result as Ended
from tests.runs import write_run

pytest.importorskip("optuna")

SMALL = (
    *("wandb.mode=disabled", "eval.episodes=2", "eval.every=100", "eval.noisy=false", "num_envs=2", "steps=300"),
    *("agent.network.hidden=[8]", "agent.learning_starts=64", "agent.batch_size=64", "agent.replay_ratio=1/4"),
)


def one_sentence(ended: Ended) -> str:
    assert ended.code == 2, ended
    (line,) = ended.err.strip().splitlines()
    return line


def training(*words: str) -> TrainConfig:
    options = training_options(words)
    del options["resume"], options["imports"]
    return parse(TrainConfig, options)


def study_config(**changes: Any) -> StudyConfig:
    given: dict[str, Any] = {
        **{
            "overrides": (),
            "not_in_preset": (),
            "preset_values": {},
            "env": "CartPole-v1",
            "seeds": (20, 21),
            "trials": 5,
        },
        **{"score": "last", "pruner": "median", "startup_trials": 2, "steps": 1000, "eval_every": 100},
        "space": {"agent.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "agent.n_step": {"choices": [1, 3]}},
    }
    return StudyConfig(**{**given, **changes})


class PrunedTrial:
    """A trial that a pruner ends at its first report."""

    number, settings = 0, {"agent.lr": 1e-3}
    ended = ""

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}

    def report(self, evaluation: int, value: float) -> bool:
        return True

    def seeds(self) -> dict[str, float]:
        return self.scores

    def note(self, seed: int, score: float) -> None:
        self.scores[str(seed)] = score

    def prune(self) -> None:
        self.ended = "pruned"


@pytest.mark.parametrize("seeds", [(20,), (20, 21)])
def test_a_trial_that_is_pruned_by_a_run_of_an_earlier_process_trains_no_more(
    seeds: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial's first run was complete when its study was killed. Its score is recorded, and the pruner sees it."""
    run = write_run(tmp_path / "seed20", 20)
    assert (run / "metrics.jsonl").exists()
    monkeypatch.setattr(TrialRun, "_is_complete", lambda self: True)
    monkeypatch.setattr(TrialRun, "_start", lambda self, seed: pytest.fail(f"seed {seed} is trained"))
    trial = PrunedTrial()
    trial_run = TrialRun(trial, tmp_path, study_config(seeds=seeds), Path("train.py"))  # type: ignore[arg-type]
    assert trial_run.advance() is None
    assert str(trial_run.advance()).startswith("pruned at evaluation ")
    assert trial.ended == "pruned"


class FailedTrial(PrunedTrial):
    """A trial whose run ends with an error."""

    def fail(self, error: str) -> None:
        self.ended = error


class EndedProcess:
    """The process of a run that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code


FULL = "error: could not write x (No space left on device): free some space"


@pytest.mark.parametrize(
    ("code", "line", "sentence"),
    [
        (-signal.SIGKILL, "step 100", "SIGKILL ended trial 0: if memory was short, free some, then go on with resume="),
        (128 + signal.SIGTERM, "stopped", "SIGTERM ended trial 0"),
        (2, FULL, r"trial 0 cannot go on \(.*No space left on device.*free some space, then go on with resume="),
        (2, FULL.replace("No space left on device", os.strerror(errno.EDQUOT)), "free some space, then go on with"),
        (2, FULL.replace("No space left on device", os.strerror(errno.EFBIG)), r"ulimit -f unlimited\), then go on"),
        (2, FULL.replace("No space left on device", os.strerror(errno.EROFS)), "make the disk writable, then go on"),
        (2, "error: it is broken", ""),
        (-signal.SIGSEGV, "step 100", ""),
    ],
)
def test_a_trial_that_the_machine_ends_has_not_failed(code: int, line: str, sentence: str, tmp_path: Path) -> None:
    folder, trial = tmp_path / "study" / "trial_0000", FailedTrial()
    folder.mkdir(parents=True)
    (folder / "seed20.log").write_text(line)
    run = TrialRun(trial, folder, study_config(), Path("train.py"))  # type: ignore[arg-type]
    run._process = EndedProcess(code)  # type: ignore[assignment]
    if sentence:
        with pytest.raises(UserError, match=sentence):
            run.advance()
    else:
        assert str(run.advance()).startswith("failed: ")
    assert bool(trial.ended) == (not sentence)


# ---- the search space


def test_a_range_is_whole_where_its_numbers_are_and_yaml_may_write_1e_4(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("agent.lr: {low: 1e-4, high: 1.0e-2, log: true}\nagent.n_step: {low: 1, high: 7, step: 2}\n")
    lr, n_step = parse_space(read_space(file))
    assert (lr.low, lr.high, lr.log, lr.whole) == (1e-4, 1e-2, True, False)
    assert n_step.whole
    assert [value for value in (0, 1, 2, 3, 7, 8, 3.0, True) if n_step.holds(value)] == [1, 3, 7]
    (mixed,) = parse_space({"agent.gamma": {"low": 0, "high": 1.0}})
    assert not mixed.whole


def test_choices_may_be_numbers_that_yaml_reads_as_texts(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "agent.lr: {choices: [1e-3, 5e-4], first: 5e-4}\n"
        "agent.target_every: {choices: [1e3, 500, 2.0]}\n"
        "agent.lr_end: {choices: [null, 1e-5]}\n"
        "agent.network.hidden: {choices: [[1e2, 64], [32]]}\n"
        "agent.replay_ratio: {choices: [1/4, 1e-1]}\n"
        "env.kwargs.name: {choices: [1e-3, word]}\n"
    )
    space = read_space(file)
    domains = parse_space(space)
    assert {domain.name: domain.examples() for domain in domains} == {
        "agent.lr": [0.001, 0.0005],
        "agent.target_every": [1000, 500, 2.0],
        "agent.lr_end": [None, 1e-5],
        "agent.network.hidden": [[100, 64], [32]],
        "agent.replay_ratio": ["1/4", "1e-1"],  # an exact fraction
        "env.kwargs.name": ["1e-3", "word"],  # the environment's own
    }
    check_domains(domains, TrainConfig())
    assert first_settings(space, domains, to_plain(TrainConfig()))["agent.lr"] == 0.0005


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("agent.lr: {low: 1e-4, high: 1e-2}\nagent.n_step: {choices: [1, 3]}\nagent.lr: {choices: [1e-3]}", "agent.lr"),
        ("agent.lr: {low: 1e-4, high: 1e-2, 'low': 1e-3}", "low"),
    ],
)
def test_a_space_file_that_has_a_name_twice_is_refused(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"^space=.*space\.yaml has {name} twice: leave one of them out$"):
        read_space(tmp_path / "space.yaml")


def test_a_study_of_an_older_release_with_a_choice_twice_goes_on(tmp_path: Path) -> None:
    config = study_config(space={"agent.n_step": {"choices": [1, 3, 1]}})
    (tmp_path / "study.json").write_text(json.dumps(to_plain(config)))
    study = Study(tmp_path, read_study(tmp_path))
    for _ in range(3):
        trial = study.next_trial()
        assert trial is not None
        assert trial.settings["agent.n_step"] in (1, 3)
        trial.complete(1.0)
    distributions = study._study.get_trials()[0].distributions["agent.n_step"]
    assert distributions.choices == ("1", "3")


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        ({"agent.lrr": {"low": 0.1, "high": 1}}, r"unknown option agent\.lrr; did you mean lr"),
        ({"nothing": {"low": 0.1, "high": 1}}, "unknown option nothing"),
        ({"agent.lr\xa0": {"low": 0.1, "high": 1}}, r"^the space has 'agent\.lr\\xa0', .* did you mean agent\.lr\?$"),
        ({"agent.lr ": {"low": 0.1, "high": 1}}, r"^the space has 'agent\.lr ', which is no option; did you mean a"),
        ({"\ud800": {"low": 0.1, "high": 1}}, r"^the space has '\\ud800', which is no option$"),
        ({"agent.l\x00rr": {"choices": [1]}}, r"^the space has 'agent\.l\\x00rr', which is .* did you mean agent\.lr,"),
        ({"agent.lr.x": {"low": 0.1, "high": 1}}, r"agent\.lr"),
        ({"agent.lr": {"low": 1.0, "high": 0.1}}, r"agent\.lr in the space has low=1.0 above high=0.1"),
        ({"agent.lr": {"low": -1, "high": 1}}, r"agent\.lr=-1.* must be greater than 0"),
        ({"agent.lr": {"low": 0, "high": 1, "log": True}}, "low must be greater than 0"),
        ({"agent.lr": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}, "log and step"),
        ({"agent.lr": {"low": 0.1, "high": 1, "step": 0}}, "step in the space is 0"),
        ({"agent.lr": {"low": 0.1, "high": 1, "lgo": True}}, "no lgo; did you mean low, log"),
        ({"agent.lr": {"low": "x", "high": 1}}, r"agent\.lr\.low in the space is x: it must be a number"),
        ({"agent.lr": {"low": float("nan"), "high": 1}}, "must be a number"),
        ({"agent.lr": {"low": 0.1, "high": 1, "log": 3}}, "log in the space must be true or false"),
        ({"agent.lr": 3}, r"takes \{low"),
        ({"agent.lr": {"low": 0.1}}, r"takes \{low"),
        ({"agent.lr": {"choices": []}}, "must be a list"),
        ({"agent.lr": {"choices": [0.1, "x"]}}, r"agent\.lr=x.* must be a number"),
        ({"agent.double": {"choices": [True, 3]}}, r"agent\.double=3.* must be true or false"),
        ({"steps": {"low": 1, "high": 2}}, "steps cannot be tuned"),
        ({"eval.episodes": {"low": 1, "high": 2}}, "cannot be tuned"),
        ({"env.id": {"choices": ["CartPole-v1", "Acrobot-v1"]}}, r"env\.id cannot be tuned"),
        ({"env.eval_kwargs.size": {"low": 1, "high": 2}}, r"env\.eval_kwargs\.size cannot be tuned"),
        ({"agent.lr": {"low": 0.1, "high": 1, "step": 1e-300}}, r"step in the space is 1e-300, far too small"),
        ({"agent.n_step": {"low": 1, "high": 10**400}}, r"agent\.n_step\.high in the space is 1000.*far too large"),
        ({"env.kwargs.x": {"low": -1e308, "high": 1e308}}, r"env\.kwargs\.x in the space has .* smaller range"),
        ({"agent.n_step": {"low": 1.0, "high": 5.0}}, r"agent\.n_step=2\.5.* must be a whole number"),
        ({"agent.n_step": {"low": 1.0, "high": 3.0, "step": 0.5}}, r"agent\.n_step=1\.5.* must be a whole number"),
        ({"agent.lr": {"choices": [0.001, 0.001]}}, r"^agent\.lr\.choices in the space has 0\.001 twice: leave one"),
        ({"agent.lr": {"choices": [0.001, "1e-3"]}}, r"^agent\.lr\.choices in the space has 0\.001 twice"),
        ({"agent.n_step": {"choices": [1, 1.0]}}, r"^agent\.n_step\.choices in the space has 1\.0 twice"),
        ({"agent.network.hidden": {"choices": [[8], [8.0]]}}, r"has \[8\.0\] twice: leave one of them out"),
    ],
)
def test_a_space_that_is_wrong_is_refused(space: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_domains(parse_space(space), TrainConfig())


def test_a_long_name_is_the_environment_s_own_and_shortened_in_sentences_alone(tmp_path: Path) -> None:
    name = f"env.kwargs.{'x' * 100}"
    space = {name: {"low": 1, "high": 2, "first": 2}}
    (domain,) = parse_space(space)
    assert first_settings(space, [domain], {}) == {name: 2}
    space[name]["first"] = 3
    with pytest.raises(UserError, match=r"^env\.kwargs\.x{69} …\.first in the space is 3"):
        first_settings(space, [domain], {})


@pytest.mark.parametrize("text", ["", "[1, 2]", "3", "a: b: c", "x: !!python/object/apply:os.system ['true']"])
def test_a_space_file_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(UserError, match="space="):
        read_space(tmp_path / "space.yaml")


AGENTS = ("noisy_dqn", "noisy_dueling", "dqn", "index_dqn", "munchausen_dqn", "c51", "qr_dqn", "iqn", "rainbow", "der")


@pytest.mark.parametrize("agent", [*AGENTS, "btr"])
def test_the_default_space_of_each_agent_fits_it(agent: str) -> None:
    """Every option exists, takes both ends of its range, and matters for this agent."""
    config = training(f"agent={agent}", "env=LunarLander-v3")
    space = default_space(SPACES, config)
    domains = parse_space(space)
    check_domains(domains, config)
    first = first_settings(space, domains, to_plain(config))
    assert {"agent.lr", "agent.batch_size"} <= set(first)
    for name, needed in (
        ("agent.noise.sigma0", config.agent.noise.enabled),
        ("agent.epsilon.end", config.agent.epsilon.start > 0),
        ("agent.munchausen.alpha", config.agent.munchausen.enabled),
        ("agent.priority.exponent", config.agent.priority.enabled),
        ("agent.quantile.count", config.agent.head == "quantile"),
        ("agent.implicit_quantile.samples", config.agent.head == "implicit_quantile"),
        ("agent.gamma", config.agent.head != "categorical"),
    ):
        assert (name in space) == needed, name


def test_a_first_value_outside_its_domain_is_refused() -> None:
    lr, n_step = {"low": 1e-4, "high": 1e-2}, {"low": 1, "high": 7, "step": 2}
    for name, entry, sentence in (
        ("agent.lr", {**lr, "first": 1}, r"agent\.lr\.first in the space is 1: it must be a number from 0\.0001 to 0"),
        ("agent.lr", {**lr, "first": "x"}, r"agent\.lr\.first in the space is x: it must be a number"),
        ("agent.n_step", {**n_step, "first": 4}, "is 4: it must be a whole number from 1 to 7 in steps of 2"),
        ("agent.n_step", {**n_step, "first": 1.5}, r"is 1\.5: it must be a whole number"),
        ("agent.n_step", {"choices": [1, 3], "first": 2}, "is 2: it must be one of its choices"),
        ("agent.n_step", {"choices": [1, 3], "first": {1, 3}}, "it must be one of its choices"),
    ):
        space = {name: entry}
        with pytest.raises(UserError, match=sentence):
            first_settings(space, parse_space(space), {})
    space = {"agent.lr": {**lr, "first": "1e-3"}, "agent.n_step": {**n_step, "first": 3.0}}
    assert first_settings(space, parse_space(space), {}) == {"agent.lr": 1e-3, "agent.n_step": 3}


def test_every_space_file_belongs_to_some_agent() -> None:
    parts = {"every", "discount", "factorised", "independent", "index", "epsilon", "munchausen", "priority"}
    assert {path.stem for path in SPACES.iterdir()} == parts | {"quantile", "implicit_quantile"}


# ---- the command line


def test_options_of_train_become_one_of_tune() -> None:
    words = [
        "env=CartPole-v1",
        "trials=3",
        "agent.lr=1e-3",
        "--cfg",
        "job",
        "+env.kwargs.x='a b'",
        "hydra.verbose=true",
    ]
    kept = ["trials=3", "--cfg", "job", "hydra.verbose=true"]
    folded = train_options_to_override(words)
    assert folded[:-1] == kept
    assert folded[-1] == r"train=['env=CartPole-v1','agent.lr=1e-3','+env.kwargs.x=\'a b\'']"
    assert train_options_to_override(["seeds=2"]) == ["seeds=2"]
    with pytest.raises(UserError, match="train= and options"):
        train_options_to_override(["train=[a=1]", "agent.lr=1"])


def test_options_that_are_taken_out_have_their_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words space=mine.yaml ~space have this effect: the option is missing."""
    monkeypatch.chdir(tmp_path)
    request = tuning_request({"train": ["env=CartPole-v1"]}, [])
    assert (request.folder.parent, request.jobs, request.config.trials) == (Path("runs/CartPole-v1"), 1, 40)
    assert "agent.lr" in request.config.space


def test_bad_words_end_in_one_sentence(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.yaml").write_text("agent.lr: {low: 1e-4, high: 1e-2}\n")
    for words, sentence in (
        (["trails=4"], "unknown option trails; did you mean trials"),
        (["trials=-1"], "trials is -1"),
        (["trials=0"], "name its folder with resume="),
        (["resume=empty"], "there is no study in it"),
        (["space=none.yaml"], "space=none.yaml cannot be read"),
        (["space=mine.yaml", "agent.lr=1e-3"], "agent.lr is in space=mine.yaml and on the command line"),
        (["seed=0,1"], "seed=0,1 has several values"),
        (["eval.episodes=0"], "leave eval.episodes above 0"),
        (["pruner=mean"], "pruner is 'mean'"),
        ([f"seed={2**63 - 2}", "seeds=3"], "the last seed must be at least 0 and below 2⁶³"),
    ):
        assert sentence in one_sentence(programs.run("tune", *words, cwd=tmp_path))
    assert not (tmp_path / "runs").exists()


def test_a_study_begins_in_no_run_and_replaces_nothing(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "runs" / "mine")
    (run / "best").mkdir()
    for name in ("study.log", "history.png", "trials.csv"):
        (tmp_path / name[:4]).mkdir()
        (tmp_path / name[:4] / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for out, sentence in (
        ("runs/mine", "runs/mine holds a run: choose another out"),
        ("runs/mine/best", "runs/mine/best lies in the run runs/mine: choose another out"),
        ("runs/mine/a/b", "runs/mine/a/b lies in the run runs/mine: choose another out"),
        ("runs/mine/a/../b", "lies in the run runs/mine: choose another out"),
        ("runs", "runs holds other runs, such as runs/mine: name a folder of its own with out"),
        ("stud", "stud holds study.log, which a new study would replace: choose another out"),
        ("hist", "hist holds history.png, which a new study would replace: choose another out"),
        ("tria", "tria holds trials.csv, which a new study would replace: choose another out"),
    ):
        with pytest.raises(UserError, match=re.escape(sentence)):
            tuning_request({"train": ["env=CartPole-v1"], "out": out}, [])
    assert sorted(tmp_path.rglob("*")) == before
    ended = programs.run("tune", "env=CartPole-v1", "out=runs/mine/study", cwd=tmp_path)
    assert one_sentence(ended) == "error: runs/mine/study lies in the run runs/mine: choose another out"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()  # as for train.py, files that nothing replaces may be there
    for out in ("mine", "runs/mine/../other"):
        assert tuning_request({"train": ["env=CartPole-v1"], "out": out}, []).folder == Path(out)


def test_a_missing_optuna_is_named(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "optuna.py").write_text("raise ImportError('none')")
    ended = programs.run("tune", "env=CartPole-v1", cwd=tmp_path, real=True, PYTHONPATH=str(tmp_path))
    assert "pip install '.[tune]'" in one_sentence(ended)


# ---- the study itself


def test_a_study_suggests_the_first_settings_first_and_goes_on_with_others(tmp_path: Path) -> None:
    first = {"agent.lr": 1e-3, "agent.n_step": 3}
    study = Study(tmp_path, study_config(first=first))
    trial = study.next_trial()
    assert trial is not None
    assert trial.settings == first
    trial.complete(1.0)
    seen = [trial.settings["agent.lr"]]
    for _ in range(2):  # a sampler that began again with its seed would repeat its settings
        again = Study(tmp_path, study_config(first=first))
        following = again.next_trial()
        assert following is not None
        following.complete(0.0)
        seen.append(following.settings["agent.lr"])
    assert len(set(seen)) == 3
    assert [result.score for result in study.results()] == [1.0, 0.0, 0.0]


def test_trials_are_as_many_as_were_asked_for_and_belong_to_one_process(tmp_path: Path) -> None:
    one, other = Study(tmp_path, study_config(trials=2)), Study(tmp_path, study_config(trials=2))
    mine, theirs = one.next_trial(), other.next_trial()
    assert mine is not None
    assert theirs is not None
    assert {mine.number, theirs.number} == {0, 1}
    assert one.next_trial() is None
    theirs.lock.close()  # the lock of a killed process is free, too
    adopted = one.next_trial()
    assert adopted is not None
    assert (adopted.number, adopted.settings) == (theirs.number, theirs.settings)
    assert one.next_trial() is None
    mine.note(20, 3.5)
    assert mine.seeds() == {"20": 3.5}


def test_the_median_pruner_ends_a_trial_that_is_worse_after_a_third_of_a_seed(tmp_path: Path) -> None:
    study = Study(tmp_path, study_config(trials=4))
    for value in (10.0, 20.0):
        good = study.next_trial()
        assert good is not None
        for place in range(1, 21):
            assert not good.report(place, value)
        good.complete(value)
    bad = study.next_trial()
    assert bad is not None
    ends = [place for place in range(1, 11) if bad.report(place, 1.0)]
    assert ends[0] == 10 // 3
    bad.prune()
    assert study.results()[-1].state == "pruned"


@pytest.mark.parametrize("pruner", ["hyperband", "none"])
def test_hyperband_ends_most_of_the_trials_that_get_worse_and_none_ends_no_trial(pruner: str, tmp_path: Path) -> None:
    """Each trial is worse than all trials before it. Hyperband lets a part of them go on, by its brackets."""
    study = Study(tmp_path, study_config(trials=20, pruner=pruner))
    pruned = 0
    for number in range(20):
        trial = study.next_trial()
        assert trial is not None
        if any(trial.report(place, -float(number)) for place in range(1, 21)):
            trial.prune()
            pruned += 1
        else:
            trial.complete(-float(number))
    assert (0 < pruned < 20) if pruner == "hyperband" else pruned == 0
    assert study.results()[0].state == "complete", "the best is never ended"


def result(number: int, state: str, score: float | None, error: str = "") -> Result:
    return Result(number, state, score, {}, {}, 1, 1.0, error)


def test_the_best_is_one_that_was_trained_to_its_end() -> None:
    results = [result(0, "pruned", 9.0), result(1, "complete", 2.0), result(2, "complete", 2.0)]
    best = best_of([*results, result(3, "failed", None)])
    assert best is not None
    assert best.number == 1
    assert best_of(results[:1]) is None


def test_all_trials_that_failed_are_told_in_their_own_words() -> None:
    failed = [result(number, "failed", None, "the disk is full") for number in range(2)]
    with pytest.raises(UserError, match="all 2 trials failed: the disk is full"):
        check_failures(failed)
    check_failures(failed, 3)
    check_failures([*failed, result(2, "pruned", 1.0)])
    check_failures([])


def test_last_words_are_the_error_of_a_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a line\nerror: it is broken\nits detail\n\n")
    assert last_message(log) == "it is broken"
    log.write_text("Traceback\nValueError: no\n")
    assert last_message(log) == "ValueError: no"
    assert last_message(tmp_path / "none") == "it said nothing"


def test_fresh_seeds_are_none_of_the_study() -> None:
    assert fresh_seeds([20, 21]) == [100, 101, 102, 103, 104]
    assert not set(fresh_seeds(range(95, 205))) & set(range(95, 205))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"overrides": 3}', "\x00"])
def test_a_damaged_study_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(UserError, match="damaged"):
        read_study(tmp_path)


def test_a_study_with_a_name_that_is_no_option_is_refused(tmp_path: Path) -> None:
    config = to_plain(study_config(space={"agent.lr\xa0": {"low": 1e-4, "high": 1e-2}}))
    (tmp_path / "study.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"is damaged \(the space has 'agent\.lr\\xa0', which is no option; did you mean"
    ):
        read_study(tmp_path)


@pytest.mark.parametrize("journal", ['{"op_code": 99}\n{"op_code": 99}\n', "nonsense\nnonsense\n", "[1]\n[2]\n"])
def test_a_damaged_journal_is_refused(journal: str, tmp_path: Path) -> None:
    (tmp_path / "study.log").write_text(journal)
    with pytest.raises(UserError, match="damaged"):
        Study(tmp_path, study_config())


def test_a_lock_on_the_journal_ends_with_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's own lock is a link. A killed process leaves it behind, and other processes then wait for it."""
    (tmp_path / "study.log.lock").symlink_to("study/study.log")
    monkeypatch.setattr(os, "symlink", lambda *names: pytest.fail(f"a lock that outlives its process: {names}"))
    study = Study(tmp_path, study_config())
    code = "import sys, time, pathlib; from agent.running.tuning.journal import JournalLock as Lock; "
    code += "lock = Lock(pathlib.Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(60)"
    trial = study.next_trial()
    assert trial is not None
    waiting = threading.Thread(target=trial.note, args=(20, 1.0), daemon=True)
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "study.log"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive(), "two processes write at the same time"
        holder.kill()
        waiting.join(30)
    assert not waiting.is_alive()
    assert Study(tmp_path, study_config()).results()[0].seeds == {"20": 1.0}


def test_a_half_written_last_line_is_cut_off(tmp_path: Path) -> None:
    """A full disk or a kill leaves such a line, before a study is opened or while other processes have it open."""
    one, journal = Study(tmp_path, study_config()), tmp_path / "study.log"
    first = one.next_trial()
    assert first is not None
    first.complete(1.0)
    for trials in (2, 3):
        with journal.open("ab") as file:
            file.write(b'{"op_code":4,"worker')
        study = one if trials == 2 else Study(tmp_path, study_config())
        assert study.next_trial() is not None
        assert len(Study(tmp_path, study_config()).results()) == trials
        assert all(json.loads(line) for line in journal.read_bytes().splitlines())


@pytest.mark.parametrize("name", ["report", "note", "complete", "prune", "fail", "next_trial"])
def test_a_disk_that_is_full_is_told_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(tmp_path, study_config())
    trial = study.next_trial()
    assert trial is not None

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    values = {"report": (1, 1.0), "note": (20, 1.0), "complete": (1.0,), "fail": ("it failed",)}.get(name, ())
    with pytest.raises(UserError, match=r"could not write .*study\.log \(No space left on device\): free some"):
        getattr(study if name == "next_trial" else trial, name)(*values)


def test_a_study_that_is_shown_writes_nothing_into_its_journal(tmp_path: Path) -> None:
    trial = Study(tmp_path, study_config()).next_trial()
    assert trial is not None
    before = (tmp_path / "study.log").read_bytes()
    assert len(Study(tmp_path, study_config()).results()) == 1
    assert (tmp_path / "study.log").read_bytes() == before


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        (r'"seeds":\{"20":2.5\}', '"seeds":"x"'),
        (r'"seeds":\{"20":2.5\}', '"seeds":{"20":null}'),
        (r'"values":\[2.5\]', '"values":[]'),
        (r'"values":\[2.5\]', '"values":["x"]'),
        (r'(?<="agent.n_step","param_value_internal":)[\d.]+', "Infinity"),
        (r'(?<="agent.lr","param_value_internal":)[\d.e-]+', '"x"'),
        (r'"intermediate_value":1.5', '"intermediate_value":[]'),
    ],
)
def test_a_damaged_value_in_a_journal_is_refused(pattern: str, damage: str, tmp_path: Path) -> None:
    lr, n_step = {"low": 1e-4, "high": 1e-2}, {"low": 1, "high": 5}
    config = study_config(space={"agent.lr": lr, "agent.n_step": n_step})
    study, journal = Study(tmp_path, config), tmp_path / "study.log"
    for number in range(2):
        trial = study.next_trial()
        assert trial is not None
        trial.report(1, 1.5)
        trial.note(20, 2.5)
        trial.complete(2.5) if number == 0 else None
    text, found = re.subn(pattern, lambda match: damage, journal.read_text())
    assert found
    journal.write_text(text)
    with pytest.raises(UserError, match=r"study\.log is damaged \(\w+: .*\): begin a new study"):
        Study(tmp_path, config).results()


def test_the_commands_for_a_task_of_one_s_own_import_its_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path, study_config(overrides=("env=Mine-v0",), not_in_preset=("env=Mine-v0",), env="Mine-v0"))
    trial = study.next_trial()
    assert trial is not None
    trial.complete(1.0)
    finish(study, ["imports=[my_game]"])
    preset = (tmp_path / "preset" / "tuned" / "best.yaml").read_text()
    commands = [line for line in (capsys.readouterr().out + preset).splitlines() if "python train.py" in line]
    assert len(commands) == 4
    assert all("env=Mine-v0 'imports=[my_game]'" in command for command in commands)


def test_a_lock_goes_with_its_holder(tmp_path: Path) -> None:
    held = lock(tmp_path / "a")
    assert held is not None
    assert lock(tmp_path / "a") is None
    held.close()
    assert lock(tmp_path / "a") is not None


# ---- whole studies


@pytest.fixture(scope="module")
def home(programs: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of two trials."""
    folder = tmp_path_factory.mktemp("tune")
    words = ("env=CartPole-v1", "trials=2", "seeds=2", "seed=20", "startup=2", "jobs=2", "out=study")
    ended = programs.run("tune", *words, *SMALL, cwd=folder)
    assert ended.code == 0, ended
    assert ended.err == ""
    (folder / "out").write_text(ended.out)
    return folder


def trials_of(folder: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((folder / "trials.json").read_text())
    return loaded


def test_trials_are_ordinary_runs_and_their_score_is_the_mean_over_seeds(home: Path) -> None:
    trials = trials_of(home / "study")
    assert [trial["number"] for trial in trials] == [0, 1]
    assert trials[0]["state"] == "complete"
    for trial in trials:
        for seed, score in trial["seeds"].items():
            run = home / "study" / f"trial_{trial['number']:04d}" / f"seed{seed}"
            config = yaml.safe_load((run / "config.yaml").read_text())
            assert (config["seed"], config["steps"], config["wandb"]["group"]) == (int(seed), 300, "study")
            for name, value in trial["settings"].items():
                node = config
                for key in name.split("."):
                    node = node[key]
                assert node == value, name
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            returns = [row["eval/return_mean"] for row in rows if "eval/return_mean" in row]
            assert score == returns[-1]
        if trial["state"] == "complete":
            assert set(trial["seeds"]) == {"20", "21"}
            assert trial["score"] == pytest.approx(sum(trial["seeds"].values()) / 2)


def test_the_table_the_csv_and_the_warning(home: Path) -> None:
    out = (home / "out").read_text()
    with (home / "study" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["0", "1"]
    assert [float(row["score"]) for row in rows] == [trial["score"] for trial in trials_of(home / "study")]
    assert "is no test score" in out
    assert "seed=100,101,102,103,104" in out


def test_the_files_of_a_study_are_those_that_no_other_study_replaces(home: Path) -> None:
    written = {path.name for path in (home / "study").iterdir() if not any(map(path.match, OUTPUTS))}
    assert written == {"study.json", "lock"}


def test_pictures_are_written(home: Path) -> None:
    for name in ("history.png", *(["importances.png"] if "importances" in (home / "out").read_text() else [])):
        with Image.open(home / "study" / name) as picture:
            assert picture.size[0] == 1200


def test_pictures_of_odd_studies_are_drawn(tmp_path: Path) -> None:
    for number, (scores, complete) in enumerate(
        [([None], [False]), ([1.0], [True]), ([None, -3.0, 2.0], [False, False, True]), ([1.0, 0.0], [False, False])]
    ):
        out = tmp_path / f"{number}.png"
        plot_history(scores, complete, out, "a $title$")
        assert out.stat().st_size > 1000
    plot_importances({"a.very.long.name_of_an_option": 0.7, "b": 0.0}, tmp_path / "bars.png", "title")
    assert (tmp_path / "bars.png").stat().st_size > 1000


def test_the_printed_command_trains_with_the_best_settings(programs: Programs, home: Path) -> None:
    best = max((t for t in trials_of(home / "study") if t["state"] == "complete"), key=lambda t: float(t["score"]))
    lines = (home / "out").read_text().splitlines()
    (command,) = (line for line in lines if line.startswith("  python train.py --config-dir"))
    words = command.split()[2:]
    ended = programs.run("train", *words, "hydra.run.dir=again", "seed=20", "eval.video=false", cwd=home)
    assert ended.code == 0, ended
    config = yaml.safe_load((home / "again" / "config.yaml").read_text())
    expected = yaml.safe_load((home / "study" / f"trial_{best['number']:04d}" / "seed20" / "config.yaml").read_text())
    for different in ("wandb", "log"):
        del config[different], expected[different]
    assert config == expected
    first, again = (
        (home / folder / "last" / "agent.safetensors").read_bytes()[-2000:]
        for folder in (f"study/trial_{best['number']:04d}/seed20", "again")
    )
    assert first == again


def test_a_study_is_shown_and_goes_on_with_more_trials(programs: Programs, home: Path) -> None:
    shown = programs.run("tune", "resume=study", "trials=0", cwd=home)
    assert shown.code == 0, shown
    assert len(read_study(home / "study").seeds) == 2
    refused = programs.run("tune", "resume=study", "seeds=3", cwd=home)
    assert "leave seeds out" in one_sentence(refused)
    refused = programs.run("tune", "resume=study", "agent.lr=0.1", cwd=home)
    assert "leave agent.lr=0.1 out" in one_sentence(refused)
    ended = programs.run("tune", "resume=study", "trials=3", cwd=home)
    assert ended.code == 0, ended
    assert len(trials_of(home / "study")) == 3


def started(programs: Programs, cwd: Path, *words: str) -> Process:
    """Starts a study of one run of some seconds, and waits for its first checkpoint."""
    options = ("env=CartPole-v1", "trials=1", "seeds=1", "out=study", *SMALL, "checkpoint.every=100", "eval.every=0")
    process = programs.start("tune", *options, "steps=6000", "agent.replay_ratio=1", *words, cwd=cwd)
    process.until(lambda: (cwd / "study" / "trial_0000" / "seed0" / "checkpoints" / "latest").exists())
    return process


def test_ctrl_c_stops_in_one_sentence_and_the_trial_goes_on(programs: Programs, tmp_path: Path) -> None:
    process = started(programs, tmp_path)
    process.kill(signal.SIGINT)
    ended = process.wait()
    assert ended.code == 130
    assert ended.err.strip() == "stopped after 0 of 1 trials; go on with: python tune.py resume=study"
    again = programs.run("tune", "resume=study", cwd=tmp_path)
    assert again.code == 0, again
    log = (tmp_path / "study" / "trial_0000" / "seed0.log").read_text()
    assert "resume=auto: going on with study/trial_0000/seed0 from step" in log
    (trial,) = trials_of(tmp_path / "study")
    assert trial["state"] == "complete"


def test_a_trial_of_a_killed_process_is_left_to_its_run_and_then_taken_over(programs: Programs, tmp_path: Path) -> None:
    process = started(programs, tmp_path)
    process.kill(signal.SIGKILL)
    process.wait()
    folder = tmp_path / "study" / "trial_0000"
    meanwhile = programs.run("tune", "resume=study", cwd=tmp_path)
    assert meanwhile.code == 0
    assert "running" in meanwhile.out  # the run goes on, and no other process trains in its folder
    log = folder / "seed0.log"
    process.until(lambda: "evaluate: " in log.read_text())
    process.until(lambda: (held := lock(folder)) is not None and held.close() is None)
    before = log.read_text()
    again = programs.run("tune", "resume=study", cwd=tmp_path)
    assert again.code == 0, again
    assert trials_of(tmp_path / "study")[0]["state"] == "complete"
    assert log.read_text() == before  # the study takes the run's result without training it again


def test_two_jobs_train_at_the_same_time(programs: Programs, tmp_path: Path) -> None:
    words = ("env=CartPole-v1", "trials=2", "seeds=1", "jobs=2", "pruner=none", "out=study")
    ended = programs.run("tune", *words, *SMALL, cwd=tmp_path)
    assert ended.code == 0, ended
    study = Study(tmp_path / "study", read_study(tmp_path / "study"))
    first, second = study._study.get_trials()
    assert first.datetime_start is not None
    assert first.datetime_complete is not None
    assert second.datetime_start is not None
    assert second.datetime_start < first.datetime_complete


def test_trials_that_all_fail_end_the_study_in_their_words(programs: Programs, tmp_path: Path) -> None:
    ended = programs.run("tune", "device=cuda:99", "trials=5", "seeds=1", *SMALL, cwd=tmp_path)
    assert "all 3 trials failed: device=cuda:99 is not there" in one_sentence(ended)


def test_a_task_that_cannot_be_made_leaves_no_study(programs: Programs, tmp_path: Path) -> None:
    ended = programs.run("tune", "env=Nope-v1", "trials=5", "seeds=1", *SMALL, cwd=tmp_path)
    assert one_sentence(ended).startswith("error: there is no environment 'Nope-v1'")
    assert not [*tmp_path.iterdir()]
