"""Sentences for a config that cannot be composed, and for overrides that Hydra or OmegaConf refuses."""

import difflib
import re
import sys
from collections.abc import Sequence

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from agent.command.arguments import Program
from agent.command.synonyms import OTHER_LIBRARIES
from agent.common.quoting import override_name, split_override

#: Launchers of sweeps, and the extras that install them.
LAUNCHERS = {"joblib": "parallel", "submitit_local": "slurm", "submitit_slurm": "slurm"}
#: Errors of a config that cannot be composed.
CONFIG_ERRORS = (HydraException, OmegaConfBaseException)


def config_sentence(error: BaseException, program: Program) -> str:
    """Words Hydra's error as one sentence, with the nearest option where a name is unknown."""
    message = str(error)
    if found := re.search(r"Could not override '([^']+)'", message):
        nested = re.search(r"full_key: (\S+)", str(error.__cause__))  # the name of one in braces: env.kwargs={size: 3}
        name = nested[1] if nested and nested[1].startswith(f"{found[1]}.") else found[1]
        if re.match(r"(env\.(eval_)?kwargs|agent\.head_options)\.", name):
            return f"no preset has {name}: write +{name}=… to add it"
        if name in program.options:
            return _missing(name, program)
        return f"unknown option {name}{_nearest(name, program.options)}"
    if found := re.match(r"Key '(\w+)' is not in struct", message):
        return _missing(found[1], program)
    if found := re.search(
        r"Could not find '(.+?)'\s+Available options in '(.+?)':(.*?)Config search", message, re.DOTALL
    ):
        if extra := LAUNCHERS.get(found[1].removeprefix("hydra/launcher/")):
            return f"{found[1].replace('launcher/', 'launcher=')} needs the extra {extra}: pip install -e '.[{extra}]'"
        plugin = ", or the name of an installed plugin" if found[2].startswith("hydra/") else ""
        name = f"{found[2]}={found[1].removeprefix(found[2])[1:]}"
        return f"there is no {name}: it must be one of {', '.join(found[3].split())}{plugin}"
    if found := re.match(r"Error resolving interpolation '(.+?)', possible interpolation keys: (.*)", message):
        unknown = (name for name in re.findall(r"\$\{(\w+)\}", found[1]) if name not in found[2].split(", "))
        return _choice_sentence(next(unknown, None), found[1], error, program)
    if found := re.search("Cannot find primary config '(.+?)'", message):
        return f"there is no config {found[1]}: --config-name takes the name of a file in conf/ or --config-dir"
    if re.match("(Additional|Primary) config directory", message):
        return f"{message.partition(chr(10))[0].rstrip('.')}: --config-dir and --config-path take a folder"
    if found := re.match("Ambiguous value for argument '(.*?)'\n", message):
        return f"{found[1]} reads as several values: {_advice_on_values(found[1], program)}"
    if found := re.search(
        r"Cannot merge DictConfig with ListConfig\s+full_key: (\S+)\s+object_type=(\w+)", str(error.__cause__)
    ):
        kind = "a list, such as [a,b]" if found[2] == "list" else "options of its own, such as {name:value}"
        return f"{message.removeprefix('Error merging override ')} cannot be used: {found[1]} takes {kind}"
    if "dereferencing interpolation '${run_folder:" in message:
        return "resume takes one run folder, such as resume=runs/CartPole-v1/<run>, or resume=auto"
    if isinstance(error, InterpolationResolutionError):
        return _interpolation_sentence(error, _place(message), program)
    if "Can only enumerate CHOICE and RANGE sweeps" in message:
        return "a sweep takes single values, and an interval has none: write range(0,3) or choice(0,1,2), for example"
    if found := re.match(r"Error merging override (hydra\.(?:run|sweep)\.dir)=", message):
        return f"{found[1]} takes a folder, such as {found[1]}=runs/mine"
    if isinstance(error, OverrideParseException):
        if found := re.fullmatch(r"([^=]+)=~((/.*)?)", error.override):
            options = "options are written name=value, with $HOME in place of ~"
            return f"cannot read {error.override}: {options}: {found[1]}=$HOME{found[2]}"
        example = "a text with spaces, commas, brackets, quotes, = or # is in quotes, such as 'wandb.tags=[\"a = b\"]'"
        return f"cannot read {error.override}: options are written name=value, such as {program.example}, and {example}"
    text = message.partition("See https://")[0].strip()
    return f"{text}; options are written name=value, such as {program.example}, see --help"


