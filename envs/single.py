"""Makes one environment by its id, with all its wrappers."""

import difflib
import warnings
from collections.abc import Mapping
from typing import Any

import gymnasium as gym

from agent.common.errors import UserError, one_line
from agent.common.foreign import is_stop
from envs.atari import EMULATOR, Atari, is_played_as_in_the_papers
from envs.closing import guard_close
from envs.failure import BrokenEnvironmentError, authors_lines
from envs.kinds import Env
from envs.masks import AUTO, OFF, mask_part, mask_source_in_observation, with_observed_masks
from envs.minatar import MinAtar, is_minatar
from envs.packages import register
from envs.parts import wrap
from envs.wrapping import BARE, Wrapping


class UnknownEnvironmentError(UserError):
    """There is no environment with this id."""


def make_single(
    env: str | gym.envs.registration.EnvSpec,
    kwargs: Mapping[str, object],
    render_mode: str | None = None,
    time_limit: int | None = None,
    wrapping: Wrapping = BARE,
    action_mask: str = OFF,
) -> Env:
    """One environment, without vectorisation and without Gymnasium's checker, which takes time at every step.

    With action_mask=auto, masks that are a part of its observations are used; see `envs.masks`.

    Raises:
        UserError: if Gymnasium does not know the id or cannot make it.
    """
    env_id = env if isinstance(env, str) else env.id
    if not env_id:
        raise UserError("env= names no environment: write env=<id>, such as env=CartPole-v1")
    options: dict[str, Any] = {**kwargs, "disable_env_checker": True}
    options |= {} if render_mode is None else {"render_mode": render_mode}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about newer versions; errors are exceptions
        register(env_id)
        try:
            made = _made(env, kwargs, options, time_limit)
            return guard_close(_wrapped(made, wrapping, action_mask, env_id), env_id)
        except UserError:
            raise
        except (gym.error.NameNotFound, gym.error.NamespaceNotFound, gym.error.VersionNotFound) as error:
            raise UnknownEnvironmentError(f"there is no environment {env_id!r}{_nearest_ids(env_id)}") from error
        except gym.error.DependencyNotInstalled as error:
            raise UserError(f"{env_id} needs a package that is not installed: {error}") from error
        except BaseException as error:  # SystemExit too
            if is_stop(error):
                raise
            sentence = f"{env_id} could not be made with {dict(kwargs)}: {one_line(error)}"
            raise BrokenEnvironmentError(sentence, authors_lines(error)) from error


def _made(
    env: str | gym.envs.registration.EnvSpec,
    kwargs: Mapping[str, object],
    options: dict[str, Any],
    time_limit: int | None,
) -> Env:
    """The environment with `options`, among them its `kwargs`; Atari and MinAtar have wrappers of this project."""
    # -1: without the registered limit, which may be shorter than the requested one
    limit = {} if time_limit is None else {"max_episode_steps": -1}
    made: Env = gym.make(env, **{**limit, **options})
    if made.spec is not None and is_played_as_in_the_papers(made.spec, kwargs):
        made.close()
        made = Atari(gym.make(made.spec.id, **{**EMULATOR, **options}))
    elif is_minatar(made.spec):
        made = MinAtar(made)
    return made if time_limit is None else gym.wrappers.TimeLimit(made, time_limit)


def _wrapped(env: Env, wrapping: Wrapping, action_mask: str, env_id: str) -> Env:
    """The environment with its wrappers and its masks."""
    action_mask = mask_source_in_observation(env) if action_mask == AUTO else action_mask
    return with_observed_masks(wrap(env, wrapping, env_id, mask_part(action_mask)), action_mask)


def _nearest_ids(env_id: str) -> str:
    by_lower = {known.lower(): known for known in gym.registry}
    nearest = difflib.get_close_matches(env_id.lower(), by_lower, n=3, cutoff=0.5)
    return f"; the nearest are {', '.join(by_lower[name] for name in nearest)}" if nearest else ""
