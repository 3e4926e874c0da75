"""Walks through the folders below a folder, with links followed."""

import os
from collections.abc import Iterator
from pathlib import Path

from agent.common.texts import natural_order

#: The greatest depth of a walk: a link may lead to any place.
MAX_DEPTH = 8


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields a folder and those below it, in natural order, each with the names of its own folders.

    The caller may remove names, and their folders are then not visited. Links to folders are followed, and a folder to
    which several paths lead is visited once. A folder that cannot be read counts as empty.
    """
    visited: set[tuple[int, int]] = set()
    for path, names, _ in os.walk(root, followlinks=True):
        folder = Path(path)
        try:
            status = folder.stat()
        except OSError:  # it has been deleted in the meantime
            names.clear()
            continue
        identity = status.st_dev, status.st_ino
        if identity in visited:
            names.clear()
            continue
        visited.add(identity)
        names[:] = [] if len(folder.relative_to(root).parts) >= MAX_DEPTH else sorted(names, key=natural_order)
        yield folder, names
