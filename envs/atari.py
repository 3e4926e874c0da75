"""Atari games as the papers play them, from ale-py: grey 84×84 frames, four of them stacked, four screens a step.

Mnih et al. (2015), Machado et al. (2018). Rewards are the game's own and an episode is a whole game; training itself
clips rewards and ends returns at lost lives. The emulator makes actions sticky (`repeat_action_probability`).
"""

from collections import deque
from collections.abc import Mapping
from typing import SupportsFloat

import gymnasium as gym
import numpy as np

from envs.kinds import Env, Info

SIDE, STACK, SKIP, NOOP_MAX = 84, 4, 4, 30

#: Scores of random play and of a professional human, in games that begin with up to 30 idle steps (Wang et al. 2016).
SCORES: dict[str, tuple[float, float]] = {
    **{"alien": (227.8, 7127.7), "amidar": (5.8, 1719.5), "assault": (222.4, 742.0), "asterix": (210.0, 8503.3)},
    **{"asteroids": (719.1, 47388.7), "atlantis": (12850.0, 29028.1), "bank_heist": (14.2, 753.1)},
    **{"battle_zone": (2360.0, 37187.5), "beam_rider": (363.9, 16926.5), "berzerk": (123.7, 2630.4)},
    **{"bowling": (23.1, 160.7), "boxing": (0.1, 12.1), "breakout": (1.7, 30.5), "centipede": (2090.9, 12017.0)},
    **{"chopper_command": (811.0, 7387.8), "crazy_climber": (10780.5, 35829.4), "defender": (2874.5, 18688.9)},
    **{"demon_attack": (152.1, 1971.0), "double_dunk": (-18.6, -16.4), "enduro": (0.0, 860.5)},
    **{"fishing_derby": (-91.7, -38.7), "freeway": (0.0, 29.6), "frostbite": (65.2, 4334.7)},
    **{"gopher": (257.6, 2412.5), "gravitar": (173.0, 3351.4), "hero": (1027.0, 30826.4), "ice_hockey": (-11.2, 0.9)},
    **{"jamesbond": (29.0, 302.8), "kangaroo": (52.0, 3035.0), "krull": (1598.0, 2665.5)},
    **{"kung_fu_master": (258.5, 22736.3), "montezuma_revenge": (0.0, 4753.3), "ms_pacman": (307.3, 6951.6)},
    **{"name_this_game": (2292.3, 8049.0), "phoenix": (761.4, 7242.6), "pitfall": (-229.4, 6463.7)},
    **{
        "pong": (-20.7, 14.6),
        "private_eye": (24.9, 69571.3),
        "qbert": (163.9, 13455.0),
        "riverraid": (1338.5, 17118.0),
    },
    **{"road_runner": (11.5, 7845.0), "robotank": (2.2, 11.9), "seaquest": (68.4, 42054.7)},
    **{"skiing": (-17098.1, -4336.9), "solaris": (1236.3, 12326.7), "space_invaders": (148.0, 1668.7)},
    **{"star_gunner": (664.0, 10250.0), "surround": (-10.0, 6.5), "tennis": (-23.8, -8.3)},
    **{"time_pilot": (3568.0, 5229.2), "tutankham": (11.4, 167.6), "up_n_down": (533.4, 11693.2)},
    **{"venture": (0.0, 1187.5), "video_pinball": (16256.9, 17667.9), "wizard_of_wor": (563.5, 4756.5)},
    **{"yars_revenge": (3092.9, 54576.9), "zaxxon": (32.5, 9173.3)},
}


def is_ale(spec: gym.envs.registration.EnvSpec) -> bool:
    """Whether an environment is an emulator of ale-py."""
    return str(spec.entry_point).startswith("ale_py")


def is_played_as_in_the_papers(spec: gym.envs.registration.EnvSpec, kwargs: Mapping[str, object]) -> bool:
    """Whether an environment is ale-py's and its arguments choose no other frames."""
    chosen = {"obs_type", "frameskip"} & kwargs.keys()
    return is_ale(spec) and spec.kwargs.get("obs_type", "rgb") == "rgb" and not chosen


#: Arguments of the emulator: `Atari` itself skips and stacks frames.
EMULATOR: dict[str, object] = {"obs_type": "grayscale", "frameskip": 1}


class Atari(gym.Wrapper[np.ndarray, np.int64, np.ndarray, np.int64]):
    """Frames of an emulator made with EMULATOR as stacks [4, 84, 84], uint8, the newest last.

    A frame is the brighter of the last two screens, since sprites flicker, averaged over areas. An episode begins
    with 1 to 30 idle steps, and its first stack is its first frame, four times. `info["life_lost"]` says whether a
    step lost a life that was not the last.
    """

    def __init__(self, env: gym.Env[np.ndarray, np.int64]) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, gym.spaces.Box)
        height, width = env.observation_space.shape
        self._rows, self._columns = area_weights(height, SIDE), area_weights(width, SIDE).T
        self.observation_space = gym.spaces.Box(0, 255, (STACK, SIDE, SIDE), np.uint8)
        self._frames: deque[np.ndarray] = deque(maxlen=STACK)
        self._lives = 0

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[np.ndarray, Info]:
        """Begins a game with a number of idle steps that `seed` decides."""
        screen, info = self.env.reset(seed=seed, options=options)
        for _ in range(int(self.env.unwrapped.np_random.integers(1, NOOP_MAX + 1))):
            screen, _, terminated, truncated, info = self.env.step(np.int64(0))
            if terminated or truncated:
                screen, info = self.env.reset(options=options)
        self._frames.extend([self._frame(screen)] * STACK)
        self._lives = info.get("lives", 0)
        return np.stack(self._frames), info

    def step(self, action: np.int64) -> tuple[np.ndarray, SupportsFloat, bool, bool, Info]:
        """The same action for four emulator frames; the reward is their sum."""
        total, screens = 0.0, deque[np.ndarray](maxlen=2)
        for _ in range(SKIP):
            screen, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            screens.append(screen)
            if terminated or truncated:
                break
        self._frames.append(self._frame(np.maximum(screens[0], screens[-1])))
        lives = info.get("lives", 0)
        info["life_lost"], self._lives = 0 < lives < self._lives, lives
        return np.stack(self._frames), total, terminated, truncated, info

    def _frame(self, screen: np.ndarray) -> np.ndarray:
        frame: np.ndarray = np.rint(self._rows @ screen.astype(np.float32) @ self._columns).astype(np.uint8)
        return frame


def frame_stack(env: Env) -> int:
    """The number of frames in an observation of a wrapped environment; each step adds one frame."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Atari):
            return STACK
        env = env.env
    return 1


def area_weights(source: int, target: int) -> np.ndarray:
    """Weights [target, source] that average `source` pixels over `target` equal parts."""
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: np.ndarray = (overlap.clip(0.0) * (target / source)).astype(np.float32)
    return weights


def human_normalised(env_id: str, mean_return: float) -> float | None:
    """A mean return on the scale from random play (0) to a human (1); None for games without published scores."""
    spec = gym.registry.get(env_id)
    if spec is None or not is_ale(spec):
        return None
    random, human = SCORES.get(str(spec.kwargs.get("game")), (0.0, 0.0))
    return None if random == human else (mean_return - random) / (human - random)
