"""Reads options and command lines from a run's config.yaml, which may be a stranger's: all sizes are bounded."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import yaml

from agent.common.errors import UserError
from agent.common.files import read_plain, why
from agent.records.config_file import MAX_CONFIG, parse_config

#: Limits of what is read: options, levels, characters of a text; lines of the header, characters of a line.
MAX_OPTIONS, MAX_DEPTH, MAX_TEXT = 2_000, 12, 200
MAX_HEAD, MAX_COMMAND = 100, 4_000


def read_config(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Reads the options and command lines in a run's config.yaml; both are empty if there is no file.

    Raises:
        UserError: the file is no config, or is larger than a config can be.
    """
    if not path.is_file():
        return {}, ()
    try:
        text = read_plain(path, MAX_CONFIG).decode(errors="replace")
        head = [line[2:] for line in text.splitlines()[:MAX_HEAD] if line.startswith("# ")]
        return dict(_leaves(parse_config(text), path)), tuple(line[:MAX_COMMAND] for line in head)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {why(error)}; leave this run out") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}): leave this run out") from error


def _leaves(tree: object, path: Path) -> Iterator[tuple[str, str]]:
    """Yields the names and texts of a config's leaves; refuses too many, since YAML aliases can expand to billions."""
    count, stack = 0, [("", tree, 0)]
    while stack:
        name, node, depth = stack.pop()
        count += 1
        if count > MAX_OPTIONS or depth > MAX_DEPTH:
            raise UserError(f"{path} has more options than a config can have: leave this run out")
        if isinstance(node, dict) and (node or not name):
            children = [
                (f"{name}.{clean(str(key))}" if name else clean(str(key)), value, depth + 1)
                for key, value in islice(node.items(), MAX_OPTIONS)
            ]
            stack += reversed(children)
        elif name:
            yield name, value_text(node)


def value_text(value: object) -> str:
    """Formats an option's value as on the command line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return clean(f"[{','.join(_inside(item, 3) for item in value[:50])}]")
        case dict():
            return "{}"
        case float():
            return f"{value:g}"
    return clean(str(value))


def _inside(value: object, depth: int) -> str:
    """Formats a value in a list as on the command line; values deeper than `depth` levels are left out."""
    if isinstance(value, dict) and depth:
        pairs = (f"{key}:{_inside(item, depth - 1)}" for key, item in islice(value.items(), 50))
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, list) and depth:
        return f"[{','.join(_inside(item, depth - 1) for item in value[:50])}]"
    return "" if isinstance(value, list) else value_text(value)


def clean(text: str) -> str:
    """Puts a stranger's text on one line of limited length, without control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", " ", text[:MAX_TEXT])
