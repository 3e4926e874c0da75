"""Reads the YAML of a run's config.yaml, which may be a stranger's."""

from typing import Any

import yaml

#: Bytes; a larger config.yaml is not read. To parse so many takes up to a second, and ours have a few thousand. PyYAML
#: has a faster parser in C, but deep nesting ends it, and the process, in a segmentation fault.
MAX_CONFIG = 1 << 16


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Refuses aliases, which no run writes: a few lines with them expand to billions of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases")
        return super().compose_node(parent, index)


def parse_config(text: str | bytes) -> object:
    """Returns the content of a config.yaml.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is no YAML, or has aliases, huge numbers or too many levels.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