def _advice_on_values(override: str, program: Program) -> str:
    """Says what to write in place of name=a,b."""
    name, value = split_override(override)
    if program.name == "train.py":
        advice = program.several or "add -m for a run with each"
    elif name in ("checkpoint", "runs"):
        return f"name {program.several}"
    else:
        advice = f"{name} takes one value" if name not in program.lists else ""
    one = [f"write it as one text, '{name}=\"{value}\"'"] if name in program.texts or ".kwargs." in name else []
    one += [f"write it as a list, {name}=[{value}]"] if name in program.lists else []
    return ", or ".join(filter(None, [advice, *one]))


def _choice_sentence(name: str | None, text: str, error: BaseException, program: Program) -> str:
    """For a choice of a config file that Hydra cannot make, such as env=${…}: it knows only names of other choices.

    Args:
        name: the choice that is missing; None if `text`, which holds no such name, cannot be resolved.
        text: the choice as it was written, with its ${…}.
        error: the error of Hydra.
        program: the program whose config it is.
    """
    if name is None:
        return _interpolation_sentence(error.__context__ or error, f"{text} cannot be used", program)
    written = [word for word in sys.argv[1:] if "${" in word and override_name(word) == name]
    if written:
        return f"{written[0]} cannot be used: {name} takes a plain name, such as {name}=$NAME, which the shell replaces"
    return f"{name} takes one name, and cannot be left out: write {name}=<name>, without ${{…}}; see --help"


def _place(message: str) -> str:
    """Names the override, or the option, whose ${…} cannot be resolved, as the beginning of a sentence.

    Hydra's own options refer to ours, and may be the first that fail: the message names these instead of ours.
    """
    found = re.search(r"full_key: (\S+)", message)
    name = found[1] if found else ""
    written = [word for word in sys.argv[1:] if "${" in word]
    written = [word for word in written if override_name(word) == name] or written
    if written:
        return f"{' '.join(written)} cannot be used"
    return "the config cannot be used" if not name or name.startswith("hydra.") else f"{name} cannot be used"


def _interpolation_sentence(error: BaseException, place: str, program: Program) -> str:
    """Says why a ${…} has no value, and what to write instead."""
    text = str(error).partition("\n")[0]
    if found := re.search(r"Environment variable '(.*?)' not found", text):
        variable = found[1]
        return f"{place}: set the variable {variable}, or write ${{oc.env:{variable},<default>}}"
    if text.startswith("Recursive interpolation"):
        return f"{place}: its ${{…}} leads back to itself; write a value in its place"
    if found := re.match(r"Interpolation key '(.*?)' not found", text):
        nearest = _nearest(found[1], program.options)
        return f"{place}: ${{{found[1]}}} names an option that the config does not have{nearest}"
    if found := re.match(r"Unsupported interpolation type (\S+)", text):
        return f"{place}: there is no function {found[1]}; write ${{<option>}} or ${{oc.env:<variable>}}"
    if found := re.search(r"`oc\.decode` can only take .* but `(.*)` is of type", text):
        return f"{place}: oc.decode reads a text, and {found[1]} is none; write {found[1]} by itself"
    reason = re.sub(r"^\w+ (raised )?while resolving interpolation: ", "", text)
    return f"{place}: its ${{…}} has no value ({reason}); correct it, or write a value in its place"


def _missing(name: str, program: Program) -> str:
    own = program.name.removesuffix(".py")
    return f"the config has no {name}: a config of your own begins with defaults: [{own}, _self_]"


def _nearest(name: str, options: Sequence[str]) -> str:
    """Suggests the options that end in `name`, that other libraries call so, or that are spelt alike."""
    name = name.replace("-", "_")
    equivalent = OTHER_LIBRARIES.get(name.removeprefix("agent."))
    close = [option for option in options if option.endswith(f".{name}") or option == equivalent]
    close = close or difflib.get_close_matches(name, options, n=3, cutoff=0.6)
    return f"; did you mean {', '.join(close)}?" if close else "; see --help"
