"""Fetches agents of the Hugging Face Hub, `hub:user/name`: a single safetensors file of bounded size."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from agent.common.errors import UserError
from agent.common.files import atomic_write_bytes, read_plain, why
from agent.config.which import Which
from agent.records.names import AGENT, RUNS
from agent.records.saved_agent import find_agent

PREFIX = "hub:"
#: The largest agent that is fetched, in bytes.
MAX_BYTES = 512 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def is_remote(path: str | Path) -> bool:
    """Whether a path names an agent of the Hub."""
    return str(path).startswith(PREFIX)


def agent_file(path: str | Path, which: Which) -> Path:
    """The file of an agent of the Hub or of this machine.

    Raises:
        UserError: there is no such agent.
    """
    return fetch(str(path)) if is_remote(path) else local_agent(Path(path), which)


def local_agent(path: Path, which: Which) -> Path:
    """The file of an agent of this machine.

    Raises:
        UserError: there is no such agent, or the path names the best agent and `which` is not the default.
    """
    file = find_agent(path, which)
    if which == "last" and file.parent.name == "best":
        raise UserError(
            f"{path} is the best agent of its run, and which=last asks for the last one: name {file.parent.parent}, or "
            "leave which out"
        )
    return file


def fetch(name: str) -> Path:
    """The agent's file in the Hub's cache on this machine; it is downloaded if it is missing or outdated.

    Args:
        name: `hub:user/name`.

    Raises:
        UserError: the name is invalid, the extra is missing, the Hub cannot be reached, or has no such agent.
    """
    repo = checked_repo(name.removeprefix(PREFIX), name)
    hub = library(name)
    with _one_sentence_errors(name):
        try:
            metadata = hub.get_hf_file_metadata(hub.hf_hub_url(repo, AGENT))
        except hub.errors.HfHubHTTPError:
            raise
        except Exception:  # no network
            cached = _cached(hub, repo)
            if cached is None:
                raise
            print(f"{name}: the Hub cannot be reached; the cached copy on this machine is used", file=sys.stderr)
            return cached
        if metadata.size is None or metadata.size > MAX_BYTES:
            raise UserError(f"{name} has {metadata.size or 0:,} bytes, and at most {MAX_BYTES:,} are fetched")
        return Path(hub.hf_hub_download(repo, AGENT, revision=metadata.commit_hash))


def _cached(hub: ModuleType, repo: str) -> Path | None:
    """The newest copy in the Hub's cache, which has a folder for each commit."""
    snapshots = Path(hub.constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots"
    return max(snapshots.glob(f"*/{AGENT}"), key=lambda path: path.stat().st_mtime_ns, default=None)


def copy_from_hub(name: str) -> Path:
    """Copies the agent's file to a folder below runs/hub/, where results may be written beside it.

    Raises:
        UserError: as `fetch`, or the folder cannot be written.
    """
    file, copy = fetch(name), RUNS / "hub" / name.removeprefix(PREFIX) / AGENT
    try:
        data = read_plain(file, MAX_BYTES)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {why(error)}") from error
    atomic_write_bytes(copy, data)
    return copy


def own_file(path: str, which: Which) -> Path:
    """The file of an agent, in a folder where results may be written beside it.

    Raises:
        UserError: there is no such agent.
    """
    return copy_from_hub(path) if is_remote(path) else local_agent(Path(path), which)


def checked_repo(repo: str, option: str) -> str:
    """Checks a name of the Hub, `user/name`.

    Args:
        repo: the name.
        option: the user's own text, for the message.

    Raises:
        UserError: the name is invalid.
    """
    if not _NAME.fullmatch(repo) or len(repo) > 96 or "--" in repo or ".." in repo or repo.endswith((".git", "-", ".")):
        raise UserError(
            f"{option} names no repository of the Hub: write user/name, in letters, digits, and single - _ and . inside"
        )
    return repo


def library(option: str) -> ModuleType:
    """Imports huggingface_hub, which is needed for the Hub alone.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{option} needs huggingface_hub: pip install 'noisy-dqn[hub]'")
    import huggingface_hub
    import huggingface_hub.errors

    return huggingface_hub


@contextmanager
def _one_sentence_errors(name: str) -> Iterator[None]:
    """Turns the library's errors into one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name} is gated: ask its owner for access on its page, then log in with hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"there is no {name}, or it is private: check the name, or log in with hf auth login"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise UserError(f"{name} holds no {AGENT}: it was not shared by share.py to=hub") from error
    except Exception as error:  # any failure of the network, the server or the disk
        raise UserError(
            f"{name} could not be fetched ({short_reason(error)}): check the network, or download {AGENT} from its page"
        ) from error


def short_reason(error: BaseException) -> str:
    """An error's class and the first line of its message."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first:.120}" if first else type(error).__name__
